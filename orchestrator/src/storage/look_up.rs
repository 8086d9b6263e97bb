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
    let mut heads: HashMap<String, StreamHead> = HashMap::with_capacity(asks.len());
    let mut known: HashMap<String, Vec<(Arc<str>, u64)>> = HashMap::new();
    for record in records {
        let LookRecord { name, id, version, updated_at_us, event_id, event_version } = record;
        let unsigned = |version: i64| {
            u64::try_from(version).map_err(|_| StoreError::Unreadable(format!("stream {name}: version {version}")))
        };
        let (id, updated_at) = (SagaId::from_uuid(id), Timestamp::from_micros(updated_at_us));
        let head = StreamHead { id, version: unsigned(version)?, updated_at };
        if let Some((event_id, version)) = event_id.zip(event_version) {
            let version = unsigned(version)?;
            known.entry(name.clone()).or_default().push((Arc::from(event_id), version));
        }
        heads.insert(name, head);
    }
    let look = |ask: &StreamAsk| StreamLook {
        name: Arc::clone(&ask.name),
        head: heads.remove(&*ask.name),
        known: known.remove(&*ask.name).unwrap_or_default(),
    };
    Ok(asks.iter().map(look).collect())
}
