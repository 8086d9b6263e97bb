//! A batch as statements of a few sizes, prepared once each.
//!
//! Each statement costs a trip to the connection's thread, so rows go together; and each statement that was not seen
//! before must be compiled, so they go together in powers of two.

use std::sync::{Arc, OnceLock};

use skald_core::{
    shard::batch::{APPENDED, Append, AppendedEvent, Batch, NewEvent, Transition},
    time::Timestamp,
};
use sqlx::{Arguments as _, error::BoxDynError, sqlite::SqliteArguments};

use super::super::{log::category, wellformed};

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
    "INSERT INTO events (position, shard, stream, version, epoch, kind, type, occurred_at_us, actor, data,
                         schema_version)
     SELECT shards.head - event.column1, 0, event.column2, event.column3, shards.epoch, event.column4, event.column5,
            event.column6, event.column7, event.column8, event.column9
     FROM shards CROSS JOIN (VALUES ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?)",
    ", ",
    ") AS event WHERE shards.shard = 0",
);

/// As [`LOGGED`], for events that came from outside.
static LOGGED_FROM_OUTSIDE: Template = Template::new(
    "INSERT INTO events (position, shard, stream, version, epoch, kind, type, occurred_at_us, actor, data,
                         schema_version, event_id, correlation_id, causation_id)
     SELECT shards.head - event.column1, 0, event.column2, event.column3, shards.epoch, event.column4, event.column5,
            event.column6, event.column7, event.column8, event.column9, event.column10, event.column11, event.column12
     FROM shards CROSS JOIN (VALUES ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    ", ",
    ") AS event WHERE shards.shard = 0",
);

static BEGUN: Template = Template::new(
    "INSERT INTO streams (name, id, shard, category, version, created_at_us, updated_at_us) VALUES ",
    "(?, ?, 0, ?, ?, ?, ?)",
    ", ",
    "",
);

static CONTINUED: Template = Template::new(
    "",
    "UPDATE streams SET version = ?, updated_at_us = ? WHERE name = ? AND id = ? AND version = ?",
    "; ",
    "",
);

static KEYED: Template = Template::new(
    "INSERT INTO start_keys (definition, key, shard, saga, fingerprint) VALUES ",
    "(?, ?, 0, ?, ?)",
    ", ",
    "",
);

