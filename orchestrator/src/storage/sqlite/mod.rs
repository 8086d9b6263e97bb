//! The embedded store: one SQLite file, one shard.
//!
//! Every write goes through the task that owns the writing connections ([`writer`]), in the order of arrival; reads
//! go through a pool of read-only connections, which WAL lets see the last commit while the next is being written.
//! Durability is WAL with `synchronous=FULL`: a commit is on the disk when it is reported.
//!
//! A second process on the same file finds the shard's lease taken, as on PostgreSQL; the file's own lock keeps the two
//! from writing at once.

mod access;
mod audit;
mod commit;
mod event_stats;
mod groups;
mod leases;
mod lifecycle;
mod log;
mod look_up;
mod readers;
mod reads;
mod registry;
mod replicas;
mod retention;
mod rows;
mod subjects;
#[cfg(test)]
mod tests;
mod webhooks;
mod writer;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use skald_core::{
    event::Recorded,
    ids::{SagaId, Shard},
    shard::{
        batch::{Batch, CommitError, Fence, StreamAsk, StreamHead, StreamLook},
        leases::LeaseView,
    },
    state::SagaRow,
    time::{Millis, Timestamp},
};
use sqlx::{
    ConnectOptions as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub use self::audit::SqliteAudit;
use self::{commit::Committer, readers::Readers, writer::Writer};
use super::{
    EventLog, KeyedSaga, OwnedShard, Owner, Pause, PauseKind, Registration, ReplicaRow, SagaFilter, ShardRow, Store,
    StoreError, StoreOptions, StoredDefinition, Tally, Unfinished,
    log::{EventStats, LogEvent, LogPage, LogQuery, facts::Remembered, stats, tail::Tail},
};

/// The only shard.
const SHARD: Shard = Shard(0);

/// Pages in the write-ahead log before they are carried over to the file: a checkpoint costs syncs of its own, so it
/// should be rare, and the log should still fit the page cache.
const CHECKPOINT_PAGES: &str = "4000";

/// What the log's file is cut back to after a checkpoint.
const LOG_BYTES_KEPT: &str = "67108864";

#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    readers: SqlitePool,
    /// For whoever follows the log.
    followers: Readers,
    remembered: Remembered,
    tail: Tail,
}

impl SqliteStore {
    /// Opens the file that `url` (`sqlite:PATH`) names, and makes it if need be.
    pub async fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let (file, busy_timeout) = (file_of(url)?, busy_timeout(options.lease));
        let base = SqliteConnectOptions::new()
            .filename(file)
            .foreign_keys(false)
            .busy_timeout(busy_timeout)
            .disable_statement_logging();
        let writer = Writer::spawn(writing(&base), Committer::new(file.into(), busy_timeout)).await?;
        let reading = base.read_only(true);
        let followers = Readers::new(reading.clone(), options.readers.max(1));
        let readers = SqlitePoolOptions::new().max_connections(options.readers.max(1)).connect_lazy_with(reading);
        Ok(Self { writer, readers, followers, remembered: Remembered::default(), tail: Tail::default() })
    }
}

/// The file that `url` names.
fn file_of(url: &str) -> Result<&str, StoreError> {
    let path = url.strip_prefix("sqlite:").ok_or(StoreError::Url)?;
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.starts_with(':') {
        return Err(StoreError::Open("sagas must outlive the process: name a file, as in `sqlite:PATH`".to_owned()));
    }
    Ok(path)
}

fn writing(base: &SqliteConnectOptions) -> SqliteConnectOptions {
    base.clone()
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("journal_size_limit", LOG_BYTES_KEPT)
        .pragma("temp_store", "memory")
}

/// How long to wait for another process's write; below half a lease, as everything that a lease depends on.
fn busy_timeout(lease: Millis) -> Duration {
    Duration::from_millis((lease.0 * 3 / 10).max(50))
}

