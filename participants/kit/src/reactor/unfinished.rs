//! Sagas that this service owes something which could not be done yet.
//!
//! They are in a table, so that neither the bus has to hold their events back nor a restart forgets them, and are looked
//! at again after pauses that grow, until nothing is owed.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::Utc;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

use super::{Core, NotNow};
use crate::{Failure, backoff::stopped, db::Db, params, tx::Tx};

const TABLES: &[&str] = &["CREATE TABLE IF NOT EXISTS saga_unfinished (
         stream TEXT NOT NULL PRIMARY KEY, tries BIGINT NOT NULL, next_at_us BIGINT NOT NULL, reason TEXT NOT NULL
     )"];

const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The table is looked at so often at least: another process may have died over it.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const AT_ONCE_MAX: usize = 64;
/// More than are looked at at once: some of them are.
const DUE_MAX: i64 = 100;

/// Why a saga is written down.
#[derive(Debug)]
pub(super) enum Why {
    NotNow(NotNow),
    /// It is still being looked at: in case that this process does not come to an end with it.
    Slow,
}

#[derive(Debug)]
pub(super) struct Unfinished {
    db: Db,
    /// Those that this process wrote down or found, to spare asking for the others.
    listed: Mutex<HashSet<String>>,
    added: Notify,
}

impl Unfinished {
    pub(super) async fn open(db: Db) -> sqlx::Result<Self> {
        db.create(TABLES).await?;
        Ok(Self { db, listed: Mutex::default(), added: Notify::new() })
    }

    /// Writes a saga down, or puts it off again.
    pub(super) async fn put(&self, stream: &str, why: &Why) -> Result<(), Failure> {
        let name = stream.to_owned();
        let work = match why {
            Why::NotNow(NotNow { reason, after }) => {
                let (reason, after) = (reason.clone(), after.unwrap_or_default());
                self.db.transaction(move |tx| Box::pin(async move { put_off(tx, &name, &reason, after).await })).await
            }
            Why::Slow => self.db.transaction(move |tx| Box::pin(async move { note(tx, &name).await })).await,
        };
        work?;
        self.listed().insert(stream.to_owned());
        self.added.notify_one();
        Ok(())
    }

    /// Crosses a saga off, if it was listed. Otherwise it costs nothing; a failure is made good by the next look.
    pub(super) async fn finished(&self, stream: &str) {
        if !self.listed().contains(stream) {
            return;
        }
        let name = stream.to_owned();
        let sql = "DELETE FROM saga_unfinished WHERE stream = $1";
        let delete =
            self.db.transaction(move |tx| Box::pin(async move { Ok(tx.execute(sql, params![name]).await.map(drop)?) }));
        match delete.await {
            Ok(()) => drop(self.listed().remove(stream)),
            Err(error) => tracing::warn!(%error, stream, "a finished saga can't be crossed off now"),
        }
    }

    /// Those whose time has come.
    async fn due(&self) -> sqlx::Result<Vec<String>> {
        let sql = "SELECT stream FROM saga_unfinished WHERE next_at_us <= $1 ORDER BY next_at_us LIMIT $2";
        let rows = self.db.rows(sql, params![Utc::now().timestamp_micros(), DUE_MAX]).await?;
        let due = rows.iter().map(|row| row.get("stream")).collect::<sqlx::Result<Vec<String>>>()?;
        self.listed().extend(due.iter().cloned());
        Ok(due)
    }

    /// Until the next one's time comes.
    async fn pause(&self) -> sqlx::Result<Duration> {
        let row = self.db.row("SELECT MIN(next_at_us) AS next_at_us FROM saga_unfinished", params![]).await?;
        let next_at_us: Option<i64> = row.map_or(Ok(None), |row| row.get("next_at_us"))?;
        let until_us = next_at_us.map(|at| u64::try_from(at - Utc::now().timestamp_micros()).unwrap_or(0));
        Ok(until_us.map_or(LOOK_EVERY, Duration::from_micros).min(LOOK_EVERY))
    }

    fn listed(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// After the next pause, which is longer than the one before.
async fn put_off(tx: &mut Tx, stream: &str, reason: &str, after: Duration) -> Result<(), Failure> {
    let sql = "INSERT INTO saga_unfinished (stream, tries, next_at_us, reason) VALUES ($1, 1, 0, $2)
               ON CONFLICT (stream) DO UPDATE SET tries = saga_unfinished.tries + 1, reason = excluded.reason
               RETURNING tries";
    let row = tx.row(sql, params![stream, reason]).await?.ok_or(sqlx::Error::RowNotFound)?;
    let doublings = u32::try_from(row.get::<i64>("tries")? - 1).unwrap_or(0).min(16);
    let pause = PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX).max(after);
    let sql = "UPDATE saga_unfinished SET next_at_us = $2 WHERE stream = $1";
    Ok(tx.execute(sql, params![stream, from_now_us(pause)]).await.map(drop)?)
}

/// At some time, unless it is down for an earlier one.
async fn note(tx: &mut Tx, stream: &str) -> Result<(), Failure> {
    let sql = "INSERT INTO saga_unfinished (stream, tries, next_at_us, reason) VALUES ($1, 0, $2, 'it takes long')
               ON CONFLICT (stream) DO NOTHING";
    Ok(tx.execute(sql, params![stream, from_now_us(PAUSE_MAX)]).await.map(drop)?)
}

fn from_now_us(pause: Duration) -> i64 {
    Utc::now().timestamp_micros() + i64::try_from(pause.as_micros()).unwrap_or(i64::MAX / 2)
}

/// Looks at unfinished sagas again, until told to stop.
pub(super) async fn look_again(core: Arc<Core>, mut stop: watch::Receiver<bool>) {
    let mut looks: JoinSet<()> = JoinSet::new();
    let at = Arc::new(Mutex::new(HashSet::new()));
    loop {
        let pause = match start_looks(&core, &mut looks, &at).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(%error, "unfinished sagas can't be looked up now");
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = core.unfinished.added.notified() => {}
            Some(_) = looks.join_next(), if !looks.is_empty() => {}
            () = stopped(&mut stop) => return,
        }
    }
}

/// Starts to look at those whose time has come; gives the time until more is due.
async fn start_looks(
    core: &Arc<Core>,
    looks: &mut JoinSet<()>,
    at: &Arc<Mutex<HashSet<String>>>,
) -> sqlx::Result<Duration> {
    let being_looked_at = |stream: &str| at.lock().unwrap_or_else(PoisonError::into_inner).contains(stream);
    for stream in core.unfinished.due().await? {
        if looks.len() >= AT_ONCE_MAX {
            // The end of one of them wakes this up.
            return Ok(LOOK_EVERY);
        }
        if being_looked_at(&stream) {
            continue;
        }
        at.lock().unwrap_or_else(PoisonError::into_inner).insert(stream.clone());
        let (core, at) = (core.clone(), at.clone());
        looks.spawn(async move {
            core.look_and_note(&stream, &[], true).await;
            at.lock().unwrap_or_else(PoisonError::into_inner).remove(&stream);
        });
    }
    // Those being looked at are due until they are through, and then say when they are due again.
    Ok(core.unfinished.pause().await?.max(PAUSE_MIN))
}
