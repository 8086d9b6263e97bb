//! Counts of events by category and type: counted on from where they were counted before, whenever somebody asks.
//!
//! Counting reads a range of the log and then adds to the sums, if the sums are still where they were when it was read.
//! Whoever was faster counted the same events.

use std::collections::BTreeMap;

use async_trait::async_trait;
use skald_core::ids::Shard;
use sqlx::FromRow;

use super::{
    super::{StoreError, records, runs::type_names},
    EventCount, EventStats,
};

/// How many events are counted for one who asks, at most.
const COUNTED_TOGETHER: i64 = 200_000;

/// Events of one shard that are to be counted: `after < position <= until`.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub shard: Shard,
    pub after: i64,
    pub until: i64,
}

/// How far a shard has been counted.
#[derive(Debug, FromRow)]
pub struct CountedRecord {
    shard: i32,
    head: i64,
    position: i64,
}

/// How many rows hold events of these types.
#[derive(Debug, FromRow)]
pub struct RowsRecord {
    category: String,
    events: i16,
    kind: String,
    #[sqlx(rename = "type")]
    type_name: Option<String>,
    rows: i64,
}

#[derive(Debug, FromRow)]
pub struct CountRecord {
    category: String,
    #[sqlx(rename = "type")]
    type_name: String,
    events: i64,
}

impl CountRecord {
    pub fn category(&self) -> &str {
        &self.category
    }

    pub fn type_name(&self) -> &str {
        &self.type_name
    }

    pub const fn events(&self) -> i64 {
        self.events
    }
}

/// Each is one statement, or one transaction.
#[async_trait]
pub trait CountRows: Send + Sync {
    async fn counted(&self) -> Result<Vec<CountedRecord>, StoreError>;

    /// A row is in the range that its last event is in.
    async fn count(&self, range: Range) -> Result<Vec<RowsRecord>, StoreError>;

    /// Adds to the sums, unless the range was counted before.
    async fn add(&self, range: Range, counts: Vec<CountRecord>) -> Result<(), StoreError>;

    async fn sums(&self) -> Result<Vec<CountRecord>, StoreError>;

    async fn bytes(&self) -> Result<i64, StoreError>;
}

pub async fn stats<S: CountRows>(store: &S) -> Result<EventStats, StoreError> {
    let mut room = COUNTED_TOGETHER;
    for CountedRecord { shard, head, position } in store.counted().await? {
        let range = Range { shard: records::shard(shard)?, after: position, until: head.min(position + room) };
        if range.until > range.after {
            let counts = sums(&store.count(range).await?);
            store.add(range, counts).await?;
            room -= range.until - range.after;
        }
    }
    let mut heads = BTreeMap::new();
    let mut uncounted = 0;
    for CountedRecord { shard, head, position } in store.counted().await? {
        heads.insert(records::shard(shard)?, head);
        uncounted += u64::try_from(head - position).unwrap_or(0);
    }
    let mut counts = store.sums().await?.into_iter().map(count).collect::<Vec<_>>();
    counts.sort_by(|a, b| (&a.category, &a.type_name).cmp(&(&b.category, &b.type_name)));
    let bytes = u64::try_from(store.bytes().await?).unwrap_or(0);
    Ok(EventStats { heads, counts, uncounted, bytes })
}

fn sums(rows: &[RowsRecord]) -> Vec<CountRecord> {
    let mut sums: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for record in rows {
        for type_name in type_names(record.events, &record.kind, record.type_name.as_deref()) {
            *sums.entry((&record.category, type_name)).or_default() += record.rows;
        }
    }
    let count = |((category, type_name), events): ((&str, &str), i64)| CountRecord {
        category: category.to_owned(),
        type_name: type_name.to_owned(),
        events,
    };
    sums.into_iter().map(count).collect()
}

fn count(record: CountRecord) -> EventCount {
    let CountRecord { category, type_name, events } = record;
    EventCount { category, type_name, events: u64::try_from(events).unwrap_or(0) }
}
