//! Rows that retention reads, and what they mean.

use skald_core::{ids::SagaId, time::Timestamp};
use sqlx::{FromRow, types::Uuid};

use super::{
    super::{StoreError, groups::positions::Positions, records},
    Need, OldStream, Part, PartState,
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
