//! The rows of a batch.

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Params, params};
use skald_core::{
    shard::batch::{APPENDED, Append, AppendedEvent, Batch, CommitError, Transition},
    time::Timestamp,
};

use super::{
    super::{
        log::category,
        runs::{Run, runs},
    },
    SHARD,
    commit::not_written,
};

/// Moves the head under the fence, and answers it if the shard is still held.
pub const FENCE: &str = "UPDATE shards SET head = head + ?1 WHERE shard = 0 AND epoch = ?2 RETURNING head";

const CREATE: &str = "
INSERT INTO sagas (id, shard, definition, definition_version, mode, status, state, version, correlation_id, failure,
                   created_at_us, updated_at_us, ended_at_us, deadline_at_us, wake_at_us)
VALUES (?1, 0, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

/// At the version that it was at.
pub const GO_ON: &str = "
UPDATE sagas
SET status = ?3, state = ?4, version = ?5, failure = ?6, updated_at_us = ?7, ended_at_us = ?8, deadline_at_us = ?9,
    wake_at_us = ?10
WHERE id = ?1 AND version = ?2";

const KEY: &str = "INSERT INTO start_keys (definition, key, shard, saga, fingerprint) VALUES (?1, ?2, 0, ?3, ?4)";

/// If the key lives.
pub const SEAL: &str = "
INSERT INTO saga_subjects (key_id, saga) SELECT id, ?2 FROM subject_keys WHERE id = ?1 AND key IS NOT NULL";

const BEGIN_STREAM: &str = "
INSERT INTO streams (name, id, shard, category, version, created_at_us, updated_at_us)
VALUES (?1, ?2, 0, ?3, ?4, ?5, ?5)";

pub const CONTINUE_STREAM: &str =
    "UPDATE streams SET version = ?4, updated_at_us = ?5 WHERE name = ?1 AND id = ?2 AND version = ?3";

const EVENT: &str = "
INSERT INTO events (position, shard, stream, version, epoch, events, kind, type, occurred_at_us, actor, data,
                    schema_version, schema_versions, event_id, correlation_id, causation_id)
VALUES (?1, 0, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";

/// Writes them in the transaction that is open, and checks that each is where it should be.
pub fn write(connection: &Connection, batch: &Batch) -> Result<(), CommitError> {
    let events: i64 = integer(batch.event_count())?;
    let epoch = batch.fences[0].epoch.0;
    let head = prepare(connection, FENCE)?.query_one(params![events, epoch], |row| row.get::<_, i64>(0)).optional();
    let Some(head) = head.map_err(not_written)? else { return Err(CommitError::Fenced(vec![SHARD])) };
    sagas(connection, batch)?;
    streams(connection, batch)?;
    let mut log = Log { insert: prepare(connection, EVENT)?, position: head - events, epoch };
    for transition in &batch.transitions {
        for run in runs(transition) {
            log.add(transition, &run)?;
        }
    }
    for append in &batch.appends {
        for event in &append.events {
            log.add_appended(append, event)?;
        }
    }
    Ok(())
}

fn sagas(connection: &Connection, batch: &Batch) -> Result<(), CommitError> {
    let (mut create, mut go_on) = (prepare(connection, CREATE)?, prepare(connection, GO_ON)?);
    for transition in &batch.transitions {
        let row = &transition.row;
        let id = row.id.as_uuid();
        let id = &id.as_bytes()[..];
        let failure = row.failure.as_ref().map(serde_json::to_string).transpose();
        let failure = failure.map_err(|error| CommitError::Refused(error.to_string()))?;
        let [ended_at, deadline_at, wake_at] =
            [row.ended_at, row.deadline_at, row.wake_at].map(|at| at.map(Timestamp::as_micros));
        if !transition.creates() {
            let expected = integer::<i64>(transition.events[0].version - 1)?;
            one(
                &mut go_on,
                params![
                    id,
                    expected,
                    row.status.as_str(),
                    row.state.as_str(),
                    integer::<i64>(row.version)?,
                    failure,
                    row.updated_at.as_micros(),
                    ended_at,
                    deadline_at,
                    wake_at,
                ],
            )?;
            continue;
        }
        one(
            &mut create,
            params![
                id,
                &*row.definition,
                integer::<i64>(row.definition_version)?,
                row.mode.as_str(),
                row.status.as_str(),
                row.state.as_str(),
                integer::<i64>(row.version)?,
                &*row.correlation_id,
                failure,
                row.created_at.as_micros(),
                row.updated_at.as_micros(),
                ended_at,
                deadline_at,
                wake_at,
            ],
        )?;
        if let Some(key) = &transition.start_key {
            one(&mut prepare(connection, KEY)?, params![&*key.definition, key.key, id, &key.fingerprint[..]])?;
        }
        if let Some(key_id) = &transition.sealed_under {
            one(&mut prepare(connection, SEAL)?, params![&**key_id, id])?;
        }
    }
    Ok(())
}

fn streams(connection: &Connection, batch: &Batch) -> Result<(), CommitError> {
    for append in &batch.appends {
        let id = append.stream.as_uuid();
        let id = &id.as_bytes()[..];
        let Some(last) = append.events.last() else {
            return Err(CommitError::Refused("an append without events".to_owned()));
        };
        let (version, at) = (integer::<i64>(last.version)?, last.occurred_at.as_micros());
        match append.version_before {
            0 => {
                let row = params![&*append.name, id, category(&append.name), version, at];
                one(&mut prepare(connection, BEGIN_STREAM)?, row)?;
            }
            before => {
                let row = params![&*append.name, id, integer::<i64>(before)?, version, at];
                one(&mut prepare(connection, CONTINUE_STREAM)?, row)?;
            }
        }
    }
    Ok(())
}

/// The end of the log.
struct Log<'c> {
    insert: CachedStatement<'c>,
    /// Of the last event.
    position: i64,
    epoch: i64,
}

impl Log<'_> {
    fn add(&mut self, of: &Transition, run: &Run<'_>) -> Result<(), CommitError> {
        self.position += integer::<i64>(run.events.len())?;
        let last = run.last();
        one(
            &mut self.insert,
            params![
                self.position,
                &of.row.id.as_uuid().as_bytes()[..],
                integer::<i64>(last.version)?,
                self.epoch,
                integer::<i64>(run.events.len())?,
                run.kind,
                run.type_name,
                last.occurred_at.as_micros(),
                last.actor,
                run.data,
                integer::<i16>(run.schema_version)?,
                run.schema_versions,
                last.origin.event_id,
                None::<&str>,
                last.origin.causation_id,
            ],
        )
    }

    fn add_appended(&mut self, to: &Append, event: &AppendedEvent) -> Result<(), CommitError> {
        self.position += 1;
        one(
            &mut self.insert,
            params![
                self.position,
                &to.stream.as_uuid().as_bytes()[..],
                integer::<i64>(event.version)?,
                self.epoch,
                1,
                APPENDED,
                &*event.type_name,
                event.occurred_at.as_micros(),
                event.actor,
                event.data.get(),
                integer::<i16>(event.schema_version)?,
                None::<&str>,
                &*event.event_id,
                event.correlation_id,
                event.causation_id,
            ],
        )
    }
}

fn prepare<'c>(connection: &'c Connection, sql: &str) -> Result<CachedStatement<'c>, CommitError> {
    connection.prepare_cached(sql).map_err(not_written)
}

/// Runs a statement that is to write one row.
fn one(statement: &mut CachedStatement<'_>, row: impl Params) -> Result<(), CommitError> {
    match statement.execute(row).map_err(not_written)? {
        1 => Ok(()),
        _ => Err(CommitError::Refused("a saga, a stream or a key was not as expected".to_owned())),
    }
}

fn integer<T>(number: impl TryInto<T>) -> Result<T, CommitError> {
    number.try_into().map_err(|_| CommitError::Refused("a number is too large for the database".to_owned()))
}
