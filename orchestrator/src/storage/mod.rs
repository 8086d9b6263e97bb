//! The durable side of the engine: a sharded, append-only log with one writer per shard, behind one trait.
//!
//! Two implementations with the same semantics, held to one conformance suite: [`sqlite`] (embedded, one shard) and
//! [`postgres`] (production). Only this folder names sqlx.

pub mod access;
pub mod audit;
pub mod groups;
mod listing;
pub mod log;
mod look_up;
#[cfg(test)]
pub mod memory;
mod postgres;
mod records;
pub mod retention;
mod runs;
mod schema;
pub mod scratch;
mod sqlite;
pub mod subjects;
pub mod webhooks;
mod wellformed;

#[cfg(test)]
pub mod conformance;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use skald_core::{
    event::{Mode, Recorded},
    ids::{Epoch, SagaId, Shard},
    shard::{
        batch::{Batch, CommitError, Fence, StreamAsk, StreamLook},
        leases::{LeaseReport, LeaseRequest, LeaseView, Presence, TakenShard},
    },
    state::{SagaRow, Status},
    time::{Millis, Timestamp},
};

use self::{groups::ConsumerGroups, log::EventLog, retention::Retention, webhooks::Webhooks};
pub use self::{postgres::PostgresStore, sqlite::SqliteStore};

/// Opens the store that `url` names: `sqlite:PATH` or `postgres://..`.
///
/// # Errors
///
/// When the scheme is neither, or the database cannot be reached or opened.
pub async fn open(url: &str, options: &StoreOptions) -> Result<Arc<dyn Storage>, StoreError> {
    match url.split_once(':') {
        Some(("sqlite", _)) => Ok(Arc::new(SqliteStore::open(url, options).await?)),
        Some(("postgres" | "postgresql", _)) => Ok(Arc::new(PostgresStore::open(url, options).await?)),
        _ => Err(StoreError::Url),
    }
}

#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Connections for reading, beside the writer's.
    pub readers: u32,
    /// Shards to create when the database has none yet. SQLite always has one.
    pub shards: u16,
    /// How long a lease lasts; the writer's session timeouts stay below half of it.
    pub lease: Millis,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database URL must begin with `sqlite:` or `postgres://`")]
    Url,
    #[error("the database cannot be opened: {0}")]
    Open(String),
    #[error("the database is not migrated: run `skald migrate` ({0})")]
    NotMigrated(String),
    #[error("the database was migrated by a newer Skald: {0}")]
    TooNew(String),
    #[error("the database does not answer: {0}")]
    Unavailable(#[source] sqlx::Error),
    #[error("the database holds what this Skald cannot read: {0}")]
    Unreadable(String),
}

/// Who owns shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Unique per process start.
    pub id: String,
    /// Where other replicas reach it.
    pub url: Option<String>,
}

/// A shard this process owns from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnedShard {
    pub shard: Shard,
    pub epoch: Epoch,
    pub head: i64,
    /// Whether it was taken from another owner that had not given it up.
    pub died: bool,
}

/// A process that shares the shards, or lately did. Times are by the database's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaRow {
    pub id: String,
    pub url: Option<String>,
    pub version: String,
    pub started_at: Timestamp,
    /// Until when its last heartbeat is good.
    pub seen_until: Timestamp,
    pub alive: bool,
}

/// The version that heartbeats tell: this Skald's.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long the row of a replica that died is kept for people to see.
const DEAD_REPLICAS_KEPT: Millis = Millis(24 * 3600 * 1000);

/// A shard as it stands, for whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRow {
    pub shard: Shard,
    pub epoch: Epoch,
    pub owner: Option<String>,
    pub owner_url: Option<String>,
    /// By the database's clock.
    pub lease_until: Timestamp,
    pub head: i64,
}

/// An unfinished saga, as far as recovery needs to know before it loads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    pub id: SagaId,
    pub mode: Mode,
    pub status: Status,
    pub wake_at: Option<Timestamp>,
}

