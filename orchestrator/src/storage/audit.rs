//! Reading a whole database for a check, while others write to it.
//!
//! Nothing here writes or can: connections are opened read-only. Everything comes page by page, each page of one moment,
//! so that neither this process nor the database holds much: on PostgreSQL a snapshot that lasted as long as the whole
//! check would keep vacuum from every row that the service rewrites meanwhile.
//!
//! Rows are handed over as they are found. What cannot be read is a finding for whoever checks, not an error.

use std::fmt;

use async_trait::async_trait;
use skald_core::{
    event::Recorded,
    ids::{Epoch, SagaId, Shard},
    state::SagaRow,
};
use sqlx::{FromRow, types::Uuid};

use super::{
    StoreError, StoredDefinition,
    postgres::PostgresAudit,
    records::{RunRecord, SagaRecord},
    retention::Hole,
    sqlite::SqliteAudit,
};

/// Opens the database that `url` names for reading only.
///
/// # Errors
///
/// When the scheme is neither database's, or the database cannot be opened.
pub async fn open(url: &str) -> Result<Box<dyn Audit>, StoreError> {
    match url.split_once(':') {
        Some(("sqlite", _)) => Ok(Box::new(SqliteAudit::open(url).await?)),
        Some(("postgres" | "postgresql", _)) => Ok(Box::new(PostgresAudit::open(url).await?)),
        _ => Err(StoreError::Url),
    }
}

/// What one shard's row says, and between which positions its events lie; all of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    pub shard: Shard,
    pub epoch: Epoch,
    /// The last position given out, by the row.
    pub head: i64,
    /// The first and the last position that an event has.
    pub found: Option<(i64, i64)>,
}

/// Where an event lies: in its shard's log and in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub shard: i32,
    pub position: i64,
    pub stream: SagaId,
    pub version: i64,
    pub epoch: i64,
}

/// A row of `sagas`. The error is what in it cannot be read.
#[derive(Clone, Debug)]
pub struct FoundSaga {
    pub id: SagaId,
    pub shard: i32,
    pub row: Result<SagaRow, String>,
}

/// One of the events in a row of `events`.
#[derive(Clone, Debug)]
pub struct FoundEvent {
    pub place: Place,
    /// None: of a stream that is no saga. The error is what in it cannot be read.
    pub recorded: Option<Result<Recorded, String>>,
}

/// A row of `start_keys`, and the definition and the shard of the saga that it names, if there is one.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct FoundKey {
    pub definition: String,
    pub key: String,
    pub shard: i32,
    pub saga: Uuid,
    pub saga_definition: Option<String>,
    pub saga_shard: Option<i32>,
}

/// A part of a shard's log.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    pub places: Vec<Place>,
    /// Where retention left nothing, from behind the place before up to the last of these, or to the end that was asked
    /// for when there are no more; ascending.
    pub holes: Vec<Hole>,
}

impl Stretch {
    /// How far the holes of a page go.
    pub(super) fn end(rows: &[PlaceRecord], until: i64, limit: u32) -> i64 {
        rows.last().filter(|_| rows.len() >= limit as usize).map_or(until, |last| last.position)
    }
}

/// A part of a page of sagas.
#[derive(Debug)]
pub enum Found {
    /// Of this stream, whose row is gone, retention is removing the events. Comes before all others.
    Removing(SagaId),
    /// All rows of the page by ascending id. Comes before the events, once.
    Sagas(Vec<FoundSaga>),
    /// The events of the page by stream and version, those of streams without a row among them.
    Event(Box<FoundEvent>),
}

#[async_trait]
pub trait Audit: Send + Sync + fmt::Debug {
    /// Whether the schema is exactly the one this Skald knows.
    async fn check_schema(&self) -> Result<(), StoreError>;

    /// All versions of all definitions.
    async fn definitions(&self) -> Result<Vec<StoredDefinition>, StoreError>;

    /// Every shard, ascending.
    async fn shards(&self) -> Result<Vec<LogBounds>, StoreError>;

