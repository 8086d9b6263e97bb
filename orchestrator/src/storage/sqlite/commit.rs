//! The hot path: `BEGIN IMMEDIATE` and the fence, the rows, `COMMIT`.
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

use futures_util::{FutureExt as _, TryStreamExt as _};
use skald_core::{
    ids::Shard,
    shard::batch::{Batch, CommitError},
};
use sqlx::{Either, Executor as _, SqliteConnection, sqlite::SqliteArguments};

use super::{
    super::wellformed,
    SHARD,
    rows::{self, WRITE, Writes},
    writer::{Abandoned, Session, Writer},
};

/// Result codes, without the bits that extend them.
mod code {
    pub const BUSY: i32 = 5;
    pub const FULL: i32 = 13;
    pub const TOOBIG: i32 = 18;
    pub const CONSTRAINT: i32 = 19;
    pub const MISMATCH: i32 = 20;
}

pub async fn commit(writer: &Writer, batch: &Batch) -> Result<(), CommitError> {
    if batch.transitions.is_empty() && batch.appends.is_empty() {
        return Ok(());
    }
    wellformed::check(batch)?;
    let strangers: Vec<Shard> = batch.fences.iter().map(|fence| fence.shard).filter(|shard| *shard != SHARD).collect();
    if !strangers.is_empty() {
        return Err(CommitError::Fenced(strangers));
    }
    let writes = rows::writes(batch).map_err(|error| CommitError::Refused(error.to_string()))?;
    writer.run(|session| session.write(writes).boxed()).await.unwrap_or_else(|abandoned| match abandoned {
        Abandoned::BeforeStart => Err(CommitError::NotApplied("the store is shutting down".to_owned())),
        Abandoned::Meanwhile => Err(CommitError::InDoubt("the writer died".to_owned())),
    })
}

impl Session {
    async fn write(&mut self, writes: Writes) -> Result<(), CommitError> {
        let result = self.try_write(writes).await;
        if result.is_err() {
            self.roll_back().await;
        }
        self.suspect = matches!(result, Err(CommitError::NotApplied(_) | CommitError::InDoubt(_)));
        result
    }

    async fn try_write(&mut self, writes: Writes) -> Result<(), CommitError> {
        let connection = self.connection().await.map_err(|error| CommitError::NotApplied(error.to_string()))?;
        let changed = write(connection, writes.arguments).await?;
        if changed != writes.rows {
            return Err(CommitError::Refused(format!("{changed:?} of {:?} rows were as expected", writes.rows)));
        }
        sqlx::query("COMMIT").execute(connection).await.map_err(|error| maybe_written(&error))?;
        Ok(())
    }
}

/// How many rows each statement after the fence changed.
async fn write(connection: &mut SqliteConnection, arguments: SqliteArguments) -> Result<Vec<usize>, CommitError> {
    let mut results = connection.fetch_many(sqlx::query_with(WRITE, arguments));
    let (mut begun, mut held, mut fenced) = (false, false, false);
    let mut changed = Vec::new();
    while let Some(result) = results.try_next().await.map_err(|error| not_written(&error))? {
        match result {
            Either::Right(_) => held = true,
            Either::Left(_) if !begun => begun = true,
            Either::Left(_) if !held => return Err(CommitError::Fenced(vec![SHARD])),
            Either::Left(_) if !fenced => fenced = true,
            Either::Left(done) => changed.push(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX)),
        }
    }
    Ok(changed)
}

/// What an error before `COMMIT` means.
fn not_written(error: &sqlx::Error) -> CommitError {
    match primary_code(error) {
        Some(code::CONSTRAINT | code::TOOBIG | code::MISMATCH) => CommitError::Refused(error.to_string()),
        _ => CommitError::NotApplied(error.to_string()),
    }
}

/// What an error by `COMMIT` means.
fn maybe_written(error: &sqlx::Error) -> CommitError {
    match primary_code(error) {
        Some(code::BUSY | code::FULL) => CommitError::NotApplied(error.to_string()),
        _ => CommitError::InDoubt(error.to_string()),
    }
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let sqlx::Error::Database(error) = error else { return None };
    error.code()?.parse::<i32>().ok().map(|code| code & 0xff)
}
