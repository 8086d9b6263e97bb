//! From a source to a handler and back: polls, handles different streams at once and each stream in order, settles.
//!
//! Memory is bounded: so many deliveries may be unsettled, and while they are nothing more is polled.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, watch},
    task::{Id, JoinError, JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};

use crate::{
    backoff::{Backoff, stopped},
    bus::{Delivery, Receipt, Settled, Settlement, Source, SourceError},
    lanes::Lanes,
};

/// How a consumer or reactor takes events in.
#[derive(Debug, Clone)]
pub struct IntakeOptions {
    /// Events handed out and not yet settled, at most.
    pub unsettled_max: usize,
    /// Streams handled at once.
    pub streams_max: usize,
    /// How long a poll waits when there is nothing.
    pub wait: Duration,
    /// The pause after a poll that gave something, so that under load one poll carries several events.
    pub pace: Duration,
}

impl Default for IntakeOptions {
    fn default() -> Self {
        Self { unsettled_max: 1000, streams_max: 128, wait: Duration::from_secs(10), pace: Duration::from_millis(1) }
    }
}

const BATCH_MAX: usize = 250;
/// Settlements travel with the next poll, unless that is later than this.
const SETTLE_WITHIN: Duration = Duration::from_millis(200);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What is done with events.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Handles deliveries of one stream, in the order given, and says what became of each; those that it leaves out have
    /// failed.
    fn handle(&self, deliveries: Vec<Delivery>) -> impl Future<Output = Vec<Settled>> + Send;

    /// A poll failed.
    fn not_polled(&self);
}

/// Shard and position: what an event is known by, however often it is delivered.
type Place = (u16, i64);

/// Runs until told to stop, or dropped.
pub(crate) struct Intake<H> {
    source: Arc<dyn Source>,
    handler: Arc<H>,
    options: IntakeOptions,
    permits: Arc<Semaphore>,
    lanes: Lanes<Delivery>,
    tasks: JoinSet<Vec<Settled>>,
    at_work: HashMap<Id, (Arc<str>, Vec<Place>)>,
    /// Every event that waits or is being handled, with all receipts that came for it: one that comes again meanwhile is
    /// not handled again, or a lease that is too short would make the work grow without end.
    in_hand: HashMap<Place, Vec<Receipt>>,
    settlements: Vec<Settlement>,
    /// When the oldest of them was made.
    settled_at: Option<Instant>,
}

/// The settlements that went out with a request, to be made again when it failed, and what came back.
type Polled = (Vec<Settlement>, Result<Vec<Delivery>, SourceError>);