#[expect(clippy::disallowed_methods, reason = "the embedded database's clock is this machine's")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// What a failed query means outside of commits.
fn failed(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(refusal) if refusal.message().starts_with("no such table") => {
            StoreError::NotMigrated(refusal.message().to_owned())
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Unreadable(error.to_string()),
        _ => StoreError::Unavailable(error),
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        lifecycle::migrate(&self.writer).await
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        lifecycle::check_schema(&self.readers).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        lifecycle::ping(&self.writer).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(now())
    }

    async fn secret(&self) -> Result<[u8; 32], StoreError> {
        lifecycle::secret(&self.readers).await
    }

    async fn shards(&self) -> Result<Vec<ShardRow>, StoreError> {
        leases::shards(&self.readers).await
    }

    async fn take_shards(
        &self,
        owner: &Owner,
        only: Option<&[Shard]>,
        lease: Millis,
    ) -> Result<Vec<OwnedShard>, StoreError> {
        if only.is_some_and(|only| !only.contains(&SHARD)) {
            return Ok(Vec::new());
        }
        let taken = leases::take(&self.writer, owner, lease).await?;
        self.tail.taken(&taken);
        Ok(taken)
    }

    async fn renew(&self, owner: &Owner, fences: &[Fence], lease: Millis) -> Result<Vec<Shard>, StoreError> {
        match fences.iter().find(|fence| fence.shard == SHARD) {
            Some(fence) => leases::renew(&self.writer, owner, fence.epoch, lease).await,
            None => Ok(Vec::new()),
        }
    }

    async fn release_shards(&self, owner: &Owner, fences: &[Fence]) -> Result<(), StoreError> {
        match fences.iter().find(|fence| fence.shard == SHARD) {
            Some(fence) => leases::release_shard(&self.writer, owner, fence.epoch).await,
            None => Ok(()),
        }
    }

    async fn heartbeat(&self, owner: &Owner, lease: Millis) -> Result<(), StoreError> {
        replicas::heartbeat(&self.writer, owner, lease).await
    }

    async fn leave(&self, owner: &Owner) -> Result<(), StoreError> {
        replicas::leave(&self.writer, &owner.id).await
    }

    async fn lease_view(&self, owner: &Owner) -> Result<LeaseView, StoreError> {
        leases::view(&self.readers, owner).await
    }

    async fn replicas(&self) -> Result<Vec<ReplicaRow>, StoreError> {
        replicas::replicas(&self.readers).await
    }

    async fn release(&self, owner: &Owner) -> Result<(), StoreError> {
        leases::release(&self.writer, owner).await
    }

    async fn bury(&self, id: &str) -> Result<(), StoreError> {
        leases::end(&self.writer, id).await?;
        replicas::leave(&self.writer, id).await
    }

    async fn commit(&self, batch: &Arc<Batch>) -> Result<(), CommitError> {
        self.tail.writing(batch);
        let result = commit::commit(&self.writer, batch).await;
        self.tail.written(batch, &result);
        result
    }

    async fn events(&self, saga: SagaId, after: u64, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        reads::events(&self.readers, saga, after, limit).await
    }

    async fn streams(&self, sagas: &[SagaId]) -> Result<Vec<Vec<Recorded>>, StoreError> {
        reads::streams(&self.readers, sagas).await
    }

    async fn look_up(&self, asks: &[StreamAsk]) -> Result<Vec<StreamLook>, StoreError> {
        look_up::look_up(&self.readers, asks).await
    }

    async fn row(&self, saga: SagaId) -> Result<Option<SagaRow>, StoreError> {
        reads::row(&self.readers, saga).await
    }

    async fn list(&self, filter: &SagaFilter) -> Result<Vec<SagaRow>, StoreError> {
        reads::list(&self.readers, filter).await
    }

    async fn unfinished(&self, shard: Shard, after: Option<SagaId>, limit: u32) -> Result<Vec<Unfinished>, StoreError> {
        reads::unfinished(&self.readers, shard, after, limit).await
    }

    async fn tally(&self, now: Timestamp) -> Result<Vec<Tally>, StoreError> {
        reads::tally(&self.readers, now).await
    }

    async fn keyed_saga(&self, definition: &str, key: &str) -> Result<Option<KeyedSaga>, StoreError> {
        reads::keyed_saga(&self.readers, definition, key).await
    }

    async fn register(&self, definition: &StoredDefinition) -> Result<Registration, StoreError> {
        registry::register(&self.writer, definition).await
    }

    async fn definitions(&self) -> Result<Vec<StoredDefinition>, StoreError> {
        registry::definitions(&self.readers).await
    }

    async fn pauses(&self) -> Result<Vec<Pause>, StoreError> {
        registry::pauses(&self.readers).await
    }

    async fn pause(&self, pause: &Pause) -> Result<(), StoreError> {
        registry::pause(&self.writer, pause).await
    }

    async fn unpause(&self, kind: PauseKind, name: &str) -> Result<bool, StoreError> {
        registry::unpause(&self.writer, kind, name).await
    }
}

#[async_trait]
impl EventLog for SqliteStore {
    async fn heads(&self) -> Result<BTreeMap<Shard, i64>, StoreError> {
        log::heads(&self.followers).await
    }

    async fn log(&self, query: &LogQuery) -> Result<LogPage, StoreError> {
        log::log(self, query).await
    }

    fn tail(&self) -> &Tail {
        &self.tail
    }

    async fn stream_log(
        &self,
        stream: SagaId,
        after: u64,
        until: Option<u64>,
        limit: u32,
    ) -> Result<Vec<LogEvent>, StoreError> {
        log::stream_log(&self.followers, &self.remembered, stream, (after, until), limit).await
    }

    async fn stream_head(&self, name: &str) -> Result<Option<StreamHead>, StoreError> {
        look_up::stream_head(&self.readers, name).await
    }

    async fn events_at(&self, shard: Shard, positions: &[i64]) -> Result<Vec<LogEvent>, StoreError> {
        if shard != SHARD {
            return Ok(Vec::new());
        }
        log::events_at(&self.followers, &self.remembered, positions).await
    }

    async fn event_stats(&self) -> Result<EventStats, StoreError> {
        stats::stats(self).await
    }

    #[cfg(test)]
    async fn relayed(&self, bus: &str) -> Result<BTreeMap<Shard, i64>, StoreError> {
        event_stats::relayed(&self.readers, bus).await
    }

    async fn note_relayed(&self, bus: &str, positions: &BTreeMap<Shard, i64>) -> Result<(), StoreError> {
        event_stats::note_relayed(&self.writer, bus, positions).await
    }
}
