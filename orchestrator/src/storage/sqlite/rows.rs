//! A batch as statements of a few sizes, prepared once each.
//!
//! Each statement costs a trip to the connection's thread, so rows go together; and each statement that was not seen
//! before must be compiled, so they go together in powers of two.

use std::sync::{Arc, OnceLock};

use skald_core::{
    shard::batch::{Batch, NewEvent, Transition},
    time::Timestamp,
};
use sqlx::{Arguments as _, error::BoxDynError, sqlite::SqliteArguments};

/// The largest chunk has `1 << (SIZES - 1)` rows.
const SIZES: usize = 7;

/// A statement over some rows, or several that take one row each.
#[derive(Debug)]
pub struct Chunk {
    pub sql: Arc<str>,
    pub arguments: SqliteArguments,
    /// How many rows it must change.
    pub rows: usize,
}

/// The texts of one statement in all its sizes.
struct Template {
    /// What precedes the rows, what stands for each, and what parts one from the next.
    head: &'static str,
    row: &'static str,
    separator: &'static str,
    tail: &'static str,
    texts: [OnceLock<Arc<str>>; SIZES],
}

impl Template {
    const fn new(head: &'static str, row: &'static str, separator: &'static str, tail: &'static str) -> Self {
        Self { head, row, separator, tail, texts: [const { OnceLock::new() }; SIZES] }
    }

    fn text(&self, size: usize) -> Arc<str> {
        let make = || {
            let rows = vec![self.row; 1 << size].join(self.separator);
            Arc::from(format!("{}{rows}{}", self.head, self.tail))
        };
        Arc::clone(self.texts[size].get_or_init(make))
    }
}

static CREATED: Template = Template::new(
    "INSERT INTO sagas (id, shard, definition, definition_version, mode, status, state, version, correlation_id,
                        failure, created_at_us, updated_at_us, ended_at_us, deadline_at_us, wake_at_us)
     VALUES ",
    "(?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    ", ",
    "",
);

static UPDATED: Template = Template::new(
    "",
    "UPDATE sagas
     SET status = ?, state = ?, version = ?, failure = ?, updated_at_us = ?, ended_at_us = ?, deadline_at_us = ?,
         wake_at_us = ?
     WHERE id = ? AND version = ?",
    "; ",
    "",
);

