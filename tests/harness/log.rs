//! Invariants 6 to 10, from the database: the log is whole and in order, and what it folds to is what the rows say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use skald_core::{
    definition::Definition,
    event::{Event, Recorded},
    ids::{Epoch, SagaId, Shard},
    state::SagaState,
    time::Timestamp,
};

use uuid::Uuid;

use super::{checker::Start, database::Database, effects::Fate};

/// Everything that the database holds of sagas.
#[derive(Debug)]
pub struct Log {
    streams: BTreeMap<SagaId, Vec<Recorded>>,
    /// All events of each shard, by position; also those of streams that are no saga's.
    shards: BTreeMap<Shard, Vec<Entry>>,
    /// Rows, column by column in the order of [`COLUMNS`].
    rows: BTreeMap<SagaId, Columns>,
    /// The last position of each shard.
    heads: BTreeMap<Shard, i64>,
    definitions: BTreeMap<(String, u32), Definition>,
    /// Saga by definition and key.
    start_keys: BTreeMap<(String, String), SagaId>,
}

/// Where an event lies.
#[derive(Debug)]
struct Entry {
    position: i64,
    epoch: Epoch,
    stream: Uuid,
    version: i64,
}

type Columns = [Option<String>; 12];

const COLUMNS: [&str; 12] = [
    "definition",
    "definition_version",
    "mode",
    "status",
    "state",
    "version",
    "correlation_id",
    "created_at_us",
    "updated_at_us",
    "ended_at_us",
    "deadline_at_us",
    "wake_at_us",
];

impl Log {
    pub async fn read(database: &Database) -> Self {
        let mut log = Self {
            streams: read_streams(database).await,
            shards: read_shards(database).await,
            rows: read_rows(database).await,
            heads: BTreeMap::new(),
            definitions: BTreeMap::new(),
            start_keys: BTreeMap::new(),
        };
        let sql = "SELECT CAST(shard AS TEXT), CAST(head AS TEXT) FROM shards";
        for [shard, head] in database.texts(sql.to_owned()).await {
            log.heads.insert(Shard(number(shard)), number(head));
        }
        for [document] in database.texts("SELECT document FROM definitions".to_owned()).await {
            let definition = Definition::parse(&text(document), None).expect("what is registered was checked");
            log.definitions.insert((definition.name.clone(), definition.version), definition);
        }
        let sql = format!("SELECT definition, key, {} FROM start_keys", database.id_text("saga"));
        for [definition, key, saga] in database.texts(sql).await {
            log.start_keys.insert((text(definition), text(key)), id(saga));
        }
        log
    }

    /// What became of each saga.
    pub fn fates(&self) -> BTreeMap<String, Fate> {
        let fate = |(saga, row): (&SagaId, &Columns)| {
            let decided = |recorded: &Recorded| match &recorded.event {
                Event::OperatorActed(acted) if ["skip", "resolve"].contains(&acted.action.as_str()) => {
                    acted.step.clone()
                }
                _ => None,
            };
            let stream = self.streams.get(saga).map_or(&[][..], Vec::as_slice);
            let [definition, _, _, status, ..] = row.clone();
            let decided_by_operator = stream.iter().filter_map(decided).collect();
            (saga.to_string(), Fate { definition: text(definition), status: text(status), decided_by_operator })
        };
        self.rows.iter().map(fate).collect()
    }

    /// Sagas per mode.
    pub fn modes(&self) -> BTreeMap<String, usize> {
        let mut modes = BTreeMap::new();
        for [_, _, mode, ..] in self.rows.values() {
            *modes.entry(text(mode.clone())).or_default() += 1;
        }
        modes
    }

    /// Invariant 13: in whatever mode, an order that cannot be filled is not completed.
    pub fn violations_of_outcomes(&self, doomed: &[String]) -> Vec<String> {
        let fates = self.fates();
        let completed = doomed.iter().filter(|saga| fates.get(*saga).is_some_and(|fate| fate.status == "completed"));
        completed.map(|saga| format!("13: saga {saga} is completed, and its order cannot be filled")).collect()
    }

    pub fn violations(&self) -> Vec<String> {
        let mut violations = self.of_positions();
        for (saga, stream) in &self.streams {
            let of_stream = of_ends(stream).into_iter().chain(of_versions(stream)).chain(self.of_fold(*saga, stream));
            violations.extend(of_stream.map(|text| format!("{text} (saga {saga})")));
        }
        let without_events = self.rows.keys().filter(|saga| !self.streams.contains_key(saga));
        violations.extend(without_events.map(|saga| format!("8: saga {saga} has a row and no events")));
        violations
    }

