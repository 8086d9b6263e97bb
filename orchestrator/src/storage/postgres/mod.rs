//! The production store: PostgreSQL, any number of shards and replicas.
//!
//! Several kinds of sessions, so that none waits for another's work: the *writer* ([`commit`]) carries nothing but
//! commits; *leases* is one session for nothing else; *control* does the few other writes; *readers* read, and cannot write.
//! Those who follow the log have their own: *log* reads it, and *groups* writes how far consumers have come.
//!
//! No statement here spans round trips: there is no transaction to be left open by a dropped future. (A dropped
//! `pool.begin()` would leave one on a pooled connection.) Migrations, run at start, are the exception.
//!
//! What PostgreSQL-compatible engines lack is not used: no session advisory locks, no LISTEN, no serial numbers.

mod access;
mod audit;
mod columns;
mod commit;
mod event_stats;
mod groups;
mod leases;
mod lifecycle;
mod log;
mod look_up;
mod reads;
mod registry;
mod replicas;
mod retention;
mod sessions;
mod subjects;
mod webhooks;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
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
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub use self::audit::PostgresAudit;
use self::sessions::Sessions;
use super::{
    EventLog, KeyedSaga, OwnedShard, Owner, Pause, PauseKind, Registration, ReplicaRow, SagaFilter, ShardRow, Store,
    StoreError, StoreOptions, StoredDefinition, Tally, Unfinished,
    log::{EventStats, LogEvent, LogPage, LogQuery, facts::Remembered, stats, tail::Tail},
};

/// Sessions for registrations, pauses, migrations and the question whether the database takes writes.
const CONTROL_CONNECTIONS: u32 = 2;

/// Sessions for the writes of consumer groups; each lasts a fraction of a millisecond.
const GROUP_CONNECTIONS: u32 = 4;

/// How long to wait for a connection, to the database or from a pool.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a read may take before the database gives it up.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait for an answer about what is old: a little longer than the database works on it.
const RETENTION_PATIENCE: Duration = Duration::from_secs(620);

#[derive(Debug)]
pub struct PostgresStore {
    writer: commit::Writer,
    /// Keep leases and do nothing else, so that no amount of other work delays it.
    leases: Sessions,
    control: Sessions,
    readers: Sessions,
    /// Read the log, and go by plans that are made once.
    log: Sessions,
    /// Write how far consumer groups have come, durably only by and by.
    groups: Sessions,
    /// Archives and removes what is old.
    retention: Sessions,
    remembered: Remembered,
    tail: Tail,
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
            .map_err(not_opened)?;
        let control = Sessions { pool: control, patience };
        let leases = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(patience)
            .connect_lazy_with(control_session(&base, options.lease).application_name("skald-leases"));
        let leases = Sessions { pool: leases, patience };
        let readers = PgPoolOptions::new()
            .max_connections(options.readers.max(1))
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_lazy_with(reader_session(&base));
        let readers = Sessions { pool: readers, patience: READ_TIMEOUT };
        let log = sessions::trusting()
            .max_connections(options.readers.max(1))
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_lazy_with(log::session(&base));
        let log = Sessions { pool: log, patience: READ_TIMEOUT };
        let groups = sessions::trusting()
            .max_connections(GROUP_CONNECTIONS)
            .acquire_timeout(patience.max(CONNECT_TIMEOUT))
            .connect_lazy_with(groups::session(&base, options.lease));
        let groups = Sessions { pool: groups, patience };
        let retention = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_lazy_with(retention::session(&base));
        let retention = Sessions { pool: retention, patience: RETENTION_PATIENCE };
        let writer = commit::Writer::spawn(&base, options.lease, patience);
        Ok(Self {
            writer,
            leases,
            control,
            readers,
            log,
            groups,
            retention,
            remembered: Remembered::default(),
            tail: Tail::default(),
            shards: options.shards,
            maintained_at_us: AtomicI64::new(0),
        })
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

/// What it means that a first session could not be had: a database that is not there may come yet, one that refuses us
/// will not change its mind.
fn not_opened(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => StoreError::Unavailable(error),
        _ => StoreError::Open(error.to_string()),
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
        self.readers.ask(async |session| lifecycle::check_schema(session).await).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.control.ask(async |session| lifecycle::ping(session).await).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.readers.ask(async |session| lifecycle::now(session).await).await
    }

    async fn secret(&self) -> Result<[u8; 32], StoreError> {
        self.readers.ask(async |session| lifecycle::secret(session).await).await
    }

    async fn shards(&self) -> Result<Vec<ShardRow>, StoreError> {
        self.readers.ask(async |session| leases::shards(session).await).await
    }

    async fn take_shards(
        &self,
        owner: &Owner,
        only: Option<&[Shard]>,
        lease: Millis,
    ) -> Result<Vec<OwnedShard>, StoreError> {
        lifecycle::maintain_when_due(&self.control, &self.maintained_at_us);
        let taken = leases::take(&self.leases, owner, only, lease).await?;
        self.tail.taken(&taken);
        Ok(taken)
    }

