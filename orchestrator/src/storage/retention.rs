//! What is old leaves the database: the rows behind it, and what a database must be able to do with them.
//!
//! A stream goes whole, row, events and start key, and never before it is in a verified part of the archive. Who decides
//! what may go, writes the archive and says when, is in the folder `retention` of the service; here is what both databases
//! do differently:
//!
//! - **SQLite** removes stream by stream, in transactions of a few hundred rows.
//! - **PostgreSQL** drops the partitions of a month, whole, when nothing of it is needed any more.
//!
//! Positions at which there is nothing any more are noted as *holes*, in the transaction that makes them: readers and
//! checks of the log accept these and no others. A row for each part of the archive tells which ids are gone.

use std::{collections::HashSet, fmt};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use skald_core::{
    ids::{SagaId, Shard},
    time::{Millis, Timestamp},
};
use sqlx::{FromRow, types::Uuid};

use super::{StoreError, StoredDefinition};

pub(super) mod records;
pub mod restoring;
mod text;

pub use self::text::JsonText;

/// What a database removes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Any stream, by itself.
    Stream,
    /// Every stream that began in a month, together.
    Month,
}

/// How far somebody who follows a shard's log is done with it: it needs whatever comes after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub who: String,
    pub shard: Shard,
    pub position: i64,
}

/// A stream, as far as its age and whether it is needed can be told from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldStream {
    pub id: SagaId,
    pub shard: Shard,
    /// None: a saga.
    pub name: Option<String>,
    pub version: u64,
    /// When the saga ended, or the last event was appended. None: the saga has not ended.
    pub over_since: Option<Timestamp>,
    /// Of its last event.
    pub position: i64,
}

/// A part of the archive, as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub state: PartState,
    pub first_id: SagaId,
    pub last_id: SagaId,
    pub sagas: u64,
    pub streams: u64,
    pub events: u64,
    /// Of the file.
    pub sha256: [u8; 32],
    pub archived_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartState {
    /// The file is there and verified; the database still holds all of it.
    Written,
    /// Some of it may be gone from the database.
    Removing,
    /// All of it is.
    Removed,
}

impl PartState {
    const ALL: [Self; 3] = [Self::Written, Self::Removing, Self::Removed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Removing => "removing",
            Self::Removed => "removed",
        }
    }
}

/// A range of positions of a shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, FromRow)]
pub struct Hole {
    pub first: i64,
    pub last: i64,
}

/// A row of `sagas`, with its start key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, FromRow)]
#[serde(deny_unknown_fields)]
pub struct SagaCopy {
    pub id: Uuid,
    pub shard: i32,
    pub definition: String,
    pub definition_version: i64,
    pub mode: String,
    pub status: String,
    pub state: String,
    pub version: i64,
    pub correlation_id: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<JsonText>,
    pub created_at_us: i64,
    pub updated_at_us: i64,
    pub ended_at_us: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deadline_at_us: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wake_at_us: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub start_key: Option<String>,
    /// Of the start key.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "text::hex_bytes")]
    pub fingerprint: Option<Vec<u8>>,
}

/// A row of `streams`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, FromRow)]
#[serde(deny_unknown_fields)]
pub struct StreamCopy {
    pub name: String,
    pub id: Uuid,
    pub shard: i32,
    pub category: String,
    pub version: i64,
    pub created_at_us: i64,
    pub updated_at_us: i64,
}

/// An event, with all that the database holds of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventCopy {
    pub stream: Uuid,
    pub version: i64,
    pub shard: i32,
    pub position: i64,
    pub epoch: i64,
    pub kind: String,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none", default)]
    pub type_name: Option<String>,
    pub occurred_at_us: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actor: Option<String>,
    pub schema_version: i16,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub causation_id: Option<String>,
    pub data: JsonText,
}

/// The row of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copied {
    Saga(Box<SagaCopy>),
    Stream(StreamCopy),
}

impl Copied {
    pub fn id(&self) -> SagaId {
        SagaId::from_uuid(match self {
            Self::Saga(saga) => saga.id,
            Self::Stream(stream) => stream.id,
        })
    }

    pub fn shard(&self) -> i32 {
        match self {
            Self::Saga(saga) => saga.shard,
            Self::Stream(stream) => stream.shard,
        }
    }

    pub fn version(&self) -> i64 {
        match self {
            Self::Saga(saga) => saga.version,
            Self::Stream(stream) => stream.version,
        }
    }
}