    /// The events of the next `limit` rows of a shard's log after `after`, which ends a row (None: from the first), up to
    /// the position `until`; by the position of the last event of each row, and where two rows share one, by stream and
    /// version. With the holes among them, both of one moment.
    async fn places(&self, shard: Shard, after: Option<Place>, until: i64, limit: u32) -> Result<Stretch, StoreError>;

    /// Streams with such ids, of which the database holds none, were removed: from the first to the second.
    async fn removed(&self) -> Result<Vec<(SagaId, SagaId)>, StoreError>;

    /// Visits the next `limit` sagas from the id `from` on, and all events of their streams; one event at a time is in
    /// memory. Answers from where the next page goes on, None after the last one.
    async fn sagas(
        &self,
        from: SagaId,
        limit: u32,
        visit: &mut (dyn FnMut(Found) + Send),
    ) -> Result<Option<SagaId>, StoreError>;

    /// The next start keys after this definition and key.
    async fn start_keys(&self, after: (&str, &str), limit: u32) -> Result<Vec<FoundKey>, StoreError>;
}

#[derive(Debug, FromRow)]
pub(super) struct LogBoundsRecord {
    shard: i32,
    epoch: i64,
    head: i64,
    first: Option<i64>,
    last: Option<i64>,
}

impl TryFrom<LogBoundsRecord> for LogBounds {
    type Error = StoreError;

    fn try_from(record: LogBoundsRecord) -> Result<Self, StoreError> {
        Ok(Self {
            shard: super::records::shard(record.shard)?,
            epoch: Epoch(record.epoch),
            head: record.head,
            found: record.first.zip(record.last),
        })
    }
}

#[derive(Debug, FromRow)]
pub(super) struct PlaceRecord {
    shard: i32,
    position: i64,
    stream: Uuid,
    version: i64,
    epoch: i64,
    events: i16,
}

impl PlaceRecord {
    /// Of each of the row's events.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        let Self { shard, position, stream, version, epoch, events } = *self;
        (0..i64::from(events.max(1))).rev().map(move |behind| Place {
            shard,
            position: position.saturating_sub(behind),
            stream: SagaId::from_uuid(stream),
            version: version.saturating_sub(behind),
            epoch,
        })
    }
}

#[derive(Debug, FromRow)]
pub(super) struct FoundSagaRecord {
    id: Uuid,
    shard: i32,
    #[sqlx(flatten)]
    row: SagaRecord,
}

impl From<FoundSagaRecord> for FoundSaga {
    fn from(record: FoundSagaRecord) -> Self {
        let row = SagaRow::try_from(record.row).map_err(|error| error.to_string());
        Self { id: SagaId::from_uuid(record.id), shard: record.shard, row }
    }
}

#[derive(Debug, FromRow)]
pub(super) struct FoundEventRecord {
    #[sqlx(flatten)]
    place: PlaceRecord,
    #[sqlx(flatten)]
    run: RunRecord,
}

impl FoundEventRecord {
    pub(super) fn found(&self) -> impl Iterator<Item = Found> {
        self.place.places().zip(self.run.recorded()).map(|(place, recorded)| {
            let recorded = self.run.is_of_saga().then(|| recorded.map_err(|error| error.to_string()));
            Found::Event(Box::new(FoundEvent { place, recorded }))
        })
    }
}

/// Where the page after one with these rows begins, and how far this one's events go: to the last row's stream, and to
/// the end of all streams when there are no further rows.
pub(super) fn page_end(rows: &[FoundSaga], limit: u32) -> (Option<SagaId>, Uuid) {
    let last = rows.last().filter(|_| rows.len() >= limit as usize);
    match last.and_then(|last| Some((last.id, last.id.as_uuid().as_u128().checked_add(1)?))) {
        Some((last, next)) => (Some(SagaId::from_uuid(Uuid::from_u128(next))), last.as_uuid()),
        None => (None, Uuid::max()),
    }
}
