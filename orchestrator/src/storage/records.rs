//! Rows as both databases hold them, and their way back to the engine's types. Whatever cannot be read is
//! [`StoreError::Unreadable`]: it is never guessed at.

use std::{fmt, sync::Arc};

use skald_core::{
    event::{Event, Mode, Recorded},
    ids::{Epoch, SagaId, Shard},
    shard::{
        batch::{APPENDED, Fence},
        leases::LeaseView,
    },
    state::{SagaRow, Status},
    time::Timestamp,
};
use sqlx::{FromRow, types::Uuid};

use super::{
    KeyedSaga, OwnedShard, Pause, PauseKind, ReplicaRow, ShardRow, StoreError, StoredDefinition, Tally, Unfinished,
    runs::{Packed, Part},
};

#[derive(Debug, FromRow)]
pub struct SagaRecord {
    id: Uuid,
    definition: String,
    definition_version: i64,
    mode: String,
    status: String,
    state: String,
    version: i64,
    correlation_id: String,
    failure: Option<String>,
    created_at_us: i64,
    updated_at_us: i64,
    ended_at_us: Option<i64>,
    deadline_at_us: Option<i64>,
    wake_at_us: Option<i64>,
}

impl TryFrom<SagaRecord> for SagaRow {
    type Error = StoreError;

    fn try_from(record: SagaRecord) -> Result<Self, StoreError> {
        let id = SagaId::from_uuid(record.id);
        let unreadable = |what: &str| StoreError::Unreadable(format!("saga {id}: {what}"));
        let failure = record
            .failure
            .map(|json| serde_json::from_str(&json))
            .transpose()
            .map_err(|error| unreadable(&format!("its failure: {error}")))?;
        Ok(Self {
            id,
            definition: Arc::from(record.definition),
            definition_version: u32::try_from(record.definition_version)
                .map_err(|_| unreadable("its definition's version"))?,
            mode: mode(&record.mode).ok_or_else(|| unreadable("its mode"))?,
            status: status(&record.status).ok_or_else(|| unreadable("its status"))?,
            state: record.state,
            version: u64::try_from(record.version).map_err(|_| unreadable("its version"))?,
            correlation_id: Arc::from(record.correlation_id),
            failure,
            created_at: Timestamp::from_micros(record.created_at_us),
            updated_at: Timestamp::from_micros(record.updated_at_us),
            ended_at: record.ended_at_us.map(Timestamp::from_micros),
            deadline_at: record.deadline_at_us.map(Timestamp::from_micros),
            wake_at: record.wake_at_us.map(Timestamp::from_micros),
        })
    }
}

/// A row of `events`, which are one or several.
#[derive(Debug, FromRow)]
pub struct RunRecord {
    pub shard: i32,
    pub position: i64,
    pub stream: Uuid,
    pub version: i64,
    pub epoch: i64,
    events: i16,
    kind: String,
    #[sqlx(rename = "type")]
    type_name: Option<String>,
    pub occurred_at_us: i64,
    pub actor: Option<String>,
    schema_version: i16,
    schema_versions: Option<String>,
    data: String,
}

/// The columns of a [`RunRecord`].
pub const RUN_COLUMNS: &str = "shard, position, stream, version, epoch, events, kind, type, occurred_at_us, actor, \
     schema_version, schema_versions, data";

impl RunRecord {
    pub fn is_of_saga(&self) -> bool {
        self.kind != APPENDED
    }

    pub fn packed(&self) -> Packed<'_> {
        Packed {
            events: self.events,
            kind: &self.kind,
            type_name: self.type_name.as_deref(),
            schema_version: self.schema_version,
            schema_versions: self.schema_versions.as_deref(),
            data: &self.data,
        }
    }

    /// The events, in their order.
    pub fn recorded(&self) -> impl Iterator<Item = Result<Recorded, StoreError>> {
        self.packed().parts().map(|part| self.event(part.ok_or_else(|| unreadable_run(self.stream, self.version))?))
    }

    fn event(&self, part: Part<'_>) -> Result<Recorded, StoreError> {
        let stream = SagaId::from_uuid(self.stream);
        let version = self.version.saturating_sub(part.behind);
        let unreadable =
            |what: &dyn fmt::Display| StoreError::Unreadable(format!("saga {stream}, event {version}: {what}"));
        let form = u16::try_from(part.schema_version).map_err(|_| unreadable(&"its form"))?;
        let event = Event::parse(part.kind, form, part.data).map_err(|error| unreadable(&error))?;
        Ok(Recorded {
            stream,
            version: u64::try_from(version).map_err(|_| unreadable(&"its version"))?,
            shard: shard(self.shard)?,
            position: self.position.saturating_sub(part.behind),
            epoch: Epoch(self.epoch),
            occurred_at: Timestamp::from_micros(self.occurred_at_us),
            type_name: Arc::from(part.type_name.unwrap_or_else(|| event.kind())),
            actor: self.actor.clone(),
            event,
        })
    }
}