    /// Invariant 10: acknowledged starts exist, and one key gave one saga.
    pub fn violations_of_starts(&self, starts: &[Start]) -> Vec<String> {
        let mut violations = Vec::new();
        let mut by_key: BTreeMap<&str, &str> = BTreeMap::new();
        let keys: BTreeSet<(&str, &SagaId)> = self.start_keys.iter().map(|((_, key), saga)| (&**key, saga)).collect();
        for start in starts {
            let Start { key, saga } = start;
            if !saga.parse().is_ok_and(|saga: SagaId| self.rows.contains_key(&saga)) {
                violations.push(format!("10: the start of saga {saga} was acknowledged, and it does not exist"));
            }
            let Some(key) = key else { continue };
            if let Some(other) = by_key.insert(key, saga)
                && other != saga
            {
                violations.push(format!("10: the key `{key}` gave saga {saga} and saga {other}"));
            }
            if !saga.parse().is_ok_and(|saga: SagaId| keys.contains(&(&**key, &saga))) {
                violations.push(format!("10: the database does not hold `{key}` as the key of saga {saga}"));
            }
        }
        violations
    }

    /// Invariant 10 the other way round: no saga comes from nowhere. Of starts without a key that were not acknowledged,
    /// `unknown` may have made one each.
    pub fn violations_of_strangers(&self, starts: &[Start], unknown: usize) -> Vec<String> {
        let acknowledged: BTreeSet<SagaId> = starts.iter().filter_map(|start| start.saga.parse().ok()).collect();
        let strangers: Vec<_> = self.rows.keys().filter(|saga| !acknowledged.contains(saga)).collect();
        if strangers.len() <= unknown {
            return Vec::new();
        }
        let one = strangers[0];
        vec![format!("10: nobody was told of {} sagas, e.g. saga {one}; {unknown} may be", strangers.len())]
    }

    /// Invariant 10 for operators: a command that was answered with 200 is in the log.
    pub fn violations_of_commands(&self, action: &str, sagas: &[String]) -> Vec<String> {
        let acted = |saga: &&String| {
            let stream = saga.parse().ok().and_then(|saga: SagaId| self.streams.get(&saga));
            let is_it =
                |recorded: &Recorded| matches!(&recorded.event, Event::OperatorActed(acted) if acted.action == action);
            !stream.is_some_and(|stream| stream.iter().any(is_it))
        };
        let missing = sagas.iter().filter(acted);
        missing
            .map(|saga| format!("10: `{action}` was acknowledged, and the log has no such command (saga {saga})"))
            .collect()
    }

    /// The stream and version at each position from 1, per shard.
    pub fn by_position(&self) -> BTreeMap<i32, Vec<(Uuid, i64)>> {
        let events = |entries: &Vec<Entry>| entries.iter().map(|entry| (entry.stream, entry.version)).collect();
        self.shards.iter().map(|(shard, entries)| (shard.0.into(), events(entries))).collect()
    }

    /// What the log holds of a saga, a line each.
    pub fn of_saga(&self, saga: &SagaId) -> Vec<String> {
        let line = |recorded: &Recorded| {
            let Recorded { version, shard, position, epoch, event, .. } = recorded;
            let data = event.data();
            let at = recorded.occurred_at.as_micros();
            format!(
                "log {at} version {version} shard {shard} position {position} epoch {epoch}: {} {data}",
                event.kind()
            )
        };
        let row = self.rows.get(saga).map(|row| format!("row {row:?}"));
        row.into_iter().chain(self.streams.get(saga).into_iter().flatten().map(line)).collect()
    }

    /// Invariants 7 and 9: positions of a shard are 1 to its head, and epochs only grow along them.
    fn of_positions(&self) -> Vec<String> {
        let mut violations = Vec::new();
        for (shard, entries) in &self.shards {
            let gap = entries.iter().zip(1..).find(|(entry, expected)| entry.position != *expected);
            if let Some((Entry { position, .. }, expected)) = gap {
                violations.push(format!("7: shard {shard} has position {position} where {expected} should be"));
            }
            let head = self.heads.get(shard).copied().unwrap_or(0);
            if entries.len() as i64 != head {
                violations.push(format!("7: shard {shard} has {} events, its head is {head}", entries.len()));
            }
            if let Some([before, after]) = entries.array_windows().find(|[before, after]| before.epoch > after.epoch) {
                violations.push(format!("9: shard {shard} goes back from epoch {} to {}", before.epoch, after.epoch));
            }
        }
        violations
    }

    /// Invariant 8: the fold of the stream is the row, and each event has the name that the definition gives it.
    fn of_fold(&self, saga: SagaId, stream: &[Recorded]) -> Vec<String> {
        let Some(row) = self.rows.get(&saga) else { return vec!["8: it has events and no row".to_owned()] };
        let key = (text(row[0].clone()), number(row[1].clone()));
        let Some(definition) = self.definitions.get(&key) else { return vec![format!("8: there is no {key:?}")] };
        let state = match SagaState::fold(definition, stream, None) {
            Ok(state) => state,
            Err(error) => return vec![format!("8: its events do not fold: {error}")],
        };
        let folded = columns(&state, definition);
        let differ = COLUMNS.iter().zip(folded.iter().zip(row)).filter(|(_, (folded, row))| folded != row);
        let mut violations: Vec<String> = differ
            .map(|(name, (folded, row))| format!("8: `{name}` folds to {folded:?}, the row says {row:?}"))
            .collect();
        let misnamed = stream.iter().filter(|recorded| *recorded.type_name != *recorded.event.type_name(definition));
        violations
            .extend(misnamed.map(|recorded| format!("8: event {} is named {}", recorded.version, recorded.type_name)));
        violations
    }
}

