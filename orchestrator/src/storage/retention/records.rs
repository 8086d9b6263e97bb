//! Rows that retention reads, and what they mean.

use skald_core::{ids::SagaId, time::Timestamp};
use sqlx::{FromRow, types::Uuid};

use super::{
    super::{
        StoreError,
        groups::positions::Positions,
        records::{self, RunRecord},
    },
    EventCopy, Need, OldStream, Part, PartState,
    text::JsonText,
};

#[derive(Debug, FromRow)]
pub struct PartRecord {
    name: String,
    state: String,
    first_id: Uuid,
    last_id: Uuid,
    sagas: i64,
    streams: i64,
    events: i64,
    sha256: Vec<u8>,
    archived_at_us: i64,
}

/// The columns of a [`PartRecord`].
pub const PART_COLUMNS: &str = "name, state, first_id, last_id, sagas, streams, events, sha256, archived_at_us";

impl TryFrom<PartRecord> for Part {
    type Error = StoreError;

    fn try_from(record: PartRecord) -> Result<Self, StoreError> {
        let unreadable = |what: &str| StoreError::Unreadable(format!("part {} of the archive: {what}", record.name));
        let count = |number: i64| u64::try_from(number).map_err(|_| unreadable("a count"));
        Ok(Self {
            state: PartState::ALL
                .into_iter()
                .find(|state| state.as_str() == record.state)
                .ok_or_else(|| unreadable("its state"))?,
            first_id: SagaId::from_uuid(record.first_id),
            last_id: SagaId::from_uuid(record.last_id),
            sagas: count(record.sagas)?,
            streams: count(record.streams)?,
            events: count(record.events)?,
            sha256: record.sha256.as_slice().try_into().map_err(|_| unreadable("its digest"))?,
            archived_at: Timestamp::from_micros(record.archived_at_us),
            name: record.name,
        })
    }
}

#[derive(Debug, FromRow)]
pub struct OldStreamRecord {
    id: Uuid,
    shard: i32,
    name: Option<String>,
    version: i64,
    over_since_us: Option<i64>,
    position: Option<i64>,
}

impl TryFrom<OldStreamRecord> for OldStream {
    type Error = StoreError;

    fn try_from(record: OldStreamRecord) -> Result<Self, StoreError> {
        let id = SagaId::from_uuid(record.id);
        let unreadable = |what: &str| StoreError::Unreadable(format!("stream {id}: {what}"));
        Ok(Self {
            id,
            shard: records::shard(record.shard)?,
            name: record.name,
            version: u64::try_from(record.version).map_err(|_| unreadable("its version"))?,
            over_since: record.over_since_us.map(Timestamp::from_micros),
            position: record.position.ok_or_else(|| unreadable("its last event is not there"))?,
        })
    }
}

/// A row of `events`, with all that the database holds of it.
#[derive(Debug, FromRow)]
pub struct CopiedRecord {
    #[sqlx(flatten)]
    run: RunRecord,
    event_id: Option<String>,
    correlation_id: Option<String>,
    causation_id: Option<String>,
}

impl CopiedRecord {
    fn copies(&self) -> impl Iterator<Item = Result<EventCopy, StoreError>> {
        let RunRecord { stream, version, position, .. } = self.run;
        self.run.packed().parts().map(move |part| {
            let part = part.ok_or_else(|| records::unreadable_run(stream, version))?;
            Ok(EventCopy {
                stream,
                version: version - part.behind,
                shard: self.run.shard,
                position: position - part.behind,
                epoch: self.run.epoch,
                kind: part.kind.to_owned(),
                type_name: part.type_name.map(str::to_owned),
                occurred_at_us: self.run.occurred_at_us,
                actor: self.run.actor.clone(),
                schema_version: part.schema_version,
                event_id: self.event_id.clone(),
                correlation_id: self.correlation_id.clone(),
                causation_id: self.causation_id.clone(),
                data: JsonText(part.data.to_owned()),
            })
        })
    }
}

/// The events of rows.
pub fn copies(rows: &[CopiedRecord]) -> Result<Vec<EventCopy>, StoreError> {
    rows.iter().flat_map(CopiedRecord::copies).collect()
}

/// How far a follower is: of a group's cursor, with what is handed out and not settled.
#[derive(Debug, FromRow)]
pub struct NeedRecord {
    who: String,
    shard: i32,
    position: i64,
    in_hand: String,
    owed: String,
}

impl TryFrom<NeedRecord> for Need {
    type Error = StoreError;

    fn try_from(record: NeedRecord) -> Result<Self, StoreError> {
        let open = [Positions::parse(&record.in_hand)?.first(), Positions::parse(&record.owed)?.first()];
        let first_open = open.into_iter().flatten().min();
        Ok(Self {
            who: record.who,
            shard: records::shard(record.shard)?,
            position: first_open.map_or(record.position, |first| record.position.min(first - 1)),
        })
    }
}
