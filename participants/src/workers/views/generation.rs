//! The rows of one run through the log, and how far it has come.
//!
//! A page of events is one transaction: the rows, what the folds keep, and the place in the log. It is conditional on the
//! generation's revision, so a process that works on an old copy changes nothing. Within a shard the log has one order, so
//! the last position of each shard tells which events are in: one that comes again is left out.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::Value;
use skald_kit::{Db, Failure, Param, Tx, events::Event, params};

use super::{
    projection::{Changes, Projection},
    statements::Rows,
};

const DROPPED_AT_ONCE: i64 = 1000;

/// By shard, the position of the last event taken in.
pub(super) type Reached = BTreeMap<u16, i64>;

/// A generation as this process knows it. After an error it must be loaded again.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    pub(super) number: i64,
    revision: i64,
    /// Where to read on; None: from the beginning.
    pub(super) cursor: Option<String>,
    pub(super) reached: Reached,
    pub(super) events: i64,
    pub(super) last_event_at: Option<DateTime<Utc>>,
}

/// Why a page was not taken in.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProjectionError {
    #[error("another process has changed this generation")]
    Overtaken,
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<sqlx::Error> for ProjectionError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failure(error.into())
    }
}

impl Generation {
    /// The generation that is read, made if there is none yet.
    pub(super) async fn live(db: &Db, projection: &'static dyn Projection) -> Result<Self, Failure> {
        let name = projection.name();
        db.transaction(move |tx| {
            Box::pin(async move {
                let sql = "INSERT INTO view_projections (name, generation, generations, built_at_us)
                           VALUES ($1, 1, 1, $2) ON CONFLICT (name) DO NOTHING";
                if tx.execute(sql, params![name, Utc::now().timestamp_micros()]).await? == 1 {
                    insert(tx, name, 1).await?;
                }
                let sql = "SELECT g.generation, g.revision, g.log_cursor, g.reached, g.events, g.last_event_us
                           FROM view_projections p
                           JOIN view_generations g ON g.projection = p.name AND g.generation = p.generation
                           WHERE p.name = $1";
                let row = tx.row(sql, params![name]).await?.ok_or(sqlx::Error::RowNotFound)?;
                let reached: String = row.get("reached")?;
                let last: Option<i64> = row.get("last_event_us")?;
                Ok(Self {
                    number: row.get("generation")?,
                    revision: row.get("revision")?,
                    cursor: row.get("log_cursor")?,
                    reached: decoded(&reached)?,
                    events: row.get("events")?,
                    last_event_at: last.and_then(DateTime::from_timestamp_micros),
                })
            })
        })
        .await
    }

    /// A new one, empty, that nobody reads.
    pub(super) async fn begin(db: &Db, projection: &'static dyn Projection) -> Result<Self, Failure> {
        let name = projection.name();
        let number = db
            .transaction(move |tx| {
                Box::pin(async move {
                    let sql = "UPDATE view_projections SET generations = generations + 1 WHERE name = $1
                               RETURNING generations";
                    let row = tx.row(sql, params![name]).await?.ok_or(sqlx::Error::RowNotFound)?;
                    let number: i64 = row.get("generations")?;
                    insert(tx, name, number).await?;
                    Ok(number)
                })
            })
            .await?;
        let reached = Reached::new();
        Ok(Self { number, revision: 0, cursor: None, reached, events: 0, last_event_at: None })
    }

    /// Takes in a page, events that are in already left out, and moves to `cursor`. Gives the events that were new.
    ///
    /// # Errors
    /// Nothing was changed, or the answer to the commit was lost: load the generation again.
    pub(super) async fn take_in(
        &mut self,
        db: &Db,
        projection: &'static dyn Projection,
        events: Vec<Event>,
        cursor: Option<String>,
    ) -> Result<Arc<[Event]>, ProjectionError> {
        let mut next = self.clone();
        next.revision += 1;
        next.cursor = cursor;
        let mut new = Vec::with_capacity(events.len());
        for event in events {
            let reached = next.reached.entry(event.shard).or_default();
            if event.position > *reached {
                *reached = event.position;
                new.push(event);
            }
        }
        let events: Arc<[Event]> = new.into();
        next.events += i64::try_from(events.len()).unwrap_or(0);
        next.last_event_at = events.iter().map(|event| event.time).chain(next.last_event_at).max();
        if events.is_empty() && next.cursor == self.cursor {
            return Ok(events);
        }
        let (folded, after) = (events.clone(), next.clone());
        let name = projection.name();
        let moved = db
            .transaction(move |tx| {
                Box::pin(async move {
                    if !after.store(tx, name).await? {
                        return Ok(false);
                    }
                    let rows = Rows { tx, projection: name, generation: after.number };
                    project(rows, projection, &folded).await?;
                    Ok(true)
                })
            })
            .await?;
        if !moved {
            return Err(ProjectionError::Overtaken);
        }
        *self = next;
        Ok(events)
    }

    /// Moves the generation's row from the revision before; false when it is not there any more.
    async fn store(&self, tx: &mut Tx, projection: &str) -> sqlx::Result<bool> {
        let sql = "UPDATE view_generations
                   SET revision = $3, log_cursor = $4, reached = $5, events = $6, last_event_us = $7
                   WHERE projection = $1 AND generation = $2 AND revision = $3 - 1";
        let last = self.last_event_at.map(|at| at.timestamp_micros());
        let reached = encoded(&self.reached)?;
        let params = params![projection, self.number, self.revision, self.cursor.clone(), reached, self.events, last];
        Ok(tx.execute(sql, params).await? == 1)
    }

