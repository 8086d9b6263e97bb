//! The relay: posts what was committed to the outbox, and removes it once the store has it.
//!
//! It is woken in process by each commit and looks into the table only at its start, after an overflow, and now and
//! then for what another process left behind. What comes within a short pace travels in one request, of each stream the
//! next event only: the one after it follows when the store has it.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use chrono::Utc;
use tokio::{
    sync::watch,
    task::{Id, JoinError, JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{
    Entry, Fresh, Outgoing, create_tables, page,
    poster::{Outcome, Poster},
    remove,
};
use crate::{
    backoff::{Backoff, stopped},
    db::Db,
    events::{APPENDS_MAX, Client, Refusal},
    lanes::Lanes,
    observer::Observer,
};

const PAGE: i64 = 500;
/// Entries in memory; the rest waits in the table.
const MEMORY_MAX: usize = 10_000;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Posted entries are removed together, this long after the first of them.
const REMOVE_AFTER: Duration = Duration::from_millis(100);
/// The data of one request's events, unless one event alone is larger: well below what the store takes.
const REQUEST_BYTES_MAX: usize = 256 << 10;

/// How a [`Relay`] works.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// Requests to the store at once, each of other streams.
    pub posts_max: usize,
    /// From one request to the next at least: what comes meanwhile travels together.
    pub pace: Duration,
    /// How often the table is searched for events that another process left behind, and how old these must be.
    pub search_every: Duration,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self { posts_max: 16, pace: Duration::from_millis(1), search_every: Duration::from_secs(5) }
    }
}

/// What becomes of an event that the store refuses for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It is no longer needed.
    Drop,
    /// It stays in the table, for people to look at.
    Keep,
    /// It cannot be told now; post it again later.
    Later(String),
}

/// Decides about events that the store refuses for good.
#[async_trait]
pub trait Refusals: fmt::Debug + Send + Sync + 'static {
    async fn refused(&self, event: &Outgoing, refusal: &Refusal) -> Refused;
}

/// Keeps whatever is refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeepRefused;

#[async_trait]
impl Refusals for KeepRefused {
    async fn refused(&self, _: &Outgoing, _: &Refusal) -> Refused {
        Refused::Keep
    }
}

/// A running relay. One per process and database is enough; several do no harm. Dropped, it stops at once.
#[derive(Debug)]
pub struct Relay {
    task: JoinHandle<()>,
    stopping: watch::Sender<bool>,
}

impl Relay {
    /// Starts posting, first of all what an earlier process left in the table.
    ///
    /// # Errors
    /// The database's.
    pub async fn start(
        db: Db,
        client: Client,
        refusals: Arc<dyn Refusals>,
        observer: Arc<dyn Observer>,
        options: RelayOptions,
    ) -> sqlx::Result<Self> {
        create_tables(&db).await?;
        // From now on commits hand their events over; what was committed before is found by the first search.
        db.fresh().relayed.store(true, Ordering::SeqCst);
        let (stopping, stop) = watch::channel(false);
        let at_work = AtWork {
            fresh: db.fresh().clone(),
            db,
            poster: Arc::new(Poster { client, refusals, observer }),
            options,
            lanes: Lanes::default(),
            known: BTreeSet::new(),
            due: VecDeque::new(),
            tasks: JoinSet::new(),
            at_work: HashMap::new(),
            requests: 0,
            next_post: Instant::now(),
            posted: Vec::new(),
        };
        Ok(Self { task: tokio::spawn(at_work.run(stop)), stopping })
    }

    /// Lets running posts end, for a second at most. What is not posted stays in the table.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the outbox relay panicked");
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is known of a stream's next events: the first is to be posted before the others.
#[derive(Debug)]
struct Lane {
    entries: VecDeque<Entry>,
    backoff: Backoff,
}

impl Lane {
    fn new(entries: Vec<Entry>) -> Self {
        Self { entries: entries.into(), backoff: Backoff::new(BACKOFF_MIN, BACKOFF_MAX) }
    }

    fn first(&self) -> &Entry {
        self.entries.front().expect("a lane without entries is given up")
    }
}

/// A task of the relay's.
struct Task {
    lanes: Vec<Lane>,
    is_request: bool,
}

struct AtWork {
    fresh: Arc<Fresh>,
    db: Db,
    poster: Arc<Poster>,
    options: RelayOptions,
    lanes: Lanes<Entry>,
    /// In a lane, being posted, or posted and not yet removed.
    known: BTreeSet<i64>,
    /// To be posted with the next requests.
    due: VecDeque<Lane>,
    /// Each gives what became of the first entries of its lanes.
    tasks: JoinSet<Vec<Outcome>>,
    at_work: HashMap<Id, Task>,
    /// How many of the tasks are requests to the store.
    requests: usize,
    next_post: Instant,
    posted: Vec<i64>,
}

impl AtWork {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut search = interval(self.options.search_every);
        search.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut old_enough = Duration::ZERO;
        let fresh = self.fresh.clone();
        let removal = sleep(Duration::ZERO);
        tokio::pin!(removal);
        loop {
            let had_posted = !self.posted.is_empty();
            let may_post = !self.due.is_empty() && self.requests < self.options.posts_max;
            tokio::select! {
                () = fresh.arrived.notified() => self.accept(fresh.take()),
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.ended(ended),
                () = sleep_until(self.next_post), if may_post => self.post(),
                _ = search.tick() => {
                    self.search(old_enough).await;
                    old_enough = self.options.search_every;
                }
                () = &mut removal, if had_posted => {
                    self.remove().await;
                    removal.as_mut().reset(Instant::now() + REMOVE_AFTER);
                }
                () = stopped(&mut stop) => break,
            }
            if !had_posted && !self.posted.is_empty() {
                removal.as_mut().reset(Instant::now() + REMOVE_AFTER);
            }
            if self.known.len() < MEMORY_MAX / 2 && fresh.overflowed.swap(false, Ordering::SeqCst) {
                self.search(Duration::ZERO).await;
            }
        }
        let ending = async {
            while self.at_work.values().any(|task| task.is_request) {
                let Some(ended) = self.tasks.join_next_with_id().await else { return };
                self.ended(ended);
            }
        };
        // Whoever is still at it after this second is posted again by the next relay.
        let _ = tokio::time::timeout(Duration::from_secs(1), ending).await;
        self.remove().await;
    }