/// How many unfinished sagas there are of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    pub definition: String,
    pub mode: Mode,
    pub status: Status,
    pub sagas: u64,
    /// Of those, the ones whose deadline is over.
    pub overdue: u64,
}

/// The saga that a start key made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedSaga {
    pub saga: SagaId,
    pub fingerprint: [u8; 32],
}

/// Which sagas to list, newest first. Empty lists and None mean "any".
#[derive(Clone, Debug, Default)]
pub struct SagaFilter {
    pub statuses: Vec<Status>,
    pub definition: Option<String>,
    pub mode: Option<Mode>,
    /// Matches unfinished sagas only.
    pub state: Option<String>,
    pub correlation_id: Option<String>,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    /// Only sagas with a smaller id: the last one of the page before.
    pub before: Option<SagaId>,
    pub limit: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDefinition {
    pub name: String,
    pub version: u32,
    pub hash: String,
    /// JSON text.
    pub document: String,
    pub registered_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    Created,
    /// The same content was there already.
    Unchanged,
    /// Other content is registered under this name and version; nothing was written.
    Conflict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PauseKind {
    /// No saga of this definition starts.
    Definition,
    /// Calls to this participant wait.
    Participant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    pub kind: PauseKind,
    pub name: String,
    pub actor: String,
    pub reason: String,
    pub since: Timestamp,
}

/// All that a database keeps: sagas, the log that they and other streams share, how far its consumers have come, and whom to
/// tell.
pub trait Storage: Store + EventLog + ConsumerGroups + Retention + Webhooks {}

impl<S: Store + EventLog + ConsumerGroups + Retention + Webhooks> Storage for S {}

/// Where sagas are kept. Every method is safe to drop at any await except [`Store::commit`], [`Store::take_shards`],
/// [`Store::keep_leases`] and [`Store::register`], which the engine's own tasks run to their end.
#[async_trait]
pub trait Store: access::AccessRecords + subjects::Subjects + Send + Sync + fmt::Debug + 'static {
    /// Applies what migrations are missing; safe to run twice and from several processes at once.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// Whether the schema is exactly the one this Skald knows.
    async fn check_schema(&self) -> Result<(), StoreError>;

    /// Whether the database answers and takes writes.
    async fn ping(&self) -> Result<(), StoreError>;

    /// The database's clock.
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// 32 random bytes made with the database: they sign callback tokens and cursors.
    async fn secret(&self) -> Result<[u8; 32], StoreError>;

    async fn shards(&self) -> Result<Vec<ShardRow>, StoreError>;

    /// Takes shards that are free, whose lease is over, or that `owner` holds itself, each with its epoch raised by
    /// one. `only` restricts which; None takes all it can. Shards that another owner's lease protects are left alone.
    ///
    /// Waits for, and thereby learns the fate of, any commit that a former connection of the same owner left behind.
    async fn take_shards(
        &self,
        owner: &Owner,
        only: Option<&[Shard]>,
        lease: Millis,
    ) -> Result<Vec<OwnedShard>, StoreError>;

    /// Extends the lease of these shards where the epoch still holds; answers which are still owned.
    async fn renew(&self, owner: &Owner, fences: &[Fence], lease: Millis) -> Result<Vec<Shard>, StoreError>;

    /// Gives these shards back where the epoch still holds, so that a successor need not wait for the lease.
    async fn release_shards(&self, owner: &Owner, fences: &[Fence]) -> Result<(), StoreError>;

    /// Gives every shard of this owner back.
    async fn release(&self, owner: &Owner) -> Result<(), StoreError>;

    /// Counts this owner among the live replicas for the length of a lease. Removes those that died long ago.
    async fn heartbeat(&self, owner: &Owner, lease: Millis) -> Result<(), StoreError>;

    /// Counts this owner among the replicas no longer. Its shards stay its own.
    async fn leave(&self, owner: &Owner) -> Result<(), StoreError>;

    /// This replica is known to have died: its leases end now, and it counts among the replicas no longer. Whoever takes its
    /// shards learns that their owner died, as when the leases had run out.
    async fn bury(&self, id: &str) -> Result<(), StoreError>;

    /// Who lives, what is free, and what is in this owner's name.
    async fn lease_view(&self, owner: &Owner) -> Result<LeaseView, StoreError>;

    /// Replicas that live or died lately; those that started first come first.
    async fn replicas(&self) -> Result<Vec<ReplicaRow>, StoreError>;

    /// Does what the lease machine asks for, one statement after another, each its own transaction. After an error any
    /// first part of it may have been done.
    async fn keep_leases(
        &self,
        owner: &Owner,
        request: &LeaseRequest,
        lease: Millis,
    ) -> Result<LeaseReport, StoreError> {
        match request.presence {
            Presence::Unchanged => {}
            Presence::Heartbeat => self.heartbeat(owner, lease).await?,
            Presence::Leaving => self.leave(owner).await?,
            Presence::Gone => {
                self.leave(owner).await?;
                self.release(owner).await?;
            }
        }
        let mut report = LeaseReport::default();
        if !request.renew.is_empty() {
            report.renewed = self.renew(owner, &request.renew, lease).await?;
        }
        if !request.release.is_empty() {
            self.release_shards(owner, &request.release).await?;
        }
        if !request.take.is_empty() {
            let taken = self.take_shards(owner, Some(&request.take), lease).await?;
            let taken =
                taken.into_iter().map(|OwnedShard { shard, epoch, died, .. }| TakenShard { shard, epoch, died });
            report.taken = taken.collect();
        }
        report.view = self.lease_view(owner).await?;
        Ok(report)
    }

    /// Writes a batch, fenced by its epochs: all of it durably, or nothing, or [`CommitError::InDoubt`].
    async fn commit(&self, batch: &Arc<Batch>) -> Result<(), CommitError>;

    /// The events of one saga after `after` (0: from the first), at most `limit`.
    async fn events(&self, saga: SagaId, after: u64, limit: u32) -> Result<Vec<Recorded>, StoreError>;

    /// Whole streams, for loading; a saga that does not exist is left out. In the order of `sagas`.
    async fn streams(&self, sagas: &[SagaId]) -> Result<Vec<Vec<Recorded>>, StoreError>;

    /// Where these streams end and which of the event ids they know, one look per ask: as of the last commit, or a later
    /// one. For streams that are no sagas.
    async fn look_up(&self, asks: &[StreamAsk]) -> Result<Vec<StreamLook>, StoreError>;

    async fn row(&self, saga: SagaId) -> Result<Option<SagaRow>, StoreError>;

    async fn list(&self, filter: &SagaFilter) -> Result<Vec<SagaRow>, StoreError>;

    /// Unfinished sagas of a shard by ascending id, after `after`.
    async fn unfinished(&self, shard: Shard, after: Option<SagaId>, limit: u32) -> Result<Vec<Unfinished>, StoreError>;

    /// The unfinished sagas of all shards, counted by definition, mode and status; `now` tells which are overdue.
    async fn tally(&self, now: Timestamp) -> Result<Vec<Tally>, StoreError>;

    async fn keyed_saga(&self, definition: &str, key: &str) -> Result<Option<KeyedSaga>, StoreError>;

    async fn register(&self, definition: &StoredDefinition) -> Result<Registration, StoreError>;

    /// All versions of all definitions, by name and version.
    async fn definitions(&self) -> Result<Vec<StoredDefinition>, StoreError>;

    async fn pauses(&self) -> Result<Vec<Pause>, StoreError>;

    /// Adds the pause, or replaces it.
    async fn pause(&self, pause: &Pause) -> Result<(), StoreError>;

    /// Whether there was such a pause.
    async fn unpause(&self, kind: PauseKind, name: &str) -> Result<bool, StoreError>;
}
