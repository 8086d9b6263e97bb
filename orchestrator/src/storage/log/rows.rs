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
    super::{
        StoreError, records,
        runs::{Packed, Part},
    },
    LogEvent, LogFilter, LogPage, among,
    facts::{Facts, FactsRecord, Remembered},
};

/// What [`LogRecord::read`] reads, in its order.
pub const LOG_COLUMNS: &str = "e.position, e.shard, e.stream, e.version, e.events, e.kind, e.type, e.occurred_at_us, \
     e.actor, e.schema_version, e.schema_versions, e.event_id, e.correlation_id, e.causation_id, e.data";

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
    /// Reads the events of a row with [`LOG_COLUMNS`] from the column `first` on; by number, which is cheaper than by name
    /// where it is done for every row of a long log. None of them when the position is NULL.
    pub fn read<'r, R>(row: &'r R, first: usize) -> Result<Vec<Self>, sqlx::Error>
    where
        R: Row,
        usize: ColumnIndex<R>,
        i64: Decode<'r, R::Database> + Type<R::Database>,
        i32: Decode<'r, R::Database> + Type<R::Database>,
        i16: Decode<'r, R::Database> + Type<R::Database>,
        Uuid: Decode<'r, R::Database> + Type<R::Database>,
        &'r str: Decode<'r, R::Database> + Type<R::Database>,
    {
        let Some(position) = row.try_get::<Option<i64>, _>(first)? else { return Ok(Vec::new()) };
        let shard = row.try_get(first + 1)?;
        let stream = row.try_get(first + 2)?;
        let version: i64 = row.try_get(first + 3)?;
        let occurred_at_us = row.try_get(first + 7)?;
        let actor: Option<&str> = row.try_get(first + 8)?;
        let event_id: Option<&str> = row.try_get(first + 11)?;
        let correlation_id: Option<&str> = row.try_get(first + 12)?;
        let causation_id: Option<&str> = row.try_get(first + 13)?;
        let packed = Packed {
            events: row.try_get(first + 4)?,
            kind: row.try_get(first + 5)?,
            type_name: row.try_get(first + 6)?,
            schema_version: row.try_get(first + 9)?,
            schema_versions: row.try_get(first + 10)?,
            data: row.try_get(first + 14)?,
        };
        let record = |part: Option<Part<'r>>| {
            let part = part.ok_or_else(|| sqlx::Error::Decode(records::unreadable_run(stream, version).into()))?;
            Ok(Self {
                position: position.saturating_sub(part.behind),
                shard,
                stream,
                version: version.saturating_sub(part.behind),
                kind: Arc::from(part.kind),
                type_name: part.type_name.map(Arc::from),
                occurred_at_us,
                actor: actor.map(str::to_owned),
                schema_version: part.schema_version,
                event_id: event_id.map(str::to_owned),
                correlation_id: correlation_id.map(str::to_owned),
                causation_id: causation_id.map(str::to_owned),
                data: part.data.to_owned(),
            })
        };
        packed.parts().map(record).collect()
    }

    /// What of a filter the database has not asked each event of a row.
    fn is_taken(&self, filter: &LogFilter) -> bool {
        let type_name = self.type_name.as_ref().unwrap_or(&self.kind);
        among(&filter.types, type_name) && among(&filter.kinds, &self.kind)
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
    /// How far the look went.
    pub looked_to: i64,
    /// The last position that was there to be read.
    pub last: i64,
    /// By position.
    pub records: VecDeque<E>,
}

impl<E> Window<E> {
    /// Up to where nothing was passed over, when what is still among the records is left for the next look.
    fn read_to(&self, taken: Option<i64>) -> i64 {
        if self.records.is_empty() { self.looked_to.max(self.after) } else { taken.unwrap_or(self.after) }
    }
}

impl Window<LogRecord> {
    /// Takes the first `share` events from the rows of a look, of which it was to find at most so many. What lies in them
    /// beyond the look's bounds is not of it.
    pub fn fill(&mut self, rows: Vec<Vec<LogRecord>>, share: usize, filter: &LogFilter) {
        let is_cut = rows.len() >= share;
        if let Some(last) = rows.last().and_then(|row| row.last()).filter(|_| is_cut) {
            self.looked_to = self.looked_to.min(last.position);
        }
        let of_look = |record: &LogRecord| {
            record.position > self.after && record.position <= self.looked_to && record.is_taken(filter)
        };
        self.records = rows.into_iter().flatten().filter(of_look).take(share).collect();
        if let Some(last) = self.records.get(share - 1) {
            self.looked_to = last.position;
        }
    }
}

/// Mixes the windows of several shards by time, each in its own order, to a page of at most `limit` events; what exceeds
/// it is left for the next look.
pub fn mix<E: Placed>(mut windows: Vec<Window<E>>, limit: u32) -> (Vec<E>, LogPage) {
    let mut taken = vec![None; windows.len()];
    let mut mixed =
        Vec::with_capacity(windows.iter().map(|window| window.records.len()).sum::<usize>().min(limit as usize));
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
    for (window, taken) in windows.iter().zip(taken) {
        let read_to = window.read_to(taken);
        page.more |= read_to < window.last;
        page.read_to.insert(window.shard, read_to);
    }
    (mixed, page)
}

/// Versions of a stream as a database takes them: after the first, up to the second. Both leave room for sums.
pub fn bounds((after, until): (u64, Option<u64>)) -> (i64, i64) {
    let version = |version: u64| i64::try_from(version).unwrap_or(i64::MAX).min(i64::MAX / 2);
    (version(after), version(until.unwrap_or(u64::MAX)))
}

/// Of the rows of a stream, the first events between these versions.
pub fn within(rows: Vec<Vec<LogRecord>>, (after, until): (i64, i64), limit: u32) -> Vec<LogRecord> {
    let events = rows.into_iter().flatten();
    events.filter(|event| event.version > after && event.version <= until).take(limit as usize).collect()
}

/// Of these rows the events at these positions, by position.
pub fn at(rows: Vec<Vec<LogRecord>>, positions: &[i64]) -> Vec<LogRecord> {
    let mut events: Vec<_> = rows.into_iter().flatten().filter(|event| positions.contains(&event.position)).collect();
    events.sort_by_key(|event| event.position);
    events.dedup_by_key(|event| event.position);
    events
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