/// The head was moved by the same transaction: positions are counted back from it.
static LOGGED: Template = Template::new(
    "INSERT INTO events (position, shard, stream, version, epoch, kind, type, occurred_at_us, actor, data)
     SELECT shards.head - event.column1, 0, event.column2, event.column3, shards.epoch, event.column4, event.column5,
            event.column6, event.column7, event.column8
     FROM shards CROSS JOIN (VALUES ",
    "(?, ?, ?, ?, ?, ?, ?, ?)",
    ", ",
    ") AS event WHERE shards.shard = 0",
);

static KEYED: Template = Template::new(
    "INSERT INTO start_keys (definition, key, shard, saga, fingerprint) VALUES ",
    "(?, ?, 0, ?, ?)",
    ", ",
    "",
);

/// All writes of a batch but the fence's.
pub fn chunks(batch: &Batch) -> Result<Vec<Chunk>, BoxDynError> {
    let created: Vec<&Transition> = batch.transitions.iter().filter(|transition| transition.creates()).collect();
    let updated: Vec<&Transition> = batch.transitions.iter().filter(|transition| !transition.creates()).collect();
    let keyed: Vec<&Transition> = created.iter().copied().filter(|created| created.start_key.is_some()).collect();
    let events: Vec<(&Transition, &NewEvent)> =
        batch.transitions.iter().flat_map(|of| of.events.iter().map(move |event| (of, event))).collect();
    let mut chunks = Vec::new();
    add_chunks(&mut chunks, &CREATED, &created, |row, of| add_created(row, of))?;
    add_chunks(&mut chunks, &UPDATED, &updated, |row, of| add_updated(row, of))?;
    add_chunks(&mut chunks, &KEYED, &keyed, |row, of| add_keyed(row, of))?;
    let mut after = events.len();
    add_chunks(&mut chunks, &LOGGED, &events, |row, (of, event)| {
        after -= 1;
        add_event(row, after, of, event)
    })?;
    Ok(chunks)
}

fn add_chunks<T>(
    chunks: &mut Vec<Chunk>,
    template: &Template,
    mut rows: &[T],
    mut add: impl FnMut(&mut SqliteArguments, &T) -> Result<(), BoxDynError>,
) -> Result<(), BoxDynError> {
    while !rows.is_empty() {
        let size = (rows.len().ilog2() as usize).min(SIZES - 1);
        let (these, rest) = rows.split_at(1 << size);
        let mut arguments = SqliteArguments::default();
        for row in these {
            add(&mut arguments, row)?;
        }
        chunks.push(Chunk { sql: template.text(size), arguments, rows: these.len() });
        rows = rest;
    }
    Ok(())
}

fn add_created(arguments: &mut SqliteArguments, transition: &Transition) -> Result<(), BoxDynError> {
    let row = &transition.row;
    arguments.add(row.id.as_uuid())?;
    arguments.add(Arc::clone(&row.definition))?;
    arguments.add(i64::from(row.definition_version))?;
    arguments.add(row.mode.as_str())?;
    arguments.add(row.status.as_str())?;
    arguments.add(row.state.as_str())?;
    arguments.add(i64::try_from(row.version)?)?;
    arguments.add(Arc::clone(&row.correlation_id))?;
    arguments.add(row.failure.as_ref().map(serde_json::to_string).transpose()?)?;
    arguments.add(row.created_at.as_micros())?;
    arguments.add(row.updated_at.as_micros())?;
    arguments.add(row.ended_at.map(Timestamp::as_micros))?;
    arguments.add(row.deadline_at.map(Timestamp::as_micros))?;
    arguments.add(row.wake_at.map(Timestamp::as_micros))
}

fn add_updated(arguments: &mut SqliteArguments, transition: &Transition) -> Result<(), BoxDynError> {
    let row = &transition.row;
    arguments.add(row.status.as_str())?;
    arguments.add(row.state.as_str())?;
    arguments.add(i64::try_from(row.version)?)?;
    arguments.add(row.failure.as_ref().map(serde_json::to_string).transpose()?)?;
    arguments.add(row.updated_at.as_micros())?;
    arguments.add(row.ended_at.map(Timestamp::as_micros))?;
    arguments.add(row.deadline_at.map(Timestamp::as_micros))?;
    arguments.add(row.wake_at.map(Timestamp::as_micros))?;
    arguments.add(row.id.as_uuid())?;
    arguments.add(i64::try_from(transition.events[0].version)? - 1)
}

fn add_keyed(arguments: &mut SqliteArguments, transition: &Transition) -> Result<(), BoxDynError> {
    let key = transition.start_key.as_ref().ok_or("a keyed start without a key")?;
    arguments.add(Arc::clone(&key.definition))?;
    arguments.add(key.key.as_str())?;
    arguments.add(transition.row.id.as_uuid())?;
    arguments.add(key.fingerprint.as_slice())
}

/// `after`: how many events of the batch come after this one.
fn add_event(
    arguments: &mut SqliteArguments,
    after: usize,
    transition: &Transition,
    event: &NewEvent,
) -> Result<(), BoxDynError> {
    let kind = event.event.kind();
    arguments.add(i64::try_from(after)?)?;
    arguments.add(transition.row.id.as_uuid())?;
    arguments.add(i64::try_from(event.version)?)?;
    arguments.add(kind)?;
    arguments.add((*event.type_name != *kind).then(|| Arc::clone(&event.type_name)))?;
    arguments.add(event.occurred_at.as_micros())?;
    arguments.add(event.actor.clone())?;
    arguments.add(event.event.data())
}
