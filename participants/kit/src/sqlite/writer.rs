//! SQLite's one writer: calls take turns on one connection and share a commit.
//!
//! Each call runs in a savepoint of an open transaction. Whoever opens the transaction also starts its committer, which
//! lets everybody who is ready take a turn first: under load one `fsync` carries many calls, and an idle service commits
//! at once.
//!
//! Invariants: nobody is told "committed" before `COMMIT` returned; an open transaction has a committer.

use std::sync::Arc;

use tokio::{
    sync::{Mutex, OwnedMutexGuard, oneshot},
    task::yield_now,
};

use super::conn::Conn;

#[derive(Debug)]
pub(crate) struct Writer {
    slot: Arc<Mutex<Slot>>,
}

#[derive(Debug)]
struct Slot {
    conn: Conn,
    /// The members of the open transaction; `None` when no transaction is open.
    batch: Option<Vec<oneshot::Sender<Result<(), String>>>>,
}

impl Writer {
    pub(super) fn new(conn: Conn) -> Self {
        Self { slot: Arc::new(Mutex::new(Slot { conn, batch: None })) }
    }

    /// Waits for a turn and opens a savepoint.
    pub(super) async fn begin(&self) -> sqlx::Result<Turn> {
        let mut slot = self.slot.clone().lock_owned().await;
        if slot.batch.is_none() {
            slot.conn.run("BEGIN IMMEDIATE")?;
            slot.batch = Some(Vec::new());
            tokio::spawn(commit(self.slot.clone()));
        }
        slot.conn.run("SAVEPOINT call")?;
        Ok(Turn { slot: Some(slot) })
    }

    pub(super) async fn close(&self) {
        // Folds the write-ahead log back into the file, so that a copy of it is complete.
        if let Err(error) = self.slot.lock().await.conn.run("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::warn!(%error, "sqlite checkpoint failed at close");
        }
    }

    /// Waits until nobody has the connection.
    pub(super) async fn ping(&self) {
        drop(self.slot.lock().await);
    }
}

/// Commits the open transaction, after all those who could join it by now.
async fn commit(slot: Arc<Mutex<Slot>>) {
    // Goes on when no other task of the thread can: all calls that had come have had their turns, or wait for something.
    yield_now().await;
    let mut slot = slot.lock().await;
    let Some(members) = slot.batch.take() else { return };
    let result = slot.conn.run("COMMIT").map_err(|error| error.to_string());
    if let Err(error) = &result {
        tracing::error!(error, members = members.len(), "sqlite commit failed");
        // Fails when SQLite has already rolled back by itself, which is as good.
        let _ = slot.conn.run("ROLLBACK");
    }
    for member in members {
        // A member that no longer listens has left; its call is decided all the same.
        let _ = member.send(result.clone());
    }
}

/// One call's turn on the connection, inside its savepoint.
#[derive(Debug)]
pub(crate) struct Turn {
    slot: Option<OwnedMutexGuard<Slot>>,
}

impl Turn {
    pub(crate) fn conn(&self) -> &Conn {
        &self.slot.as_ref().expect("a turn has its slot until it ends").conn
    }

    /// Returns when the writes are durable. On an error they may or may not be.
    pub(crate) async fn commit(mut self) -> sqlx::Result<()> {
        self.conn().run("RELEASE call")?;
        let Some(mut slot) = self.slot.take() else { return Ok(()) };
        let (member, committed) = oneshot::channel();
        slot.batch.get_or_insert_default().push(member);
        drop(slot);
        match committed.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(sqlx::Error::Io(std::io::Error::other(error))),
            Err(_) => Err(sqlx::Error::WorkerCrashed),
        }
    }
}

/// What has not been committed is undone.
impl Drop for Turn {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        for sql in ["ROLLBACK TO call", "RELEASE call"] {
            if let Err(error) = slot.conn.run(sql) {
                tracing::error!(%error, "sqlite rollback failed");
            }
        }
    }
}