/// Invariant 6: nothing comes after an end.
fn of_ends(stream: &[Recorded]) -> Option<String> {
    let is_end =
        |event: &Event| matches!(event, Event::SagaCompleted(_) | Event::SagaCompensated(_) | Event::SagaAbandoned(_));
    let end = stream.iter().position(|recorded| is_end(&recorded.event))?;
    let after = stream.get(end + 1)?;
    Some(format!("6: {} follows {}", after.event.kind(), stream[end].event.kind()))
}

/// Invariant 7: versions are 1..n.
fn of_versions(stream: &[Recorded]) -> Option<String> {
    let (found, expected) = stream.iter().zip(1..).find(|(recorded, expected)| recorded.version != *expected)?;
    Some(format!("7: version {} where {expected} should be", found.version))
}

fn columns(state: &SagaState, definition: &Definition) -> Columns {
    let row = state.row(definition);
    let us = |at: Timestamp| at.as_micros().to_string();
    [
        Some(row.definition.to_string()),
        Some(row.definition_version.to_string()),
        Some(row.mode.as_str().to_owned()),
        Some(row.status.as_str().to_owned()),
        Some(row.state),
        Some(row.version.to_string()),
        Some(row.correlation_id.to_string()),
        Some(us(row.created_at)),
        Some(us(row.updated_at)),
        row.ended_at.map(us),
        row.deadline_at.map(us),
        row.wake_at.map(us),
    ]
}

async fn read_rows(database: &Database) -> BTreeMap<SagaId, Columns> {
    let columns = COLUMNS.map(|column| format!("CAST({column} AS TEXT)")).join(", ");
    let rows = database.texts::<13>(format!("SELECT {}, {columns} FROM sagas", database.id_text("id"))).await;
    let row = |[saga, columns @ ..]: [Option<String>; 13]| (id(saga), columns);
    rows.into_iter().map(row).collect()
}

async fn read_streams(database: &Database) -> BTreeMap<SagaId, Vec<Recorded>> {
    let sql = format!(
        "SELECT {}, CAST(version AS TEXT), CAST(shard AS TEXT), CAST(position AS TEXT), CAST(epoch AS TEXT), kind, type,
                CAST(occurred_at_us AS TEXT), actor, CAST(schema_version AS TEXT), data
         FROM event_log WHERE kind <> 'Appended'",
        database.id_text("stream")
    );
    let mut streams: BTreeMap<SagaId, Vec<Recorded>> = BTreeMap::new();
    for [stream, version, shard, position, epoch, kind, type_name, occurred_at, actor, form, data] in
        database.texts(sql).await
    {
        let kind = text(kind);
        let recorded = Recorded {
            stream: id(stream),
            version: number(version),
            shard: Shard(number(shard)),
            position: number(position),
            epoch: Epoch(number(epoch)),
            occurred_at: Timestamp::from_micros(number(occurred_at)),
            type_name: Arc::from(type_name.unwrap_or_else(|| kind.clone())),
            actor,
            event: Event::parse(&kind, number(form), &text(data)).expect("this version wrote it"),
        };
        streams.entry(recorded.stream).or_default().push(recorded);
    }
    for stream in streams.values_mut() {
        stream.sort_by_key(|recorded| recorded.version);
    }
    streams
}

async fn read_shards(database: &Database) -> BTreeMap<Shard, Vec<Entry>> {
    let sql = format!(
        "SELECT CAST(shard AS TEXT), CAST(position AS TEXT), CAST(epoch AS TEXT), {}, CAST(version AS TEXT)
         FROM event_log ORDER BY event_log.shard, event_log.position",
        database.id_text("stream")
    );
    let mut shards: BTreeMap<Shard, Vec<Entry>> = BTreeMap::new();
    for [shard, position, epoch, stream, version] in database.texts(sql).await {
        let stream = text(stream).parse().expect("a stream's id is a UUID");
        let entry = Entry { position: number(position), epoch: Epoch(number(epoch)), stream, version: number(version) };
        shards.entry(Shard(number(shard))).or_default().push(entry);
    }
    shards
}

fn text(column: Option<String>) -> String {
    column.expect("the column is never NULL")
}

fn number<N: std::str::FromStr>(column: Option<String>) -> N {
    let text = text(column);
    text.parse().unwrap_or_else(|_| panic!("`{text}` is not a number of the column's kind"))
}

fn id(column: Option<String>) -> SagaId {
    text(column).parse().expect("ids are UUIDs")
}
