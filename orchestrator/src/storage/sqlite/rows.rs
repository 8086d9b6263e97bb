//! A batch as the parameters of one text of statements: a JSON array per table, with an array per row, so that a batch of
//! any size is the same text.
//!
//! Each text costs a trip to the connection's thread and back, and one that was not seen before must be compiled. Taking
//! the rows apart costs less, by `jsonb_each`: what it gives for a row is parsed already, where `json_each` would write
//! it out as text for each `->>` to look up in that again. Of the events, which are most rows and most bytes, the streams
//! and the data lie end to end outside of the JSON, to be cut out as they are.

use serde::{Serialize, Serializer};
use skald_core::{
    ids::SagaId,
    shard::batch::{APPENDED, Append, AppendedEvent, Batch, NewEvent, Transition},
    time::Timestamp,
};
use sqlx::{Arguments as _, error::BoxDynError, sqlite::SqliteArguments, types::Uuid};

use super::super::log::category;
use crate::hex;

/// Begins a transaction and writes a batch. The first of its statements to write moves the head under the fence, and
/// returns it if the shard is still held; what the others change is to be as many rows as they were given, see
/// [`Writes::rows`]. The events' positions are counted back from the head.
///
/// Sagas are written in two ways: what is created is inserted, what goes on is updated at the version that it was at. So
/// are streams. Sagas that are sealed are as many rows as there are keys that live.
///
/// Parameters are named: of those that are numbered, sqlx mistakes the gaps that a statement leaves for more of them.
pub const WRITE: &str = "
BEGIN IMMEDIATE;
UPDATE shards SET head = head + $1 WHERE shard = 0 AND epoch = $2 RETURNING head;
INSERT INTO sagas (id, shard, definition, definition_version, mode, status, state, version, correlation_id,
                   failure, created_at_us, updated_at_us, ended_at_us, deadline_at_us, wake_at_us)
SELECT unhex(value ->> 0), 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
       value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13
FROM jsonb_each($3);
UPDATE sagas
SET status = row.value ->> 2, state = row.value ->> 3, version = row.value ->> 4, failure = row.value ->> 5,
    updated_at_us = row.value ->> 6, ended_at_us = row.value ->> 7, deadline_at_us = row.value ->> 8,
    wake_at_us = row.value ->> 9
FROM jsonb_each($4) AS row
WHERE sagas.id = unhex(row.value ->> 0) AND sagas.version = row.value ->> 1;
INSERT INTO start_keys (definition, key, shard, saga, fingerprint)
SELECT value ->> 0, value ->> 1, 0, unhex(value ->> 2), unhex(value ->> 3)
FROM jsonb_each($5);
INSERT INTO saga_subjects (key_id, saga)
SELECT subject_keys.id, unhex(row.value ->> 1)
FROM jsonb_each($6) AS row
JOIN subject_keys ON subject_keys.id = row.value ->> 0 AND subject_keys.key IS NOT NULL;
INSERT INTO streams (name, id, shard, category, version, created_at_us, updated_at_us)
SELECT value ->> 0, unhex(value ->> 1), 0, value ->> 2, value ->> 3, value ->> 4, value ->> 4
FROM jsonb_each($7);
UPDATE streams
SET version = row.value ->> 3, updated_at_us = row.value ->> 4
FROM jsonb_each($8) AS row
WHERE streams.name = row.value ->> 0 AND streams.id = unhex(row.value ->> 1) AND streams.version = row.value ->> 2;
INSERT INTO events (position, shard, stream, version, epoch, kind, type, occurred_at_us, actor, data, schema_version,
                    event_id, correlation_id, causation_id)
SELECT shards.head - $1 + 1 + row.key, 0, substr($9, 1 + 16 * row.key, 16), row.value ->> 0, shards.epoch,
       row.value ->> 1, row.value ->> 2, row.value ->> 3, row.value ->> 4,
       CAST(substr($10, 1 + (row.value ->> 5), row.value ->> 6) AS TEXT), row.value ->> 7, row.value ->> 8,
       row.value ->> 9, row.value ->> 10
FROM shards CROSS JOIN jsonb_each($11) AS row
WHERE shards.shard = 0
";

/// What [`WRITE`] is to be run with, and what it must do.
#[derive(Debug)]
pub struct Writes {
    pub arguments: SqliteArguments,
    /// How many rows each of its statements after the fence must change, in their order.
    pub rows: [usize; 7],
}

/// All writes of a batch.
pub fn writes(batch: &Batch) -> Result<Writes, BoxDynError> {
    let created = || batch.transitions.iter().filter(|transition| transition.creates());
    let updated = batch.transitions.iter().filter(|transition| !transition.creates());
    let begun = batch.appends.iter().filter(|append| append.version_before == 0);
    let continued = batch.appends.iter().filter(|append| append.version_before > 0);
    let mut events = Events::with_capacity(batch.event_count());
    for transition in &batch.transitions {
        for event in &transition.events {
            events.push(transition, event)?;
        }
    }
    for append in &batch.appends {
        for event in &append.events {
            events.push_appended(append, event)?;
        }
    }

    let mut arguments = SqliteArguments::default();
    arguments.add(i64::try_from(batch.event_count())?)?;
    arguments.add(batch.fences[0].epoch.0)?;
    let rows = [
        add(&mut arguments, created().map(created_row))?,
        add(&mut arguments, updated.map(updated_row))?,
        add(&mut arguments, created().filter_map(key_row))?,
        add(&mut arguments, created().filter_map(sealed_row))?,
        add(&mut arguments, begun.map(begun_row))?,
        add(&mut arguments, continued.map(continued_row))?,
        events.rows.len(),
    ];
    arguments.add(events.streams)?;
    arguments.add(events.data)?;
    arguments.add(serde_json::to_string(&events.rows)?)?;
    Ok(Writes { arguments, rows })
}