/// A stream whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeStream {
    pub row: Copied,
    /// Versions 1..n.
    pub events: Vec<EventCopy>,
}

/// A stream that is to be removed, as it was archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    pub id: SagaId,
    pub version: i64,
    pub is_saga: bool,
}

/// What came of restoring a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    Written,
    /// The same was there already.
    Present,
}

#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process has the lease.
    #[error("another process archives and removes now")]
    Busy,
    /// Somebody changed or needs what was to be removed: nothing was.
    #[error("{0}: nothing of this was removed")]
    Changed(String),
    /// The tables were in use all the time.
    #[error("the tables were in use: nothing of this was removed")]
    InUse,
    /// What is to be restored contradicts what is there: nothing of the stream was written.
    #[error("{0}")]
    Differs(String),
}

/// What retention asks of a database. Every method is one transaction, and safe to repeat.
#[async_trait]
pub trait Retention: Send + Sync + fmt::Debug + 'static {
    fn unit(&self) -> Unit;

    /// Takes the lease, or extends it; false when another holder has it.
    async fn hold_retention(&self, holder: &str, lease: Millis) -> Result<bool, StoreError>;

    async fn let_retention_go(&self, holder: &str) -> Result<(), StoreError>;

    /// Whoever follows the log: consumer groups, relays, and the counts of events.
    async fn needs(&self) -> Result<Vec<Need>, StoreError>;

    /// The streams below this id of which a consumer group holds an event.
    async fn held_streams(&self, before: SagaId) -> Result<HashSet<SagaId>, StoreError>;

    /// Streams with `after < id < before`, by id.
    async fn old_streams(
        &self,
        after: Option<SagaId>,
        before: SagaId,
        limit: u32,
    ) -> Result<Vec<OldStream>, StoreError>;

    /// The rows of these streams, by id.
    async fn copy_rows(&self, ids: &[SagaId]) -> Result<Vec<Copied>, StoreError>;

    /// The events of the next `limit` rows of these streams after a stream's version, by stream and version.
    async fn copy_events(
        &self,
        ids: &[SagaId],
        after: Option<(SagaId, i64)>,
        limit: u32,
    ) -> Result<Vec<EventCopy>, StoreError>;

    /// Every part of the archive, by name.
    async fn parts(&self) -> Result<Vec<Part>, StoreError>;

    /// Whether an id may be of a stream that was removed: it lies among such.
    async fn is_removed(&self, id: SagaId) -> Result<bool, StoreError>;

    /// Notes a part that is written.
    async fn add_part(&self, part: &Part) -> Result<(), StoreError>;

    /// Forgets a part: nothing of it was removed, or all of it is restored.
    async fn forget_part(&self, name: &str) -> Result<(), StoreError>;

    /// Notes that streams of a part are about to be removed.
    async fn begin_removing(&self, name: &str) -> Result<(), StoreError>;

    /// Removes streams of a part that is being removed, a bounded number of rows; answers how many of the streams are
    /// gone, or were before. A stream that has changed since it was archived stays, and counts. To be asked again with
    /// the others.
    async fn remove_some(&self, holder: &str, part: &str, streams: &[Leaving]) -> Result<usize, RetentionError>;

    /// Notes that all of a part is removed.
    async fn end_removing(&self, name: &str) -> Result<(), StoreError>;

    /// The months that can be dropped: each as its first moment. Empty where streams go by themselves.
    async fn droppable_months(&self) -> Result<Vec<Timestamp>, StoreError>;

    /// Drops a month, whose streams are all in these parts with that many events of streams that are no sagas.
    async fn drop_month(
        &self,
        holder: &str,
        month: Timestamp,
        parts: &[String],
        appended: i64,
    ) -> Result<(), RetentionError>;

    /// Writes streams as they were, with the definitions that they need, or finds them there.
    async fn restore(
        &self,
        definitions: &[StoredDefinition],
        streams: &[WholeStream],
    ) -> Result<Vec<Restored>, RetentionError>;
}

/// Positions, ascending, as ranges that do not touch.
pub fn ranges(positions: impl IntoIterator<Item = i64>) -> Vec<Hole> {
    let mut ranges: Vec<Hole> = Vec::new();
    for position in positions {
        match ranges.last_mut() {
            Some(range) if range.last + 1 == position => range.last = position,
            _ => ranges.push(Hole { first: position, last: position }),
        }
    }
    ranges
}