/// A row of `events` whose columns do not tell of as many events.
pub fn unreadable_run(stream: Uuid, version: i64) -> StoreError {
    StoreError::Unreadable(format!("stream {stream}: the row of the events up to version {version}"))
}

/// Reads the first `limit` events after a version from the rows of a stream.
pub fn read_stream(records: &[RunRecord], after: u64, limit: u32) -> Result<Vec<Recorded>, StoreError> {
    let events = records.iter().flat_map(RunRecord::recorded);
    let asked_for = events.filter(|event| !matches!(event, Ok(event) if event.version <= after));
    asked_for.take(limit as usize).collect()
}

/// Reads the events of rows.
pub fn read_events(records: &[RunRecord]) -> Result<Vec<Recorded>, StoreError> {
    records.iter().flat_map(RunRecord::recorded).collect()
}

#[derive(Debug, FromRow)]
pub struct ShardRecord {
    shard: i32,
    epoch: i64,
    owner: Option<String>,
    owner_url: Option<String>,
    lease_until_us: i64,
    head: i64,
}

impl TryFrom<ShardRecord> for ShardRow {
    type Error = StoreError;

    fn try_from(record: ShardRecord) -> Result<Self, StoreError> {
        Ok(Self {
            shard: shard(record.shard)?,
            epoch: Epoch(record.epoch),
            owner: record.owner,
            owner_url: record.owner_url,
            lease_until: Timestamp::from_micros(record.lease_until_us),
            head: record.head,
        })
    }
}

#[derive(Debug, FromRow)]
pub struct OwnedShardRecord {
    shard: i32,
    epoch: i64,
    head: i64,
    died: bool,
}

impl TryFrom<OwnedShardRecord> for OwnedShard {
    type Error = StoreError;

    fn try_from(record: OwnedShardRecord) -> Result<Self, StoreError> {
        Ok(Self { shard: shard(record.shard)?, epoch: Epoch(record.epoch), head: record.head, died: record.died })
    }
}

#[derive(Debug, FromRow)]
pub struct ReplicaRecord {
    id: String,
    url: Option<String>,
    version: String,
    started_at_us: i64,
    seen_until_us: i64,
    alive: bool,
}

impl TryFrom<ReplicaRecord> for ReplicaRow {
    type Error = StoreError;

    fn try_from(record: ReplicaRecord) -> Result<Self, StoreError> {
        Ok(Self {
            id: record.id,
            url: record.url,
            version: record.version,
            started_at: Timestamp::from_micros(record.started_at_us),
            seen_until: Timestamp::from_micros(record.seen_until_us),
            alive: record.alive,
        })
    }
}

/// A shard that an owner may have or take.
#[derive(Debug, FromRow)]
pub struct HadShardRecord {
    shard: i32,
    epoch: i64,
    mine: bool,
}

/// What an owner's view of the leases is made of.
pub fn lease_view(replicas: Vec<(String,)>, shards: Vec<HadShardRecord>) -> Result<LeaseView, StoreError> {
    let mut view = LeaseView { replicas: replicas.into_iter().map(|(id,)| id).collect(), ..LeaseView::default() };
    for record in shards {
        let shard = shard(record.shard)?;
        if record.mine {
            view.mine.push(Fence { shard, epoch: Epoch(record.epoch) });
        } else {
            view.free.push(shard);
        }
    }
    Ok(view)
}

#[derive(Debug, FromRow)]
pub struct UnfinishedRecord {
    id: Uuid,
    mode: String,
    status: String,
    wake_at_us: Option<i64>,
}

impl TryFrom<UnfinishedRecord> for Unfinished {
    type Error = StoreError;

    fn try_from(record: UnfinishedRecord) -> Result<Self, StoreError> {
        let id = SagaId::from_uuid(record.id);
        let status = status(&record.status).ok_or_else(|| StoreError::Unreadable(format!("saga {id}: its status")))?;
        let mode = mode(&record.mode).ok_or_else(|| StoreError::Unreadable(format!("saga {id}: its mode")))?;
        Ok(Self { id, mode, status, wake_at: record.wake_at_us.map(Timestamp::from_micros) })
    }
}