impl<H: Handler> Intake<H> {
    pub(crate) fn new(source: Arc<dyn Source>, handler: Arc<H>, options: IntakeOptions) -> Self {
        Self {
            source,
            handler,
            permits: Arc::new(Semaphore::new(options.streams_max)),
            options,
            lanes: Lanes::default(),
            tasks: JoinSet::new(),
            at_work: HashMap::new(),
            in_hand: HashMap::new(),
            settlements: Vec::new(),
            settled_at: None,
        }
    }

    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.open() => {}
            () = stopped(&mut stop) => return,
        }
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        let mut next_poll = Instant::now();
        let mut polling: Option<JoinHandle<Polled>> = None;
        loop {
            let room = self.options.unsettled_max.saturating_sub(self.in_hand.len());
            let may_poll = polling.is_none() && room > 0;
            let settle_at = self.settled_at.map(|at| at + SETTLE_WITHIN);
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                polled = async { polling.as_mut().expect("guarded").await }, if polling.is_some() => {
                    polling = None;
                    match self.polled(polled) {
                        Ok(0) => {}
                        Ok(_) => {
                            backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
                            next_poll = Instant::now() + self.options.pace;
                        }
                        Err(()) => next_poll = Instant::now() + backoff.pause(),
                    }
                }
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.ended(ended),
                () = sleep_until(next_poll), if may_poll => polling = Some(self.poll(room)),
                () = sleep_until(settle_at.unwrap_or(next_poll)), if settle_at.is_some() => self.settle().await,
            }
        }
        if let Some(polling) = polling {
            polling.abort();
        }
        self.finish().await;
    }

    /// Repeats opening until it works.
    async fn open(&self) {
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        let mut told = false;
        while let Err(error) = self.source.open().await {
            self.handler.not_polled();
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(%error, "events can't be had yet; trying again until they can");
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    fn poll(&mut self, room: usize) -> JoinHandle<Polled> {
        let (source, wait) = (self.source.clone(), self.options.wait);
        let settlements = self.take_settlements();
        tokio::spawn(async move {
            let result = source.poll(&settlements, room.min(BATCH_MAX), wait).await;
            (settlements, result)
        })
    }

    /// How many deliveries came; Err after a failure.
    fn polled(&mut self, polled: Result<Polled, JoinError>) -> Result<usize, ()> {
        let (settlements, result) = polled.map_err(|error| tracing::error!(%error, "a poll panicked"))?;
        match result {
            Ok(deliveries) => {
                let count = deliveries.len();
                self.accept(deliveries);
                Ok(count)
            }
            Err(error) => {
                tracing::warn!(%error, "no events can be had now");
                self.handler.not_polled();
                self.put_back(settlements);
                Err(())
            }
        }
    }

    fn accept(&mut self, deliveries: Vec<Delivery>) {
        let mut started: Vec<Arc<str>> = Vec::new();
        for delivery in deliveries {
            let event = delivery.event.clone();
            let receipts = self.in_hand.entry((event.shard, event.position)).or_default();
            receipts.push(delivery.receipt.clone());
            if receipts.len() > 1 {
                continue;
            }
            if self.lanes.push(&event.stream, delivery) {
                started.push(event.stream.as_str().into());
            }
        }
        for stream in started {
            self.work_on(stream);
        }
    }

    fn work_on(&mut self, stream: Arc<str>) {
        let deliveries = self.lanes.take(&stream);
        if deliveries.is_empty() {
            return;
        }
        let places = deliveries.iter().map(|delivery| (delivery.event.shard, delivery.event.position)).collect();
        let (handler, permits) = (self.handler.clone(), self.permits.clone());
        let task = self.tasks.spawn(async move {
            let _permit = permits.acquire().await;
            handler.handle(deliveries).await
        });
        self.at_work.insert(task.id(), (stream, places));
    }

    fn ended(&mut self, ended: Result<(Id, Vec<Settled>), JoinError>) {
        let (task, settled) = ended.unwrap_or_else(|error| {
            tracing::error!(%error, "a handler of events panicked");
            (error.id(), Vec::new())
        });
        let Some((stream, places)) = self.at_work.remove(&task) else { return };
        let left_out = || Settled::Failed("the handler did not come to an end".to_owned());
        for (place, settled) in places.into_iter().zip(settled.into_iter().chain(std::iter::repeat_with(left_out))) {
            let receipts = self.in_hand.remove(&place).unwrap_or_default();
            self.put_back(
                receipts.into_iter().map(|receipt| Settlement { receipt, settled: settled.clone() }).collect(),
            );
        }
        self.work_on(stream);
    }

    fn put_back(&mut self, settlements: Vec<Settlement>) {
        self.settlements.extend(settlements);
        if !self.settlements.is_empty() {
            self.settled_at.get_or_insert_with(Instant::now);
        }
    }

    fn take_settlements(&mut self) -> Vec<Settlement> {
        self.settled_at = None;
        std::mem::take(&mut self.settlements)
    }

    async fn settle(&mut self) {
        let settlements = self.take_settlements();
        if let Err(error) = self.source.settle(&settlements).await {
            tracing::warn!(%error, "events can't be settled now");
            self.put_back(settlements);
        }
    }

    /// Waits a second at most for what is being handled. What is not settled is delivered again, to somebody else.
    async fn finish(&mut self) {
        let handled = async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                self.ended(ended);
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), handled).await;
        if !self.settlements.is_empty() {
            let _ = tokio::time::timeout(Duration::from_secs(1), self.settle()).await;
        }
    }
}