    fn accept(&mut self, entries: impl IntoIterator<Item = Entry>) {
        let mut started: Vec<Arc<Outgoing>> = Vec::new();
        for entry in entries {
            if self.known.len() >= MEMORY_MAX {
                self.fresh.overflowed.store(true, Ordering::SeqCst);
                break;
            }
            if !self.known.insert(entry.id) {
                continue;
            }
            let event = entry.event.clone();
            if self.lanes.push(&event.stream, entry) {
                started.push(event);
            }
        }
        for event in started {
            self.go_on(&event.stream);
        }
    }

    /// What waits on a stream is due.
    fn go_on(&mut self, stream: &str) {
        let entries = self.lanes.take(stream);
        if !entries.is_empty() {
            self.due.push_back(Lane::new(entries));
        }
    }

    /// Sends the next request.
    fn post(&mut self) {
        let (mut lanes, mut bytes) = (Vec::new(), 0);
        while let Some(lane) = self.due.pop_front() {
            bytes += lane.first().event.data.get().len();
            if !lanes.is_empty() && (bytes > REQUEST_BYTES_MAX || lanes.len() == APPENDS_MAX) {
                self.due.push_front(lane);
                break;
            }
            lanes.push(lane);
        }
        self.next_post = Instant::now() + self.options.pace;
        self.requests += 1;
        let events: Vec<_> = lanes.iter().map(|lane: &Lane| lane.first().event.clone()).collect();
        let poster = self.poster.clone();
        let task = self.tasks.spawn(async move { poster.post(&events).await });
        self.at_work.insert(task.id(), Task { lanes, is_request: true });
    }

    fn ended(&mut self, ended: Result<(Id, Vec<Outcome>), JoinError>) {
        let (task, outcomes) = ended.unwrap_or_else(|error| {
            tracing::error!(%error, "posting panicked; its events are posted again");
            (error.id(), Vec::new())
        });
        let Some(Task { lanes, is_request }) = self.at_work.remove(&task) else { return };
        self.requests -= usize::from(is_request);
        let unknown = std::iter::repeat_with(|| Outcome::Later);
        for (lane, outcome) in lanes.into_iter().zip(outcomes.into_iter().chain(unknown)) {
            self.proceed(lane, outcome);
        }
    }

    /// Does with a lane what the outcome of its first entry asks for.
    fn proceed(&mut self, mut lane: Lane, outcome: Outcome) {
        let Entry { id, event } = lane.first().clone();
        match outcome {
            Outcome::Due => self.due.push_back(lane),
            Outcome::Later => {
                let pause = lane.backoff.pause();
                let wait = async move {
                    sleep(pause).await;
                    vec![Outcome::Due]
                };
                let task = self.tasks.spawn(wait);
                self.at_work.insert(task.id(), Task { lanes: vec![lane], is_request: false });
            }
            Outcome::Refused(refusal) => {
                let (poster, db) = (self.poster.clone(), self.db.clone());
                let decide = async move { vec![poster.refused(&db, id, &event, refusal).await] };
                let task = self.tasks.spawn(decide);
                self.at_work.insert(task.id(), Task { lanes: vec![lane], is_request: false });
            }
            Outcome::Done => {
                self.posted.push(id);
                self.advance(lane);
            }
            Outcome::Kept { noted } => {
                if noted {
                    self.known.remove(&id);
                }
                self.advance(lane);
            }
        }
    }

    /// Goes on with the entry after the first one.
    fn advance(&mut self, mut lane: Lane) {
        let first = lane.entries.pop_front();
        if lane.entries.is_empty() {
            first.iter().for_each(|entry| self.go_on(&entry.event.stream));
        } else {
            self.due.push_back(Lane::new(lane.entries.into()));
        }
    }

    async fn search(&mut self, old_enough: Duration) {
        let age_us = i64::try_from(old_enough.as_micros()).unwrap_or(i64::MAX);
        let before_us = Utc::now().timestamp_micros().saturating_sub(age_us);
        let mut after = 0;
        while self.known.len() < MEMORY_MAX {
            match page(&self.db, after, before_us, PAGE).await {
                Ok(entries) => {
                    let Some(last) = entries.last() else { return };
                    after = last.id;
                    self.accept(entries);
                }
                Err(error) => {
                    tracing::warn!(%error, "the outbox can't be read now");
                    return;
                }
            }
        }
        self.fresh.overflowed.store(true, Ordering::SeqCst);
    }

    async fn remove(&mut self) {
        let posted = std::mem::take(&mut self.posted);
        if posted.is_empty() {
            return;
        }
        match remove(&self.db, &posted).await {
            Ok(()) => {
                for id in posted {
                    self.known.remove(&id);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "posted events can't be removed from the outbox now");
                self.posted = posted;
            }
        }
    }
}
