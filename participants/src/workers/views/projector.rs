//! Follows the log for one projection, page by page, for as long as the service runs.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use skald_kit::{
    Db, Failure, Observer,
    events::{Client, ClientError, EventPage, EventQuery},
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
};

use super::{
    super::metrics::Metrics,
    generation::{Generation, Reached},
    projection::Projection,
};

/// As many as Skald gives at once.
pub(super) const PAGE: u32 = 250;
const WAIT: Duration = Duration::from_secs(10);
/// After a page that was not full, so that under load one page carries several events.
const PACE: Duration = Duration::from_millis(10);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A projection at work.
#[derive(Debug)]
pub(super) struct Projector {
    projection: &'static dyn Projection,
    pub(super) db: Db,
    pub(super) client: Client,
    metrics: Arc<Metrics>,
    /// What is read. Whoever holds it keeps the rows from changing.
    pub(super) live: tokio::sync::Mutex<Generation>,
    /// One rebuild or verification at a time.
    pub(super) turn: Arc<Semaphore>,
    /// Of the service: rebuilds outlive the request that asked for them.
    pub(super) runtime: Handle,
    seen: Mutex<Seen>,
}

/// How a projection stands, for those who ask.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) generation: i64,
    pub(super) cursor: Option<String>,
    pub(super) reached: Reached,
    pub(super) events: i64,
    pub(super) last_event_at: Option<chrono::DateTime<chrono::Utc>>,
    /// Whether the log had nothing more when it was last asked.
    at_end: bool,
    /// When everything was in that there was: at the end of the log, or by the time of the last event.
    complete_at: Option<Instant>,
    opened_at: Instant,
}

impl Seen {
    fn of(generation: &Generation) -> Self {
        Self {
            generation: generation.number,
            cursor: generation.cursor.clone(),
            reached: generation.reached.clone(),
            events: generation.events,
            last_event_at: generation.last_event_at,
            at_end: false,
            complete_at: None,
            opened_at: Instant::now(),
        }
    }

    /// How far it is behind the log, by time; 0 at its end. Before the end was reached for the first time since the start
    /// that is the age of the last event.
    pub(super) fn lag(&self) -> Duration {
        if self.at_end {
            return Duration::ZERO;
        }
        match (self.complete_at, self.last_event_at) {
            (Some(at), _) => at.elapsed(),
            (None, Some(at)) => (chrono::Utc::now() - at).to_std().unwrap_or_default(),
            (None, None) => self.opened_at.elapsed(),
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at_end
    }
}

impl Projector {
    pub(super) async fn open(
        projection: &'static dyn Projection,
        db: Db,
        client: Client,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Failure> {
        let live = Generation::live(&db, projection).await?;
        let seen = Mutex::new(Seen::of(&live));
        let (live, turn) = (tokio::sync::Mutex::new(live), Arc::new(Semaphore::new(1)));
        Ok(Self { projection, db, client, metrics, live, turn, runtime: Handle::current(), seen })
    }

    pub(super) fn projection(&self) -> &'static dyn Projection {
        self.projection
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen_mut().clone()
    }

    fn seen_mut(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until told to stop.
    pub(super) async fn follow(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut pause = PAUSE_MIN;
        // The end of the log is known only when nothing more is there; waiting before that would leave it open.
        let mut wait = Duration::ZERO;
        loop {
            let stopped = stop.wait_for(|stop| *stop);
            let page = tokio::select! {
                _ = stopped => return,
                page = self.read(wait) => page,
            };
            let next = match page {
                Ok((from, page)) => self.take_in(from, page).await,
                Err(error) => {
                    tracing::warn!(projection = self.projection.name(), %error, "the log can't be read now");
                    self.metrics.not_polled(self.projection.name());
                    Err(())
                }
            };
            let rest = match next {
                Ok(count) => {
                    pause = PAUSE_MIN;
                    wait = if count == 0 { WAIT } else { Duration::ZERO };
                    if (1..PAGE as usize).contains(&count) { PACE } else { Duration::ZERO }
                }
                Err(()) => {
                    self.seen_mut().at_end = false;
                    wait = Duration::ZERO;
                    let now = pause;
                    pause = (pause * 2).min(PAUSE_MAX);
                    now
                }
            };
            if !rest.is_zero() {
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    () = tokio::time::sleep(rest) => {}
                }
            }
        }
    }

    /// The next page, and from where it was read.
    async fn read(&self, wait: Duration) -> Result<(Option<String>, EventPage), ClientError> {
        let from = self.live.lock().await.cursor.clone();
        let page = self.client.events(&query(self.projection, from.clone()), wait).await?;
        Ok((from, page))
    }

    /// How many events the page had.
    async fn take_in(&self, from: Option<String>, page: EventPage) -> Result<usize, ()> {
        let mut live = self.live.lock().await;
        if live.cursor != from {
            // It was rebuilt meanwhile.
            return Ok(page.items.len());
        }
        let (count, newest) = (page.items.len(), page.items.iter().map(|event| event.time).max());
        let begun = Instant::now();
        match live.take_in(&self.db, self.projection, page.items, Some(page.next_cursor)).await {
            Ok(new) => {
                self.metrics.projected(self.projection.name(), &new, begun.elapsed());
                self.note(&live, newest);
                Ok(count)
            }
            Err(error) => {
                tracing::warn!(projection = self.projection.name(), %error, "a page can't be taken in now");
                self.metrics.not_projected(self.projection.name());
                self.load(&mut live).await;
                Err(())
            }
        }
    }

    async fn load(&self, live: &mut Generation) {
        match Generation::live(&self.db, self.projection).await {
            Ok(loaded) => *live = loaded,
            Err(error) => tracing::warn!(projection = self.projection.name(), %error, "the place can't be read now"),
        }
    }

    /// Tells those who ask; `newest` is the time of the page's last event.
    pub(super) fn note(&self, live: &Generation, newest: Option<chrono::DateTime<chrono::Utc>>) {
        let at_end = newest.is_none();
        let age = newest.and_then(|at| (chrono::Utc::now() - at).to_std().ok()).unwrap_or_default();
        let mut seen = self.seen_mut();
        let opened_at = seen.opened_at;
        *seen = Seen { at_end, complete_at: Instant::now().checked_sub(age), opened_at, ..Seen::of(live) };
    }
}

/// What a projection reads.
pub(super) fn query(projection: &dyn Projection, after: Option<String>) -> EventQuery {
    let category = Some(projection.category().to_owned());
    EventQuery { after, limit: Some(PAGE), category, ..EventQuery::default() }
}