    /// Has it read from now on, instead of `before`.
    ///
    /// # Errors
    /// Another process had something else read meanwhile, or has dropped this generation.
    pub(super) async fn put_in_place_of(
        &self,
        db: &Db,
        projection: &'static str,
        before: i64,
    ) -> Result<(), ProjectionError> {
        let (number, revision) = (self.number, self.revision);
        let moved = db
            .transaction(move |tx| {
                Box::pin(async move {
                    // First the lock that whoever drops generations takes too, then a fresh look.
                    let sql = "UPDATE view_projections SET generation = $2, built_at_us = $3
                               WHERE name = $1 AND generation = $4";
                    let now = Utc::now().timestamp_micros();
                    let moved = tx.execute(sql, params![projection, number, now, before]).await? == 1;
                    let sql = "SELECT 1 AS one FROM view_generations
                               WHERE projection = $1 AND generation = $2 AND revision = $3";
                    let whole = tx.row(sql, params![projection, number, revision]).await?.is_some();
                    if moved && whole { Ok(()) } else { Err(sqlx::Error::RowNotFound.into()) }
                })
            })
            .await;
        match moved {
            Err(Failure::Database(sqlx::Error::RowNotFound)) => Err(ProjectionError::Overtaken),
            other => Ok(other?),
        }
    }

    /// Whether everything that `other` has taken in is in here too.
    pub(super) fn has_reached(&self, other: &Reached) -> bool {
        other.iter().all(|(shard, position)| self.reached.get(shard).is_some_and(|reached| reached >= position))
    }
}

/// Drops every generation that is not read. Whoever is at work on one is overtaken.
pub(super) async fn drop_unread(db: &Db, projection: &'static str) -> Result<(), Failure> {
    let unread = db
        .transaction(move |tx| {
            Box::pin(async move {
                let sql = "UPDATE view_projections SET generation = generation WHERE name = $1";
                tx.execute(sql, params![projection]).await?;
                let sql = "UPDATE view_generations SET revision = -1 WHERE projection = $1
                             AND generation <> (SELECT generation FROM view_projections WHERE name = $1)
                           RETURNING generation";
                let rows = tx.rows(sql, params![projection]).await?;
                Ok(rows.iter().map(|row| row.get::<i64>("generation")).collect::<sqlx::Result<Vec<_>>>()?)
            })
        })
        .await?;
    for generation in unread {
        // A few at a time, for others write here too.
        let rows = "DELETE FROM view_rows WHERE projection = $1 AND generation = $2 AND (key, item) IN (
                        SELECT key, item FROM view_rows WHERE projection = $1 AND generation = $2 LIMIT $3)";
        let streams = "DELETE FROM view_streams WHERE projection = $1 AND generation = $2 AND stream IN (
                           SELECT stream FROM view_streams WHERE projection = $1 AND generation = $2 LIMIT $3)";
        for sql in [rows, streams] {
            while delete(db, sql, params![projection, generation, DROPPED_AT_ONCE]).await? > 0 {}
        }
        let sql = "DELETE FROM view_generations WHERE projection = $1 AND generation = $2";
        delete(db, sql, params![projection, generation]).await?;
    }
    Ok(())
}

async fn delete(db: &Db, sql: &'static str, params: Vec<Param>) -> Result<u64, Failure> {
    db.transaction(move |tx| Box::pin(async move { Ok(tx.execute(sql, params).await?) })).await
}

async fn insert(tx: &mut Tx, projection: &str, number: i64) -> sqlx::Result<()> {
    let sql = "INSERT INTO view_generations (projection, generation, revision, reached, events)
               VALUES ($1, $2, 0, '{}', 0)";
    tx.execute(sql, params![projection, number]).await.map(drop)
}

async fn project(mut rows: Rows<'_>, projection: &dyn Projection, events: &[Event]) -> sqlx::Result<()> {
    let mut streams: Vec<String> = events.iter().map(|event| event.stream.clone()).collect();
    streams.sort_unstable();
    streams.dedup();
    let known = rows.states(streams).await?;
    let mut states: BTreeMap<String, Option<Value>> = BTreeMap::new();
    let mut changes = Changes::default();
    for event in events {
        let state = match states.remove(&event.stream) {
            Some(state) => state,
            None => known.get(&event.stream).map(|text| decoded(text)).transpose()?,
        };
        states.insert(event.stream.clone(), projection.fold(state, event, &mut changes));
    }
    let summaries = rows.summaries(changes.summaries()).await?;
    let summaries: BTreeMap<String, Value> =
        summaries.into_iter().map(|(key, text)| Ok((key, decoded(&text)?))).collect::<sqlx::Result<_>>()?;
    let changed = changes.into_rows(summaries);
    rows.write(changed.into_iter().map(|(key, value)| (key, value.map(|value| value.to_string()))).collect()).await?;
    rows.keep(states.into_iter().map(|(stream, state)| (stream, state.map(|state| state.to_string()))).collect()).await
}

fn decoded<T: serde::de::DeserializeOwned>(text: &str) -> sqlx::Result<T> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn encoded<T: serde::Serialize>(value: &T) -> sqlx::Result<String> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}