#[derive(Debug, FromRow)]
pub struct TallyRecord {
    definition: String,
    mode: String,
    status: String,
    sagas: i64,
    overdue: i64,
}

impl TryFrom<TallyRecord> for Tally {
    type Error = StoreError;

    fn try_from(record: TallyRecord) -> Result<Self, StoreError> {
        let TallyRecord { definition, sagas, overdue, .. } = record;
        let unreadable = |what| StoreError::Unreadable(format!("the {what} of sagas of {definition}"));
        let mode = mode(&record.mode).ok_or_else(|| unreadable("mode"))?;
        let status = status(&record.status).ok_or_else(|| unreadable("status"))?;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(Self { mode, status, sagas: count(sagas), overdue: count(overdue), definition })
    }
}

#[derive(Debug, FromRow)]
pub struct KeyedSagaRecord {
    saga: Uuid,
    fingerprint: Vec<u8>,
}

impl TryFrom<KeyedSagaRecord> for KeyedSaga {
    type Error = StoreError;

    fn try_from(record: KeyedSagaRecord) -> Result<Self, StoreError> {
        let saga = SagaId::from_uuid(record.saga);
        let fingerprint = <[u8; 32]>::try_from(record.fingerprint)
            .map_err(|_| StoreError::Unreadable(format!("the start key of saga {saga}: its fingerprint")))?;
        Ok(Self { saga, fingerprint })
    }
}

#[derive(Debug, FromRow)]
pub struct DefinitionRecord {
    name: String,
    version: i64,
    hash: String,
    document: String,
    registered_at_us: i64,
}

impl TryFrom<DefinitionRecord> for StoredDefinition {
    type Error = StoreError;

    fn try_from(record: DefinitionRecord) -> Result<Self, StoreError> {
        let version = u32::try_from(record.version)
            .map_err(|_| StoreError::Unreadable(format!("definition {}: version {}", record.name, record.version)))?;
        Ok(Self {
            name: record.name,
            version,
            hash: record.hash,
            document: record.document,
            registered_at: Timestamp::from_micros(record.registered_at_us),
        })
    }
}

#[derive(Debug, FromRow)]
pub struct PauseRecord {
    kind: String,
    name: String,
    actor: String,
    reason: String,
    since_us: i64,
}

impl TryFrom<PauseRecord> for Pause {
    type Error = StoreError;

    fn try_from(record: PauseRecord) -> Result<Self, StoreError> {
        let kind = [PauseKind::Definition, PauseKind::Participant]
            .into_iter()
            .find(|kind| pause_word(*kind) == record.kind)
            .ok_or_else(|| StoreError::Unreadable(format!("a pause of kind {}", record.kind)))?;
        Ok(Self {
            kind,
            name: record.name,
            actor: record.actor,
            reason: record.reason,
            since: Timestamp::from_micros(record.since_us),
        })
    }
}

pub const fn pause_word(kind: PauseKind) -> &'static str {
    match kind {
        PauseKind::Definition => "definition",
        PauseKind::Participant => "participant",
    }
}

/// Reads a whole result, or says what in it cannot be read.
pub fn read_all<R, T: TryFrom<R, Error = StoreError>>(records: Vec<R>) -> Result<Vec<T>, StoreError> {
    records.into_iter().map(T::try_from).collect()
}

/// Cuts events that are sorted by stream into streams, in the order in which the sagas were asked for.
pub fn group_by_stream(sagas: &[SagaId], events: Vec<Recorded>) -> Vec<Vec<Recorded>> {
    let mut streams = std::collections::HashMap::<SagaId, Vec<Recorded>>::with_capacity(sagas.len());
    for event in events {
        streams.entry(event.stream).or_default().push(event);
    }
    sagas.iter().filter_map(|saga| streams.remove(saga)).collect()
}

/// Ids made before `at` are smaller than this one, and ids made from `at` on are not: a UUIDv7 begins with its time.
pub fn id_floor(at: Timestamp) -> Uuid {
    let millis = u128::try_from(at.as_micros().div_euclid(1000)).unwrap_or(0).min((1 << 48) - 1);
    Uuid::from_u128(millis << 80)
}

pub fn shard(number: i32) -> Result<Shard, StoreError> {
    u16::try_from(number).map(Shard).map_err(|_| StoreError::Unreadable(format!("shard {number}")))
}

pub fn status(word: &str) -> Option<Status> {
    Status::ALL.into_iter().find(|status| status.as_str() == word)
}

pub fn mode(word: &str) -> Option<Mode> {
    [Mode::Orchestrated, Mode::Choreographed].into_iter().find(|mode| mode.as_str() == word)
}
