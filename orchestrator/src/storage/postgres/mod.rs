//! The production store: PostgreSQL, any number of shards and replicas.
//!
//! Three kinds of sessions, so that none waits for another's work: the *writer* ([`commit`]) carries nothing but
//! commits; *control* keeps leases and the few other writes; *readers* read, and cannot write.
//!
//! No statement here spans round trips: there is no transaction to be left open by a dropped future. (A dropped
//! `pool.begin()` would leave one on a pooled connection.) Migrations, run at start, are the exception.
//!
//! What PostgreSQL-compatible engines lack is not used: no session advisory locks, no LISTEN, no serial numbers.

mod audit;
mod columns;
mod commit;
mod leases;
mod lifecycle;
mod reads;
mod registry;
mod replicas;

#[cfg(test)]
mod tests;

use std::{sync::atomic::AtomicI64, time::Duration};

use async_trait::async_trait;
use skald_core::{
    event::Recorded,
    ids::{SagaId, Shard},
    shard::{
        batch::{Batch, CommitError, Fence},
        leases::LeaseView,
    },
    state::SagaRow,
    time::{Millis, Timestamp},
};
use sqlx::{
    ConnectOptions as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub use self::audit::PostgresAudit;
use super::{
    KeyedSaga, OwnedShard, Owner, Pause, PauseKind, Registration, ReplicaRow, SagaFilter, ShardRow, Store, StoreError,
    StoreOptions, StoredDefinition, Unfinished,
};

/// Sessions for leases, registrations and migrations.
const CONTROL_CONNECTIONS: u32 = 2;

/// How long to wait for a connection, to the database or from a pool.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a read may take before the database gives it up.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct PostgresStore {
    writer: commit::Writer,
    control: leases::Control,
    readers: PgPool,
    /// Shards to create in a database that has none.
    shards: u16,
    /// When partitions were last looked after.
    maintained_at_us: AtomicI64,
}

impl PostgresStore {
    /// Connects. The database must exist; its schema need not.
    pub async fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let base: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| StoreError::Open(error.to_string()))?;
        let base = base.disable_statement_logging();
        let patience = Duration::from_millis((options.lease.0 / 2).max(200));
        let control = PgPoolOptions::new()
            .max_connections(CONTROL_CONNECTIONS)
            .acquire_timeout(patience.max(CONNECT_TIMEOUT))
            .connect_with(control_session(&base, options.lease))
            .await
            .map_err(|error| StoreError::Open(error.to_string()))?;
        let control = leases::Control { pool: control, patience };
        let readers = PgPoolOptions::new()
            .max_connections(options.readers.max(1))
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_lazy_with(reader_session(&base));
        let writer = commit::Writer::spawn(&base, options.lease, patience);
        Ok(Self { writer, control, readers, shards: options.shards, maintained_at_us: AtomicI64::new(0) })
    }
}

/// Leases must be kept in time: whatever takes longer than a good part of a lease is given up and tried again.
fn control_session(base: &PgConnectOptions, lease: Millis) -> PgConnectOptions {
    let timeouts = SessionTimeouts::within(lease);
    base.clone().application_name("skald-control").options([
        ("synchronous_commit", "on"),
        ("lock_timeout", &timeouts.lock),
        ("statement_timeout", &timeouts.statement),
        ("idle_in_transaction_session_timeout", &timeouts.statement),
    ])
}

fn reader_session(base: &PgConnectOptions) -> PgConnectOptions {
    base.clone().application_name("skald-reader").options([
        ("default_transaction_read_only", "on"),
        // Which plan is good depends on the values: how common a status is, which partitions an id excludes.
        ("plan_cache_mode", "force_custom_plan"),
        // Every read has an index, and lists should walk it in order even where statistics are out of date.
        ("enable_seqscan", "off"),
        ("jit", "off"),
        ("statement_timeout", &READ_TIMEOUT.as_millis().to_string()),
    ])
}

/// What bounds a session's statements, all below half a lease: a stopped replica's locks must be gone by the time that
/// its successor needs them.
struct SessionTimeouts {
    lock: String,
    statement: String,
}

impl SessionTimeouts {
    fn within(lease: Millis) -> Self {
        Self { lock: (lease.0 * 3 / 10).max(50).to_string(), statement: (lease.0 * 4 / 10).max(100).to_string() }
    }
}

/// What a failed query means outside of commits.
fn failed(error: sqlx::Error) -> StoreError {
    /// `undefined_table` and `undefined_function`.
    const UNDEFINED: [&str; 2] = ["42P01", "42883"];
    match &error {
        sqlx::Error::Database(refusal) if refusal.code().is_some_and(|code| UNDEFINED.contains(&&*code)) => {
            StoreError::NotMigrated(refusal.message().to_owned())
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Unreadable(error.to_string()),
        _ => StoreError::Unavailable(error),
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        lifecycle::migrate(&self.control.pool, self.shards).await
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        lifecycle::check_schema(&self.readers).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        lifecycle::ping(&self.control.pool).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        lifecycle::now(&self.readers).await
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
        lifecycle::maintain_when_due(&self.control.pool, &self.maintained_at_us);
        leases::take(&self.control, owner, only, lease).await
    }

    async fn renew(&self, owner: &Owner, fences: &[Fence], lease: Millis) -> Result<Vec<Shard>, StoreError> {
        lifecycle::maintain_when_due(&self.control.pool, &self.maintained_at_us);
        leases::renew(&self.control, owner, fences, lease).await
    }

    async fn release_shards(&self, owner: &Owner, fences: &[Fence]) -> Result<(), StoreError> {
        leases::release_shards(&self.control, owner, fences).await
    }

    async fn heartbeat(&self, owner: &Owner, lease: Millis) -> Result<(), StoreError> {
        replicas::heartbeat(&self.control, owner, lease).await
    }

    async fn leave(&self, owner: &Owner) -> Result<(), StoreError> {
        replicas::leave(&self.control, owner).await
    }

    async fn lease_view(&self, owner: &Owner) -> Result<LeaseView, StoreError> {
        leases::view(&self.control, owner).await
    }

    async fn replicas(&self) -> Result<Vec<ReplicaRow>, StoreError> {
        replicas::replicas(&self.readers).await
    }

    async fn release(&self, owner: &Owner) -> Result<(), StoreError> {
        leases::release(&self.control, owner).await
    }

    async fn commit(&self, batch: &Batch) -> Result<(), CommitError> {
        self.writer.commit(batch).await
    }

    async fn events(&self, saga: SagaId, after: u64, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        reads::events(&self.readers, saga, after, limit).await
    }

    async fn streams(&self, sagas: &[SagaId]) -> Result<Vec<Vec<Recorded>>, StoreError> {
        reads::streams(&self.readers, sagas).await
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

    async fn keyed_saga(&self, definition: &str, key: &str) -> Result<Option<KeyedSaga>, StoreError> {
        reads::keyed_saga(&self.readers, definition, key).await
    }

    async fn register(&self, definition: &StoredDefinition) -> Result<Registration, StoreError> {
        registry::register(&self.control.pool, definition).await
    }

    async fn definitions(&self) -> Result<Vec<StoredDefinition>, StoreError> {
        registry::definitions(&self.readers).await
    }

    async fn pauses(&self) -> Result<Vec<Pause>, StoreError> {
        registry::pauses(&self.readers).await
    }

    async fn pause(&self, pause: &Pause) -> Result<(), StoreError> {
        registry::pause(&self.control.pool, pause).await
    }

    async fn unpause(&self, kind: PauseKind, name: &str) -> Result<bool, StoreError> {
        registry::unpause(&self.control.pool, kind, name).await
    }
}
