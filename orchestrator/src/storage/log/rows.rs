//! Rows of `events` and their way to whoever reads the log; what the two databases share of it.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::Arc,
};

use serde_json::value::RawValue;
use skald_core::{
    event::upcast,
    ids::{SagaId, Shard},
    shard::batch::APPENDED,
    time::Timestamp,
};
use sqlx::{ColumnIndex, Decode, Row, Type, types::Uuid};

use super::{
    super::{StoreError, records},
    LogEvent, LogPage,
    facts::{Facts, FactsRecord, Remembered},
};

/// The columns of a [`LogRecord`], in its order.
pub const LOG_COLUMNS: &str = "e.position, e.shard, e.stream, e.version, e.kind, e.type, e.occurred_at_us, e.actor, \
     e.schema_version, e.event_id, e.correlation_id, e.causation_id, e.data";

#[derive(Debug)]
pub struct LogRecord {
    pub position: i64,
    pub shard: i32,
    pub stream: Uuid,
    version: i64,
    kind: Arc<str>,
    type_name: Option<Arc<str>>,
    pub occurred_at_us: i64,
    actor: Option<String>,
    schema_version: i16,
    event_id: Option<String>,
    correlation_id: Option<String>,
    causation_id: Option<String>,
    data: String,
}

impl LogRecord {
    /// Reads [`LOG_COLUMNS`] from the column `first` on; by number, which is cheaper than by name where it is done for
    /// every event of a long log. None when the position is NULL.
    pub fn read<'r, R>(row: &'r R, first: usize) -> Result<Option<Self>, sqlx::Error>
    where
        R: Row,
        usize: ColumnIndex<R>,
        i64: Decode<'r, R::Database> + Type<R::Database>,
        i32: Decode<'r, R::Database> + Type<R::Database>,
        i16: Decode<'r, R::Database> + Type<R::Database>,
        Uuid: Decode<'r, R::Database> + Type<R::Database>,
        &'r str: Decode<'r, R::Database> + Type<R::Database>,
        String: Decode<'r, R::Database> + Type<R::Database>,
    {
        let Some(position) = row.try_get::<Option<i64>, _>(first)? else { return Ok(None) };
        Ok(Some(Self {
            position,
            shard: row.try_get(first + 1)?,
            stream: row.try_get(first + 2)?,
            version: row.try_get(first + 3)?,
            kind: Arc::from(row.try_get::<&str, _>(first + 4)?),
            type_name: row.try_get::<Option<&str>, _>(first + 5)?.map(Arc::from),
            occurred_at_us: row.try_get(first + 6)?,
            actor: row.try_get(first + 7)?,
            schema_version: row.try_get(first + 8)?,
            event_id: row.try_get(first + 9)?,
            correlation_id: row.try_get(first + 10)?,
            causation_id: row.try_get(first + 11)?,
            data: row.try_get(first + 12)?,
        }))
    }

    pub fn stream(&self) -> SagaId {
        SagaId::from_uuid(self.stream)
    }

    fn is_of_saga(&self) -> bool {
        *self.kind != *APPENDED
    }

    fn into_event(self, facts: Facts) -> Result<LogEvent, StoreError> {
        let stream = self.stream();
        let unreadable =
            |what: &str| StoreError::Unreadable(format!("stream {stream}, event {}: {what}", self.version));
        let written = u16::try_from(self.schema_version).map_err(|_| unreadable("its form"))?;
        let newest = upcast::newest(&self.kind);
        // A form that is newer than this Skald is handed on as it was written: whoever reads the log may know it.
        let (schema_version, data) = if self.is_of_saga() && written < newest {
            let data =
                upcast::upcast(&self.kind, written, &self.data).map_err(|error| unreadable(&error.to_string()))?;
            (newest, data.into_owned())
        } else {
            (written, self.data)
        };
        Ok(LogEvent {
            shard: records::shard(self.shard)?,
            position: self.position,
            stream,
            name: facts.name,
            version: u64::try_from(self.version).map_err(|_| unreadable("its version"))?,
            type_name: self.type_name.unwrap_or_else(|| Arc::clone(&self.kind)),
            occurred_at: Timestamp::from_micros(self.occurred_at_us),
            actor: self.actor.map(Arc::from),
            schema_version,
            event_id: self.event_id.map(Arc::from),
            correlation_id: self.correlation_id.map(Arc::from).or(facts.correlation_id),
            causation_id: self.causation_id.map(Arc::from),
            definition: facts.definition,
            mode: facts.mode,
            data: RawValue::from_string(data).map_err(|error| unreadable(&error.to_string()))?,
            kind: self.kind,
        })
    }
}

