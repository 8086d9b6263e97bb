//! Putting streams back as they were archived.
//!
//! What is there already must be the same; else nothing of the stream is written. Events come back to their positions:
//! where there was a hole there is none any more, and in a database whose log is not that long, what lies between its
//! head and a position that comes back is a hole from then on.

use std::fmt::Display;

use skald_core::ids::SagaId;

use super::{Copied, EventCopy, Hole, Restored, RetentionError, SagaCopy, StreamCopy, WholeStream};
use crate::storage::{Registration, StoreError, StoredDefinition};

/// A shard's sequencer and fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardEnd {
    pub head: i64,
    pub epoch: i64,
}

/// What restoring asks of a database, all in one transaction.
pub trait RestoreRows {
    async fn register(&mut self, definition: &StoredDefinition) -> Result<Registration, StoreError>;
    async fn shard_count(&mut self) -> Result<u16, StoreError>;
    /// Locked, until the transaction ends.
    async fn shard_end(&mut self, shard: i32) -> Result<Option<ShardEnd>, StoreError>;
    async fn set_shard_end(&mut self, shard: i32, end: ShardEnd) -> Result<(), StoreError>;
    /// Makes room for what began when this stream did.
    async fn prepare(&mut self, stream: SagaId) -> Result<(), StoreError>;
    async fn saga(&mut self, id: SagaId) -> Result<Option<SagaCopy>, StoreError>;
    /// The streams that have this name or id.
    async fn streams(&mut self, name: &str, id: SagaId) -> Result<Vec<StreamCopy>, StoreError>;
    async fn events(&mut self, id: SagaId) -> Result<Vec<EventCopy>, StoreError>;
    async fn is_taken(&mut self, shard: i32, position: i64) -> Result<bool, StoreError>;
    /// Unless its start key belongs to another saga by now, with it.
    async fn insert_saga(&mut self, saga: &SagaCopy) -> Result<(), StoreError>;
    async fn insert_stream(&mut self, stream: &StreamCopy) -> Result<(), StoreError>;
    async fn insert_event(&mut self, event: &EventCopy) -> Result<(), StoreError>;
    async fn add_hole(&mut self, shard: i32, hole: Hole) -> Result<(), StoreError>;
    async fn fill_hole(&mut self, shard: i32, position: i64) -> Result<(), StoreError>;
}

pub async fn restore<R: RestoreRows>(
    rows: &mut R,
    definitions: &[StoredDefinition],
    streams: &[WholeStream],
) -> Result<Vec<Restored>, RetentionError> {
    for definition in definitions {
        if rows.register(definition).await? == Registration::Conflict {
            let (name, version) = (&definition.name, definition.version);
            return Err(RetentionError::Differs(format!("definition {name} version {version} is another one here")));
        }
    }
    let shards = rows.shard_count().await?;
    let mut restored = Vec::with_capacity(streams.len());
    for stream in streams {
        restored.push(put_back(rows, stream, shards).await?);
    }
    Ok(restored)
}

async fn put_back<R: RestoreRows>(rows: &mut R, stream: &WholeStream, shards: u16) -> Result<Restored, RetentionError> {
    let id = stream.row.id();
    let differs = |what: &dyn Display| RetentionError::Differs(format!("stream {id}: {what}"));
    if i32::from(id.shard(shards).0) != stream.row.shard() {
        return Err(differs(&format_args!("it lies in shard {}, of another number than {shards}", stream.row.shard())));
    }
    rows.prepare(id).await?;
    let present = rows.events(id).await?;
    let as_archived = present.iter().all(|event| archived(stream, event.version).is_none_or(|other| other == event));
    match row_is_there(rows, &stream.row).await?.map_err(|what| differs(&what))? {
        true if as_archived && present.len() >= stream.events.len() => return Ok(Restored::Present),
        false if as_archived && present.len() <= stream.events.len() => {}
        _ => return Err(differs(&"its events here are not those of the archive")),
    }
    let mut end = rows.shard_end(stream.row.shard()).await?.ok_or_else(|| differs(&"its shard is not here"))?;
    let missing = stream.events.iter().filter(|event| !present.iter().any(|other| other.version == event.version));
    for event in missing {
        if rows.is_taken(event.shard, event.position).await? {
            return Err(differs(&format_args!("position {} is another event's", event.position)));
        }
        if event.position > end.head {
            if event.position > end.head + 1 {
                rows.add_hole(event.shard, Hole { first: end.head + 1, last: event.position - 1 }).await?;
            }
            end.head = event.position;
        } else {
            rows.fill_hole(event.shard, event.position).await?;
        }
        end.epoch = end.epoch.max(event.epoch);
        rows.insert_event(event).await?;
    }
    rows.set_shard_end(stream.row.shard(), end).await?;
    match &stream.row {
        Copied::Saga(saga) => rows.insert_saga(saga).await?,
        Copied::Stream(stream) => rows.insert_stream(stream).await?,
    }
    Ok(Restored::Written)
}

fn archived(stream: &WholeStream, version: i64) -> Option<&EventCopy> {
    let index = usize::try_from(version.checked_sub(1)?).ok()?;
    stream.events.get(index)
}

/// Whether the stream's row is there, or what is there instead.
async fn row_is_there<R: RestoreRows>(rows: &mut R, row: &Copied) -> Result<Result<bool, &'static str>, StoreError> {
    match row {
        Copied::Saga(archived) => Ok(match rows.saga(row.id()).await? {
            None => Ok(false),
            // The key may be another saga's by now.
            Some(found) => {
                let keyed = SagaCopy { start_key: None, fingerprint: None, ..(**archived).clone() };
                let found = SagaCopy { start_key: None, fingerprint: None, ..found };
                if found == keyed { Ok(true) } else { Err("its row here is not that of the archive") }
            }
        }),
        Copied::Stream(archived) => {
            let found = rows.streams(&archived.name, row.id()).await?;
            Ok(match &*found {
                [] => Ok(false),
                // It may have grown.
                [one] if one.id == archived.id && one.name == archived.name && one.version >= archived.version => {
                    Ok(true)
                }
                _ => Err("its name or id is another stream's here"),
            })
        }
    }
}
