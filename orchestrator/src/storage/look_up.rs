//! What a look at streams finds: a row for each stream and event id that was asked for, if there is such a stream.

use std::{collections::HashMap, sync::Arc};

use skald_core::{
    ids::SagaId,
    shard::batch::{StreamAsk, StreamHead, StreamLook},
    time::Timestamp,
};
use sqlx::{FromRow, types::Uuid};

use super::StoreError;

#[derive(Debug, FromRow)]
pub struct LookRecord {
    name: String,
    id: Uuid,
    version: i64,
    updated_at_us: i64,
    event_id: Option<String>,
    event_version: Option<i64>,
}

/// Each stream's name with each of the event ids.
pub fn pairs(asks: &[StreamAsk]) -> impl Iterator<Item = (&str, &str)> {
    asks.iter().flat_map(|ask| ask.event_ids.iter().map(|event_id| (&*ask.name, &**event_id)))
}

/// One look per ask.
pub fn looks(asks: &[StreamAsk], records: Vec<LookRecord>) -> Result<Vec<StreamLook>, StoreError> {
    let mut found: HashMap<String, (StreamHead, Vec<(Arc<str>, u64)>)> = HashMap::with_capacity(asks.len());
    for record in records {
        let LookRecord { name, id, version, updated_at_us, event_id, event_version } = record;
        let unreadable = |_| StoreError::Unreadable(format!("stream {name}: a version"));
        let head = StreamHead {
            id: SagaId::from_uuid(id),
            version: u64::try_from(version).map_err(unreadable)?,
            updated_at: Timestamp::from_micros(updated_at_us),
        };
        let known = event_id.zip(event_version);
        let known = known.map(|(event_id, version)| Ok((Arc::from(event_id), u64::try_from(version)?))).transpose();
        let known = known.map_err(unreadable)?;
        found.entry(name).or_insert_with(|| (head, Vec::new())).1.extend(known);
    }
    let look = |ask: &StreamAsk| {
        let (head, known) = found.remove(&*ask.name).unzip();
        StreamLook { name: Arc::clone(&ask.name), head, known: known.unwrap_or_default() }
    };
    Ok(asks.iter().map(look).collect())
}