/// Adds rows as one parameter; says how many.
fn add(
    arguments: &mut SqliteArguments,
    rows: impl Iterator<Item = Result<impl Serialize, BoxDynError>>,
) -> Result<usize, BoxDynError> {
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    arguments.add(serde_json::to_string(&rows)?)?;
    Ok(rows.len())
}

/// A name of a saga or a stream as digits: JSON has no bytes.
struct Id(SagaId);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_uuid().simple().encode_lower(&mut Uuid::encode_buffer()))
    }
}

fn created_row(transition: &Transition) -> Result<impl Serialize, BoxDynError> {
    let row = &transition.row;
    Ok((
        Id(row.id),
        &*row.definition,
        row.definition_version,
        row.mode.as_str(),
        row.status.as_str(),
        row.state.as_str(),
        row.version,
        &*row.correlation_id,
        row.failure.as_ref().map(serde_json::to_string).transpose()?,
        row.created_at.as_micros(),
        row.updated_at.as_micros(),
        row.ended_at.map(Timestamp::as_micros),
        row.deadline_at.map(Timestamp::as_micros),
        row.wake_at.map(Timestamp::as_micros),
    ))
}

fn updated_row(transition: &Transition) -> Result<impl Serialize, BoxDynError> {
    let row = &transition.row;
    Ok((
        Id(row.id),
        transition.events[0].version - 1,
        row.status.as_str(),
        row.state.as_str(),
        row.version,
        row.failure.as_ref().map(serde_json::to_string).transpose()?,
        row.updated_at.as_micros(),
        row.ended_at.map(Timestamp::as_micros),
        row.deadline_at.map(Timestamp::as_micros),
        row.wake_at.map(Timestamp::as_micros),
    ))
}

fn key_row(transition: &Transition) -> Option<Result<impl Serialize, BoxDynError>> {
    let key = transition.start_key.as_ref()?;
    Some(Ok((&*key.definition, key.key.as_str(), Id(transition.row.id), hex::encode(&key.fingerprint))))
}

fn sealed_row(transition: &Transition) -> Option<Result<impl Serialize, BoxDynError>> {
    Some(Ok((transition.sealed_under.as_deref()?, Id(transition.row.id))))
}

fn begun_row(append: &Append) -> Result<impl Serialize, BoxDynError> {
    let last = last(append)?;
    Ok((&*append.name, Id(append.stream), category(&append.name), last.version, last.occurred_at.as_micros()))
}

fn continued_row(append: &Append) -> Result<impl Serialize, BoxDynError> {
    let last = last(append)?;
    Ok((&*append.name, Id(append.stream), append.version_before, last.version, last.occurred_at.as_micros()))
}

fn last(append: &Append) -> Result<&AppendedEvent, BoxDynError> {
    append.events.last().ok_or_else(|| "an append without events".into())
}

/// The events of a batch, in the order of their positions.
struct Events<'a> {
    /// Of each event the bytes of its stream's id.
    streams: Vec<u8>,
    /// Of each event its data.
    data: Vec<u8>,
    rows: Vec<EventRow<'a>>,
}

/// Version, kind, type, time, actor, where its data begins and of how many bytes it is, schema version, event id,
/// correlation id, causation id.
type EventRow<'a> = (
    u64,
    &'a str,
    Option<&'a str>,
    i64,
    Option<&'a str>,
    usize,
    usize,
    i16,
    Option<&'a str>,
    Option<&'a str>,
    Option<&'a str>,
);

impl<'a> Events<'a> {
    fn with_capacity(events: usize) -> Self {
        Self { streams: Vec::with_capacity(16 * events), data: Vec::new(), rows: Vec::with_capacity(events) }
    }

    fn push(&mut self, of: &Transition, event: &'a NewEvent) -> Result<(), BoxDynError> {
        let kind = event.event.kind();
        let (start, length) = self.lay_down(of.row.id, &event.event.data());
        self.rows.push((
            event.version,
            kind,
            (*event.type_name != *kind).then_some(&*event.type_name),
            event.occurred_at.as_micros(),
            event.actor.as_deref(),
            start,
            length,
            i16::try_from(event.event.schema_version())?,
            event.origin.event_id.as_deref(),
            None,
            event.origin.causation_id.as_deref(),
        ));
        Ok(())
    }

    fn push_appended(&mut self, to: &Append, event: &'a AppendedEvent) -> Result<(), BoxDynError> {
        let (start, length) = self.lay_down(to.stream, event.data.get());
        self.rows.push((
            event.version,
            APPENDED,
            Some(&event.type_name),
            event.occurred_at.as_micros(),
            event.actor.as_deref(),
            start,
            length,
            i16::try_from(event.schema_version)?,
            Some(&event.event_id),
            event.correlation_id.as_deref(),
            event.causation_id.as_deref(),
        ));
        Ok(())
    }

    /// Says where the data lies now, and how long it is.
    fn lay_down(&mut self, stream: SagaId, data: &str) -> (usize, usize) {
        let start = self.data.len();
        self.streams.extend_from_slice(stream.as_uuid().as_bytes());
        self.data.extend_from_slice(data.as_bytes());
        (start, data.len())
    }
}
