//! SQLite's one writer: calls take turns on one connection and share a commit.
//!
//! Each call runs in a savepoint of an open transaction. Whoever finishes while others wait leaves
//! the transaction open for them; whoever finishes last commits it for all. So under load one
//! `fsync` carries many calls, and an idle service commits at once.
//!
//! Invariants: nobody is told "committed" before `COMMIT` returned; a batch with members waiting for
//! it always has a later turn that will commit it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::{Connection, SqliteConnection};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

/// Bounds how long the first member of a batch waits for the last.
const BATCH_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Writer {
    slot: Arc<Mutex<Slot>>,
    /// Calls that want a turn and will get one.
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct Slot {
    conn: SqliteConnection,
    /// The members of the open transaction; `None` when no transaction is open.
    batch: Option<Vec<oneshot::Sender<Result<(), String>>>>,
}

impl Writer {
    pub(crate) fn new(conn: SqliteConnection) -> Arc<Self> {
        Arc::new(Self { slot: Arc::new(Mutex::new(Slot { conn, batch: None })), waiting: AtomicUsize::new(0) })
    }

    /// Waits for a turn and opens a savepoint.
    pub(crate) async fn begin(self: &Arc<Self>) -> sqlx::Result<Turn> {
        let mut slot = Queued::join(self).turn().await;
        if slot.batch.is_none() {
            run(&mut slot.conn, "BEGIN IMMEDIATE").await?;
            slot.batch = Some(Vec::new());
        }
        if let Err(error) = run(&mut slot.conn, "SAVEPOINT call").await {
            self.finish(slot).await;
            return Err(error);
        }
        Ok(Turn { writer: self.clone(), slot: Some(slot) })
    }

    /// Ends a turn: commits the batch, unless somebody is about to add to it.
    async fn finish(&self, mut slot: OwnedMutexGuard<Slot>) {
        let size = slot.batch.as_ref().map_or(0, Vec::len);
        if self.waiting.load(Ordering::SeqCst) > 0 && size < BATCH_MAX {
            return;
        }
        let Some(members) = slot.batch.take() else { return };
        let result = run(&mut slot.conn, "COMMIT").await.map_err(|error| error.to_string());
        if let Err(error) = &result {
            tracing::error!(error, members = members.len(), "sqlite commit failed");
            // Fails when SQLite has already rolled back by itself, which is as good.
            let _ = run(&mut slot.conn, "ROLLBACK").await;
        }
        for member in members {
            // A member that no longer listens has left; its call is decided all the same.
            let _ = member.send(result.clone());
        }
    }

    pub(crate) async fn close(&self) {
        let mut slot = self.slot.lock().await;
        // Closing folds the write-ahead log back into the file, so that a copy of it is complete.
        if let Err(error) = run(&mut slot.conn, "PRAGMA wal_checkpoint(TRUNCATE)").await {
            tracing::warn!(%error, "sqlite checkpoint failed at close");
        }
    }

    pub(crate) async fn ping(&self) -> sqlx::Result<()> {
        self.slot.lock().await.conn.ping().await
    }
}

/// A place in the queue. Given up without a turn, it makes sure that somebody commits the batch
/// that was left open for it.
struct Queued {
    writer: Arc<Writer>,
    had_turn: bool,
}

impl Queued {
    fn join(writer: &Arc<Writer>) -> Self {
        writer.waiting.fetch_add(1, Ordering::SeqCst);
        Self { writer: writer.clone(), had_turn: false }
    }

    async fn turn(mut self) -> OwnedMutexGuard<Slot> {
        let slot = self.writer.slot.clone().lock_owned().await;
        self.had_turn = true;
        slot
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.writer.waiting.fetch_sub(1, Ordering::SeqCst);
        if !self.had_turn {
            let writer = self.writer.clone();
            spawn(async move {
                let slot = writer.slot.clone().lock_owned().await;
                writer.finish(slot).await;
            });
        }
    }
}

/// One call's turn on the connection, inside its savepoint.
#[derive(Debug)]
pub(crate) struct Turn {
    writer: Arc<Writer>,
    slot: Option<OwnedMutexGuard<Slot>>,
}

impl Turn {
    pub(crate) fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.slot.as_mut().expect("a turn has its slot until it ends").conn
    }

    /// Returns when the writes are durable. On an error they may or may not be.
    pub(crate) async fn commit(mut self) -> sqlx::Result<()> {
        run(self.conn(), "RELEASE call").await?;
        let Some(mut slot) = self.slot.take() else { return Ok(()) };
        let (member, committed) = oneshot::channel();
        slot.batch.get_or_insert_default().push(member);
        self.writer.finish(slot).await;
        match committed.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(sqlx::Error::Io(std::io::Error::other(error))),
            Err(_) => Err(sqlx::Error::WorkerCrashed),
        }
    }

    pub(crate) async fn rollback(mut self) {
        if let Some(slot) = self.slot.take() {
            undo(&self.writer, slot).await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            let writer = self.writer.clone();
            spawn(async move { undo(&writer, slot).await });
        }
    }
}

async fn undo(writer: &Writer, mut slot: OwnedMutexGuard<Slot>) {
    for sql in ["ROLLBACK TO call", "RELEASE call"] {
        if let Err(error) = run(&mut slot.conn, sql).await {
            tracing::error!(%error, "sqlite rollback failed");
        }
    }
    writer.finish(slot).await;
}

async fn run(conn: &mut SqliteConnection, sql: &'static str) -> sqlx::Result<()> {
    sqlx::query(sql).execute(conn).await.map(drop)
}

/// Without a runtime the process is ending, and SQLite rolls back what is open.
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(task);
    }
}

/// How long another process may hold the file before a turn fails.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