    async fn renew(&self, owner: &Owner, fences: &[Fence], lease: Millis) -> Result<Vec<Shard>, StoreError> {
        lifecycle::maintain_when_due(&self.control, &self.maintained_at_us);
        leases::renew(&self.leases, owner, fences, lease).await
    }

    async fn release_shards(&self, owner: &Owner, fences: &[Fence]) -> Result<(), StoreError> {
        leases::release_shards(&self.leases, owner, fences).await
    }

    async fn heartbeat(&self, owner: &Owner, lease: Millis) -> Result<(), StoreError> {
        replicas::heartbeat(&self.leases, owner, lease).await
    }

    async fn leave(&self, owner: &Owner) -> Result<(), StoreError> {
        replicas::leave(&self.leases, &owner.id).await
    }

    async fn lease_view(&self, owner: &Owner) -> Result<LeaseView, StoreError> {
        leases::view(&self.leases, owner).await
    }

    async fn replicas(&self) -> Result<Vec<ReplicaRow>, StoreError> {
        self.readers.ask(async |session| replicas::replicas(session).await).await
    }

    async fn release(&self, owner: &Owner) -> Result<(), StoreError> {
        leases::release(&self.leases, owner).await
    }

    async fn bury(&self, id: &str) -> Result<(), StoreError> {
        leases::end(&self.leases, id).await?;
        replicas::leave(&self.leases, id).await
    }

    async fn commit(&self, batch: &Arc<Batch>) -> Result<(), CommitError> {
        self.tail.writing(batch);
        let result = self.writer.commit(batch).await;
        self.tail.written(batch, &result);
        result
    }

    async fn events(&self, saga: SagaId, after: u64, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        self.readers.ask(async |session| reads::events(session, saga, after, limit).await).await
    }

    async fn streams(&self, sagas: &[SagaId]) -> Result<Vec<Vec<Recorded>>, StoreError> {
        self.readers.ask(async |session| reads::streams(session, sagas).await).await
    }

    async fn look_up(&self, asks: &[StreamAsk]) -> Result<Vec<StreamLook>, StoreError> {
        self.log.ask(async |session| look_up::look_up(session, asks).await).await
    }

    async fn row(&self, saga: SagaId) -> Result<Option<SagaRow>, StoreError> {
        self.readers.ask(async |session| reads::row(session, saga).await).await
    }

    async fn list(&self, filter: &SagaFilter) -> Result<Vec<SagaRow>, StoreError> {
        self.readers.ask(async |session| reads::list(session, filter).await).await
    }

    async fn unfinished(&self, shard: Shard, after: Option<SagaId>, limit: u32) -> Result<Vec<Unfinished>, StoreError> {
        self.readers.ask(async |session| reads::unfinished(session, shard, after, limit).await).await
    }

    async fn tally(&self, now: Timestamp) -> Result<Vec<Tally>, StoreError> {
        self.readers.ask(async |session| reads::tally(session, now).await).await
    }

    async fn keyed_saga(&self, definition: &str, key: &str) -> Result<Option<KeyedSaga>, StoreError> {
        self.readers.ask(async |session| reads::keyed_saga(session, definition, key).await).await
    }

    async fn register(&self, definition: &StoredDefinition) -> Result<Registration, StoreError> {
        self.control.ask(async |session| registry::register(session, definition).await).await
    }

    async fn definitions(&self) -> Result<Vec<StoredDefinition>, StoreError> {
        self.readers.ask(async |session| registry::definitions(session).await).await
    }

    async fn pauses(&self) -> Result<Vec<Pause>, StoreError> {
        self.readers.ask(async |session| registry::pauses(session).await).await
    }

    async fn pause(&self, pause: &Pause) -> Result<(), StoreError> {
        self.control.ask(async |session| registry::pause(session, pause).await).await
    }

    async fn unpause(&self, kind: PauseKind, name: &str) -> Result<bool, StoreError> {
        self.control.ask(async |session| registry::unpause(session, kind, name).await).await
    }
}

#[async_trait]
impl EventLog for PostgresStore {
    async fn heads(&self) -> Result<BTreeMap<Shard, i64>, StoreError> {
        self.log.ask(async |session| log::heads(session).await).await
    }

    async fn log(&self, query: &LogQuery) -> Result<LogPage, StoreError> {
        log::log(&self.log, &self.remembered, query).await
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
        log::stream_log(&self.log, &self.remembered, stream, (after, until), limit).await
    }

    async fn stream_head(&self, name: &str) -> Result<Option<StreamHead>, StoreError> {
        self.log.ask(async |session| look_up::stream_head(session, name).await).await
    }

    async fn events_at(&self, shard: Shard, positions: &[i64]) -> Result<Vec<LogEvent>, StoreError> {
        log::events_at(&self.log, &self.remembered, shard, positions).await
    }

    async fn event_stats(&self) -> Result<EventStats, StoreError> {
        stats::stats(self).await
    }

    #[cfg(test)]
    async fn relayed(&self, bus: &str) -> Result<BTreeMap<Shard, i64>, StoreError> {
        event_stats::relayed(&self.log, bus).await
    }

    async fn note_relayed(&self, bus: &str, positions: &BTreeMap<Shard, i64>) -> Result<(), StoreError> {
        event_stats::note_relayed(&self.groups, bus, positions).await
    }
}
