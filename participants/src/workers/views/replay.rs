//! The log once more, from the beginning, into a generation that nobody reads.
//!
//! | | goes on to | then |
//! | --- | --- | --- |
//! | rebuild | where the live generation is, which waits meanwhile | is read in its place |
//! | verify | exactly where the live generation is, which waits meanwhile | is compared with it, and dropped |
//!
//! The live one waits for the last stretch only: before that the replay runs beside it.

use std::time::Instant;

use skald_kit::{
    Failure,
    events::{ClientError, EventPage},
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    compare,
    generation::{Generation, ProjectionError, Reached, drop_unread},
    progress::{Line, Progress},
    projector::{Projector, query},
};

/// Why a replay did not come to its end. The live generation is as it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplayError {
    #[error("the log can't be read: {0}")]
    Log(#[from] ClientError),
    #[error(transparent)]
    Projection(#[from] ProjectionError),
}

impl From<Failure> for ReplayError {
    fn from(failure: Failure) -> Self {
        Self::Projection(failure.into())
    }
}

/// What is to be done with the replay.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Rebuild,
    Verify,
}

/// Carries it out and tells of it, to the last line. Who has read that may ask for the next one, so `turn` is over before.
pub(super) async fn run(
    projector: std::sync::Arc<Projector>,
    purpose: Purpose,
    progress: Progress,
    turn: OwnedSemaphorePermit,
) {
    let name = projector.projection().name();
    let replay = Replay { projector: &projector, progress: &progress, started: Instant::now() };
    let result = match purpose {
        Purpose::Rebuild => replay.rebuild().await,
        Purpose::Verify => replay.verify().await,
    };
    if let Err(error) = drop_unread(&projector.db, name).await {
        tracing::warn!(projection = name, %error, "what a replay left can't be dropped now; the next one will");
    }
    let line = result.unwrap_or_else(|error| {
        tracing::warn!(projection = name, ?purpose, %error, "a replay failed");
        Line::Failed { error: error.to_string() }
    });
    drop(turn);
    progress.end(line).await;
}

struct Replay<'r> {
    projector: &'r Projector,
    progress: &'r Progress,
    started: Instant,
}

impl Replay<'_> {
    async fn begin(&self) -> Result<Generation, ReplayError> {
        drop_unread(&self.projector.db, self.projector.projection().name()).await?;
        Ok(Generation::begin(&self.projector.db, self.projector.projection()).await?)
    }

    async fn rebuild(&self) -> Result<Line, ReplayError> {
        let mut shadow = self.begin().await?;
        let total = self.projector.seen().reached;
        while self.one_page(&mut shadow, &total).await? {}
        let mut live = self.projector.live.lock().await;
        while !shadow.has_reached(&live.reached) && self.one_page(&mut shadow, &live.reached).await? {}
        shadow.put_in_place_of(&self.projector.db, self.projector.projection().name(), live.number).await?;
        *live = shadow;
        self.projector.note(&live, live.last_event_at);
        let (number, events) = (live.number, live.events);
        drop(live);
        let rows = compare::count(&self.projector.db, self.projector.projection().name(), number).await?;
        Ok(Line::Rebuilt { events, rows, took_ms: self.took_ms() })
    }

    async fn verify(&self) -> Result<Line, ReplayError> {
        let mut scratch = self.begin().await?;
        let target = self.projector.seen().reached;
        self.up_to(&mut scratch, &target).await?;
        let live = self.projector.live.lock().await;
        self.up_to(&mut scratch, &live.reached).await?;
        let name = self.projector.projection().name();
        let compared = compare::compare(&self.projector.db, name, live.number, scratch.number, self.progress).await?;
        Ok(Line::Verified {
            events: scratch.events,
            rows: compared.rows,
            took_ms: self.took_ms(),
            difference_count: compared.difference_count,
            differences: compared.differences,
        })
    }

    /// Takes in the next page; false at the end of the log.
    async fn one_page(&self, generation: &mut Generation, total: &Reached) -> Result<bool, ReplayError> {
        let EventPage { items, next_cursor } = self.read(generation.cursor.clone()).await?;
        let more = !items.is_empty();
        generation.take_in(&self.projector.db, self.projector.projection(), items, Some(next_cursor)).await?;
        self.note(generation, total);
        Ok(more)
    }

    /// Takes in everything up to a place, and nothing that comes after it.
    async fn up_to(&self, generation: &mut Generation, target: &Reached) -> Result<(), ReplayError> {
        // Once something was left out, the generation's own cursor stays before it, and only this one goes on.
        let mut from = generation.cursor.clone();
        let mut whole = true;
        while !generation.has_reached(target) {
            let EventPage { items, next_cursor } = self.read(from).await?;
            if items.is_empty() {
                // Retention may have taken what is missing.
                break;
            }
            let (wanted, later): (Vec<_>, Vec<_>) = items
                .into_iter()
                .partition(|event| target.get(&event.shard).is_some_and(|last| event.position <= *last));
            whole &= later.is_empty();
            let cursor = if whole { Some(next_cursor.clone()) } else { generation.cursor.clone() };
            generation.take_in(&self.projector.db, self.projector.projection(), wanted, cursor).await?;
            self.note(generation, target);
            from = Some(next_cursor);
        }
        Ok(())
    }

    async fn read(&self, after: Option<String>) -> Result<EventPage, ClientError> {
        let query = query(self.projector.projection(), after);
        self.projector.client.events(&query, std::time::Duration::ZERO).await
    }

    fn note(&self, generation: &Generation, target: &Reached) {
        let positions = |reached: &Reached| reached.values().sum::<i64>();
        let (done, total) = (positions(&generation.reached), positions(target));
        self.progress.note(Line::Replaying { done, total: total.max(done), events: generation.events });
    }

    fn took_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