/// Where an event is, and when it occurred.
pub trait Placed {
    fn position(&self) -> i64;

    fn occurred_at_us(&self) -> i64;
}

impl Placed for LogRecord {
    fn position(&self) -> i64 {
        self.position
    }

    fn occurred_at_us(&self) -> i64 {
        self.occurred_at_us
    }
}

/// What one look found in one shard.
#[derive(Debug)]
pub struct Window<E> {
    pub shard: Shard,
    pub after: i64,
    /// How far the look went, unless it stopped at `share` events.
    pub looked_to: i64,
    /// The last position that was there to be read.
    pub last: i64,
    pub share: i64,
    /// By position.
    pub records: VecDeque<E>,
}

impl<E> Window<E> {
    /// Up to where nothing was passed over, when what is still among the records is left for the next look.
    fn read_to(&self, taken: Option<i64>, found: usize) -> i64 {
        if !self.records.is_empty() || i64::try_from(found).unwrap_or(i64::MAX) >= self.share {
            return taken.unwrap_or(self.after);
        }
        self.looked_to.max(self.after)
    }
}

/// Mixes the windows of several shards by time, each in its own order, to a page of at most `limit` events; what exceeds
/// it is left for the next look.
pub fn mix<E: Placed>(mut windows: Vec<Window<E>>, limit: u32) -> (Vec<E>, LogPage) {
    let found: Vec<usize> = windows.iter().map(|window| window.records.len()).collect();
    let mut taken = vec![None; windows.len()];
    let mut mixed = Vec::with_capacity(found.iter().sum::<usize>().min(limit as usize));
    let first = |number: usize, window: &Window<E>| {
        window.records.front().map(|record| Reverse((record.occurred_at_us(), number)))
    };
    let mut next: BinaryHeap<_> =
        windows.iter().enumerate().filter_map(|(number, window)| first(number, window)).collect();
    while mixed.len() < limit as usize {
        let Some(Reverse((_, number))) = next.pop() else { break };
        let record = windows[number].records.pop_front().expect("a window is next only while it has records");
        taken[number] = Some(record.position());
        mixed.push(record);
        next.extend(first(number, &windows[number]));
    }
    let mut page = LogPage::default();
    for ((window, taken), found) in windows.iter().zip(taken).zip(found) {
        let read_to = window.read_to(taken, found);
        page.more |= read_to < window.last;
        page.read_to.insert(window.shard, read_to);
    }
    (mixed, page)
}

/// Adds to each event what is known of its stream, and asks for what is not.
pub async fn complete(
    remembered: &Remembered,
    records: Vec<LogRecord>,
    ask: impl AsyncFnOnce(Unknown) -> Result<Vec<FactsRecord>, StoreError>,
) -> Result<Vec<LogEvent>, StoreError> {
    let mut known = remembered.of(records.iter().map(LogRecord::stream));
    let unknown = Unknown::among(&records, &known);
    if !unknown.is_empty() {
        let learned = ask(unknown).await?.into_iter().map(TryInto::try_into);
        let learned: Vec<(SagaId, Facts)> = learned.collect::<Result<_, _>>()?;
        known.extend(learned.iter().cloned());
        remembered.learn(learned);
    }
    let with_facts = |record: LogRecord| {
        let facts = known.get(&record.stream()).cloned().unwrap_or_default();
        record.into_event(facts)
    };
    records.into_iter().map(with_facts).collect()
}

/// Streams of which nothing is remembered, ascending, each once.
#[derive(Debug, Default)]
pub struct Unknown {
    pub sagas: Vec<Uuid>,
    pub others: Vec<Uuid>,
}

impl Unknown {
    fn among(records: &[LogRecord], known: &HashMap<SagaId, Facts>) -> Self {
        let mut unknown = Self::default();
        for record in records.iter().filter(|record| !known.contains_key(&record.stream())) {
            if record.is_of_saga() { unknown.sagas.push(record.stream) } else { unknown.others.push(record.stream) }
        }
        for ids in [&mut unknown.sagas, &mut unknown.others] {
            ids.sort_unstable();
            ids.dedup();
        }
        unknown
    }

    const fn is_empty(&self) -> bool {
        self.sagas.is_empty() && self.others.is_empty()
    }
}