/// As many rows as there are keys that live.
static SEALED: Template = Template::new(
    "INSERT INTO saga_subjects (key_id, saga)
     SELECT subject_keys.id, sealed.column2
     FROM (VALUES ",
    "(?, ?)",
    ", ",
    ") AS sealed
     JOIN subject_keys ON subject_keys.id = sealed.column1 AND subject_keys.key IS NOT NULL",
);

/// All writes of a batch but the fence's.
pub fn chunks(batch: &Batch) -> Result<Vec<Chunk>, BoxDynError> {
    let created: Vec<&Transition> = batch.transitions.iter().filter(|transition| transition.creates()).collect();
    let updated: Vec<&Transition> = batch.transitions.iter().filter(|transition| !transition.creates()).collect();
    let keyed: Vec<&Transition> = created.iter().copied().filter(|created| created.start_key.is_some()).collect();
    let sealed: Vec<&Transition> = created.iter().copied().filter(|created| created.sealed_under.is_some()).collect();
    let (begun, continued): (Vec<&Append>, Vec<&Append>) =
        batch.appends.iter().partition(|append| append.version_before == 0);
    let of_sagas = batch.transitions.iter().flat_map(|of| of.events.iter().map(move |event| Logged::Own(of, event)));
    let appended = batch.appends.iter().flat_map(|to| to.events.iter().map(move |event| Logged::Appended(to, event)));
    let events: Vec<Logged> = of_sagas.chain(appended).collect();
    let from_outside = wellformed::is_from_outside(batch);
    let logged = if from_outside { &LOGGED_FROM_OUTSIDE } else { &LOGGED };
    let mut chunks = Vec::new();
    add_chunks(&mut chunks, &CREATED, &created, |row, of| add_created(row, of))?;
    add_chunks(&mut chunks, &UPDATED, &updated, |row, of| add_updated(row, of))?;
    add_chunks(&mut chunks, &KEYED, &keyed, |row, of| add_keyed(row, of))?;
    add_chunks(&mut chunks, &SEALED, &sealed, |row, of| add_sealed(row, of))?;
    add_chunks(&mut chunks, &BEGUN, &begun, |row, to| add_begun(row, to))?;
    add_chunks(&mut chunks, &CONTINUED, &continued, |row, to| add_continued(row, to))?;
    let mut after = events.len();
    add_chunks(&mut chunks, logged, &events, |row, event| {
        after -= 1;
        event.add(row, after)?;
        if from_outside { event.add_origin(row) } else { Ok(()) }
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

fn add_sealed(arguments: &mut SqliteArguments, transition: &Transition) -> Result<(), BoxDynError> {
    arguments.add(transition.sealed_under.clone())?;
    arguments.add(transition.row.id.as_uuid())
}

fn add_begun(arguments: &mut SqliteArguments, append: &Append) -> Result<(), BoxDynError> {
    let last = last(append)?;
    arguments.add(Arc::clone(&append.name))?;
    arguments.add(append.stream.as_uuid())?;
    arguments.add(category(&append.name).to_owned())?;
    arguments.add(i64::try_from(last.version)?)?;
    arguments.add(last.occurred_at.as_micros())?;
    arguments.add(last.occurred_at.as_micros())
}

fn add_continued(arguments: &mut SqliteArguments, append: &Append) -> Result<(), BoxDynError> {
    let last = last(append)?;
    arguments.add(i64::try_from(last.version)?)?;
    arguments.add(last.occurred_at.as_micros())?;
    arguments.add(Arc::clone(&append.name))?;
    arguments.add(append.stream.as_uuid())?;
    arguments.add(i64::try_from(append.version_before)?)
}

fn last(append: &Append) -> Result<&AppendedEvent, BoxDynError> {
    append.events.last().ok_or_else(|| "an append without events".into())
}

/// An event on its way into the log.
enum Logged<'a> {
    Own(&'a Transition, &'a NewEvent),
    Appended(&'a Append, &'a AppendedEvent),
}

impl Logged<'_> {
    /// `after`: how many events of the batch come after this one.
    fn add(&self, arguments: &mut SqliteArguments, after: usize) -> Result<(), BoxDynError> {
        arguments.add(i64::try_from(after)?)?;
        match self {
            Self::Own(of, event) => {
                let kind = event.event.kind();
                arguments.add(of.row.id.as_uuid())?;
                arguments.add(i64::try_from(event.version)?)?;
                arguments.add(kind)?;
                arguments.add((*event.type_name != *kind).then(|| Arc::clone(&event.type_name)))?;
                arguments.add(event.occurred_at.as_micros())?;
                arguments.add(event.actor.clone())?;
                arguments.add(event.event.data())?;
                arguments.add(i16::try_from(event.event.schema_version())?)
            }
            Self::Appended(to, event) => {
                arguments.add(to.stream.as_uuid())?;
                arguments.add(i64::try_from(event.version)?)?;
                arguments.add(APPENDED)?;
                arguments.add(Arc::clone(&event.type_name))?;
                arguments.add(event.occurred_at.as_micros())?;
                arguments.add(event.actor.clone())?;
                arguments.add(event.data.get().to_owned())?;
                arguments.add(i16::try_from(event.schema_version)?)
            }
        }
    }

    fn add_origin(&self, arguments: &mut SqliteArguments) -> Result<(), BoxDynError> {
        match self {
            Self::Own(_, event) => {
                arguments.add(event.origin.event_id.clone())?;
                arguments.add(None::<&str>)?;
                arguments.add(event.origin.causation_id.clone())
            }
            Self::Appended(_, event) => {
                arguments.add(Arc::clone(&event.event_id))?;
                arguments.add(event.correlation_id.clone())?;
                arguments.add(event.causation_id.clone())
            }
        }
    }
}
