//! The hot path: `BEGIN IMMEDIATE` and the fence, the rows, `COMMIT`.
//!
//! A row is a function call here, by rusqlite (which shares SQLite with sqlx) on a thread that may wait for the disk: with sqlx
//! it would be a trip to another thread, and all rows in one statement cost SQLite several times what writing them does. The
//! connection is not the one of the other jobs, but is used in the writer's turn as that is, so that they never wait for each
//! other's lock.
//!
//! What may go wrong, and what it means:
//!
//! | what happened | means |
//! | --- | --- |
//! | the shard is no longer held under the batch's epoch, or the batch names another shard than 0 | `Fenced` |
//! | a saga or stream is not at the version that the batch continues | `Refused` |
//! | `SQLITE_CONSTRAINT`, `TOOBIG`, `MISMATCH`: a key or version that exists, bad data | `Refused` |
//! | any other error before `COMMIT` (`BUSY`, `FULL`, `IOERR`, `READONLY`, ..) | `NotApplied` |
//! | `BUSY` or `FULL` by `COMMIT`: the commit record was not written | `NotApplied` |
//! | any other error by `COMMIT`: the record may lie in the log, and a crash now could make it count | `InDoubt` |
//!
//! After each of them the transaction is rolled back before the next job, or else the connection closed.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use rusqlite::{Connection, Error, OpenFlags, ffi};
use skald_core::{
    ids::Shard,
    shard::batch::{Batch, CommitError},
};
use tokio::task::spawn_blocking;

use super::{
    super::wellformed,
    CHECKPOINT_PAGES, LOG_BYTES_KEPT, SHARD, rows,
    writer::{Abandoned, Session, Writer},
};

pub async fn commit(writer: &Writer, batch: &Arc<Batch>) -> Result<(), CommitError> {
    if batch.transitions.is_empty() && batch.appends.is_empty() {
        return Ok(());
    }
    wellformed::check(batch)?;
    let strangers: Vec<Shard> = batch.fences.iter().map(|fence| fence.shard).filter(|shard| *shard != SHARD).collect();
    if !strangers.is_empty() {
        return Err(CommitError::Fenced(strangers));
    }
    let batch = Arc::clone(batch);
    writer.run(|session| session.write(batch).boxed()).await.unwrap_or_else(|abandoned| match abandoned {
        Abandoned::BeforeStart => Err(CommitError::NotApplied("the store is shutting down".to_owned())),
        Abandoned::Meanwhile => Err(CommitError::InDoubt("the writer died".to_owned())),
    })
}

impl Session {
    async fn write(&mut self, batch: Arc<Batch>) -> Result<(), CommitError> {
        let closed = self.committer.closed();
        let mut committer = std::mem::replace(&mut self.committer, closed);
        let written = spawn_blocking(move || {
            let result = committer.commit(&batch);
            (committer, result)
        });
        let result = match written.await {
            Ok((committer, result)) => {
                self.committer = committer;
                result
            }
            Err(died) => Err(CommitError::InDoubt(died.to_string())),
        };
        self.suspect = matches!(result, Err(CommitError::NotApplied(_) | CommitError::InDoubt(_)));
        result
    }
}

/// The connection for commits. Its functions wait for the disk.
#[derive(Debug)]
pub struct Committer {
    file: PathBuf,
    busy_timeout: Duration,
    connection: Option<Connection>,
}

impl Committer {
    /// Opened by the first commit, when the file is there.
    pub const fn new(file: PathBuf, busy_timeout: Duration) -> Self {
        Self { file, busy_timeout, connection: None }
    }

    fn closed(&self) -> Self {
        Self::new(self.file.clone(), self.busy_timeout)
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let connection = self.connection().map_err(|error| CommitError::NotApplied(error.to_string()))?;
        let result = write(connection, batch);
        if result.is_err() {
            self.roll_back();
        }
        result
    }

    /// The connection; a new one if the last was given up.
    pub fn connection(&mut self) -> Result<&Connection, Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open()?,
        };
        Ok(self.connection.insert(connection))
    }

    fn open(&self) -> Result<Connection, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.file, flags)?;
        connection.busy_timeout(self.busy_timeout)?;
        for (name, value) in
            [("synchronous", "FULL"), ("wal_autocheckpoint", CHECKPOINT_PAGES), ("journal_size_limit", LOG_BYTES_KEPT)]
        {
            connection.pragma_update(None, name, value)?;
        }
        Ok(connection)
    }

    /// SQLite has ended the transaction by itself after some errors; a connection that cannot be brought back to rest is
    /// closed, which undoes what it had not committed.
    fn roll_back(&mut self) {
        self.connection
            .take_if(|connection| !connection.is_autocommit() && connection.execute_batch("ROLLBACK").is_err());
    }
}

fn write(connection: &Connection, batch: &Batch) -> Result<(), CommitError> {
    let execute = |sql| connection.prepare_cached(sql)?.execute([]);
    execute("BEGIN IMMEDIATE").map_err(not_written)?;
    rows::write(connection, batch)?;
    execute("COMMIT").map_err(maybe_written)?;
    Ok(())
}

/// What an error before `COMMIT` means.
pub fn not_written(error: Error) -> CommitError {
    match primary_code(&error) {
        Some(ffi::SQLITE_CONSTRAINT | ffi::SQLITE_TOOBIG | ffi::SQLITE_MISMATCH) => {
            CommitError::Refused(error.to_string())
        }
        _ => CommitError::NotApplied(error.to_string()),
    }
}

/// What an error by `COMMIT` means.
fn maybe_written(error: Error) -> CommitError {
    match primary_code(&error) {
        Some(ffi::SQLITE_BUSY | ffi::SQLITE_FULL) => CommitError::NotApplied(error.to_string()),
        _ => CommitError::InDoubt(error.to_string()),
    }
}

/// Without the bits that extend it.
fn primary_code(error: &Error) -> Option<i32> {
    Some(error.sqlite_error()?.extended_code & 0xff)
}
