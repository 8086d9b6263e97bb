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

impl LookRecord {
    pub fn head(&self) -> Result<StreamHead, StoreError> {
        Ok(StreamHead {
            id: SagaId::from_uuid(self.id),
            version: self.number(self.version)?,
            updated_at: Timestamp::from_micros(self.updated_at_us),
        })
    }

    fn number(&self, version: i64) -> Result<u64, StoreError> {
        u64::try_from(version).map_err(|_| StoreError::Unreadable(format!("stream {}: version {version}", self.name)))
    }
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
        let head = record.head()?;
        let version = record.event_version.map(|version| record.number(version)).transpose()?;
        if let Some((event_id, version)) = record.event_id.map(Arc::from).zip(version) {
            known.entry(record.name.clone()).or_default().push((event_id, version));
        }
        heads.insert(record.name, head);
    }
    let look = |ask: &StreamAsk| StreamLook {
        name: Arc::clone(&ask.name),
        head: heads.remove(&*ask.name),
        known: known.remove(&*ask.name).unwrap_or_default(),
    };
    Ok(asks.iter().map(look).collect())
}
