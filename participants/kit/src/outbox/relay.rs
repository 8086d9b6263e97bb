//! The relay: posts what was committed to the outbox, and removes it once the store has it.
//!
//! It is woken in process by each commit and looks into the table only at its start, after an overflow, and now and
//! then for what another process left behind.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use chrono::Utc;
use tokio::{
    sync::{Semaphore, watch},
    task::{Id, JoinError, JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval},
};

use super::{Entry, Fresh, Outgoing, create_tables, page, refuse, remove};
use crate::{
    backoff::{Backoff, stopped},
    db::Db,
    events::{Client, ClientError, Expected, Refusal},
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

/// How a [`Relay`] works.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// Requests to the store at once, each of another stream.
    pub posts_max: usize,
    /// How often the table is searched for events that another process left behind, and how old these must be.
    pub search_every: Duration,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self { posts_max: 64, search_every: Duration::from_secs(5) }
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
        let poster = Arc::new(Poster { client, refusals, observer, permits: Semaphore::new(options.posts_max) });
        let at_work = AtWork {
            fresh: db.fresh().clone(),
            db,
            poster,
            options,
            lanes: Lanes::default(),
            known: BTreeSet::new(),
            posting: JoinSet::new(),
            streams: HashMap::new(),
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

struct AtWork {
    fresh: Arc<Fresh>,
    db: Db,
    poster: Arc<Poster>,
    options: RelayOptions,
    lanes: Lanes<Entry>,
    /// In a lane, being posted, or posted and not yet removed.
    known: BTreeSet<i64>,
    posting: JoinSet<Posted>,
    streams: HashMap<Id, Arc<str>>,
    posted: Vec<i64>,
}

impl AtWork {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut search = interval(self.options.search_every);
        search.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut old_enough = Duration::ZERO;
        let fresh = self.fresh.clone();
        let removal = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(removal);
        loop {
            let had_posted = !self.posted.is_empty();
            tokio::select! {
                () = fresh.arrived.notified() => self.accept(fresh.take()),
                Some(ended) = self.posting.join_next_with_id(), if !self.posting.is_empty() => self.ended(ended),
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
            while let Some(ended) = self.posting.join_next().await {
                self.posted.extend(ended.unwrap_or_default().done);
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
            self.work_on(&event.stream);
        }
    }

    fn work_on(&mut self, stream: &str) {
        let entries = self.lanes.take(stream);
        if entries.is_empty() {
            return;
        }
        let (poster, db) = (self.poster.clone(), self.db.clone());
        let task = self.posting.spawn(async move { poster.post_all(&db, entries).await });
        self.streams.insert(task.id(), stream.into());
    }

    fn ended(&mut self, ended: Result<(Id, Posted), JoinError>) {
        let (task, posted) = ended.unwrap_or_else(|error| {
            tracing::error!(%error, "posting panicked; its events are found again after a restart");
            (error.id(), Posted::default())
        });
        self.posted.extend(posted.done);
        self.forget(&posted.refused);
        if let Some(stream) = self.streams.remove(&task) {
            self.work_on(&stream);
        }
    }

    fn forget(&mut self, ids: &[i64]) {
        for id in ids {
            self.known.remove(id);
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
            Ok(()) => self.forget(&posted),
            Err(error) => {
                tracing::warn!(%error, "posted events can't be removed from the outbox now");
                self.posted = posted;
            }
        }
    }
}

/// What became of a stream's events, by their ids in the table.
#[derive(Debug, Default)]
struct Posted {
    done: Vec<i64>,
    refused: Vec<i64>,
}

struct Poster {
    client: Client,
    refusals: Arc<dyn Refusals>,
    observer: Arc<dyn Observer>,
    permits: Semaphore,
}

impl Poster {
    /// Posts a stream's events one after the other, for as long as it takes.
    async fn post_all(&self, db: &Db, entries: Vec<Entry>) -> Posted {
        let mut posted = Posted::default();
        for Entry { id, event } in entries {
            let Err(refusal) = self.post(&event).await else {
                posted.done.push(id);
                continue;
            };
            let (stream, event_id, reason) = (&event.stream, &event.event_id, refusal.to_string());
            tracing::error!(stream, event_id, reason, "the event store refuses an event; it stays in the outbox");
            match refuse(db, id, reason).await {
                Ok(()) => posted.refused.push(id),
                Err(error) => tracing::warn!(%error, event_id, "a refusal can't be noted; a restart posts again"),
            }
        }
        posted
    }

    /// Posts one event until the store has it, or has refused it and it is to be kept.
    async fn post(&self, event: &Outgoing) -> Result<(), Refusal> {
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        loop {
            let permit = self.permits.acquire().await;
            let result = self.client.append(&event.stream, Expected::Any, std::slice::from_ref(event)).await;
            drop(permit);
            let reason = match result {
                Ok(appended) => {
                    self.observer.published(event, appended.replayed);
                    return Ok(());
                }
                Err(ClientError::Refused(refusal)) => match self.refusals.refused(event, &refusal).await {
                    Refused::Drop => return Ok(()),
                    Refused::Keep => return Err(refusal),
                    Refused::Later(reason) => reason,
                },
                Err(error) => error.to_string(),
            };
            let pause = backoff.pause();
            tracing::debug!(reason, ?pause, stream = event.stream, "an event can't be posted now");
            tokio::time::sleep(pause).await;
        }
    }
}
