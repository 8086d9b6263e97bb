//! Reading the log. Positions are the rows' own numbers, so a page is one walk along the table.

use std::collections::{BTreeMap, VecDeque};

use skald_core::ids::{SagaId, Shard};
use sqlx::{AssertSqlSafe, QueryBuilder, Sqlite, sqlite::SqliteRow, types::Uuid};

use super::{
    super::{
        StoreError,
        log::{
            LogEvent, LogFilter, LogPage, LogQuery, SCAN_MAX,
            facts::{FactsRecord, Remembered},
            filter,
            rows::{self, LOG_COLUMNS, LogRecord, Unknown, Window},
        },
        runs::EVENTS_MAX,
    },
    SHARD, SqliteStore, failed,
    readers::Readers,
};

pub async fn heads(readers: &Readers) -> Result<BTreeMap<Shard, i64>, StoreError> {
    let heads: Vec<(i64,)> = readers.fetch(sqlx::query_as("SELECT head FROM shards WHERE shard = 0")).await?;
    Ok(heads.into_iter().map(|(head,)| (SHARD, head)).collect())
}

/// The head is read first: whatever lies below it is there when the events are read. Where retention left a hole, the
/// window begins behind it.
pub async fn log(store: &SqliteStore, query: &LogQuery) -> Result<LogPage, StoreError> {
    let SqliteStore { followers: readers, remembered, tail, .. } = store;
    let Some(after) = query.after.get(&SHARD).copied() else { return Ok(LogPage::default()) };
    let place = sqlx::query_as::<_, (i64, Option<i64>)>(
        "SELECT head, (SELECT last FROM log_holes WHERE shard = 0 AND first <= ? + 1 ORDER BY first DESC LIMIT 1)
         FROM shards
         WHERE shard = 0",
    );
    let Some((head, hole)) = readers.fetch(place.bind(after)).await?.pop() else { return Ok(LogPage::default()) };
    if let Some(page) = tail.page(query, &BTreeMap::from([(SHARD, head)])) {
        return Ok(page);
    }
    let last = query.until.get(&SHARD).map_or(head, |until| head.min(*until));
    let after = after.max(last.min(hole.unwrap_or(0)));
    let share = i64::from(query.limit).max(1);
    let scan_max = if query.filter.is_any() { share } else { SCAN_MAX };
    let looked_to = last.min(after.saturating_add(scan_max));
    let mut window = Window { shard: SHARD, after, looked_to, last, records: VecDeque::new() };
    if looked_to > after {
        let mut sql = QueryBuilder::new("");
        push_window(&mut sql, &query.filter, (after, looked_to), share);
        let rows =
            readers.ask(async |connection| read(&sql.build().fetch_all(connection).await.map_err(failed)?)).await?;
        window.fill(rows, query.limit.max(1) as usize, &query.filter);
    }
    let (records, mut page) = rows::mix(vec![window], query.limit);
    page.events = complete(readers, remembered, records).await?;
    Ok(page)
}

pub(super) fn push_window(
    sql: &mut QueryBuilder<Sqlite>,
    filter: &LogFilter,
    (after, looked_to): (i64, i64),
    share: i64,
) {
    sql.push("SELECT ").push(LOG_COLUMNS).push(" FROM events AS e WHERE e.position > ").push_bind(after);
    sql.push(" AND e.position < ").push_bind(looked_to.saturating_add(EVENTS_MAX));
    sql.push(" AND e.position - e.events < ").push_bind(looked_to);
    filter::push(sql, filter);
    sql.push(" ORDER BY e.position LIMIT ").push_bind(share);
}

async fn complete(
    readers: &Readers,
    remembered: &Remembered,
    records: Vec<LogRecord>,
) -> Result<Vec<LogEvent>, StoreError> {
    rows::complete(remembered, records, async |unknown| facts(readers, unknown).await).await
}

/// The ids travel as JSON arrays, so that any number of them is the same statement.
async fn facts(readers: &Readers, unknown: Unknown) -> Result<Vec<FactsRecord>, StoreError> {
    let asking = sqlx::query_as(
        "SELECT s.id, NULL AS name, s.definition, s.mode, s.correlation_id
         FROM sagas AS s
         WHERE s.id IN (SELECT unhex(value) FROM json_each(?1))
         UNION ALL
         SELECT n.id, n.name, NULL, NULL, NULL
         FROM streams AS n
         WHERE n.id IN (SELECT unhex(value) FROM json_each(?2))",
    )
    .bind(hex_array(&unknown.sagas))
    .bind(hex_array(&unknown.others));
    readers.fetch(asking).await
}

pub(super) fn hex_array(ids: &[Uuid]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("\"{}\"", id.simple())).collect();
    format!("[{}]", ids.join(","))
}

pub async fn stream_log(
    readers: &Readers,
    remembered: &Remembered,
    stream: SagaId,
    versions: (u64, Option<u64>),
    limit: u32,
) -> Result<Vec<LogEvent>, StoreError> {
    let (after, until) = rows::bounds(versions);
    let sql = format!(
        "SELECT {LOG_COLUMNS}
         FROM events AS e
         WHERE e.stream = ?1 AND e.version > ?2 AND e.version < ?3 + {EVENTS_MAX} AND e.version - e.events < ?3
         ORDER BY e.version
         LIMIT ?4"
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(stream.as_uuid()).bind(after).bind(until).bind(i64::from(limit));
    let rows = readers.ask(async |connection| read(&query.fetch_all(connection).await.map_err(failed)?)).await?;
    complete(readers, remembered, rows::within(rows, (after, until), limit)).await
}

pub async fn events_at(
    readers: &Readers,
    remembered: &Remembered,
    positions: &[i64],
) -> Result<Vec<LogEvent>, StoreError> {
    let sql = format!(
        "SELECT {LOG_COLUMNS}
         FROM json_each(?1) AS a
         JOIN events AS e ON e.position >= a.value AND e.position < a.value + {EVENTS_MAX} AND e.position - e.events < a.value"
    );
    let asked: Vec<String> = positions.iter().map(ToString::to_string).collect();
    let query = sqlx::query(AssertSqlSafe(sql)).bind(format!("[{}]", asked.join(",")));
    let rows = readers.ask(async |connection| read(&query.fetch_all(connection).await.map_err(failed)?)).await?;
    complete(readers, remembered, rows::at(rows, positions)).await
}

fn read(rows: &[SqliteRow]) -> Result<Vec<Vec<LogRecord>>, StoreError> {
    rows.iter().map(|row| LogRecord::read(row, 0)).collect::<Result<_, _>>().map_err(failed)
}
