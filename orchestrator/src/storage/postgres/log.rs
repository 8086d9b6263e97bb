//! Reading the log: statements that are planned once and go by the indexes, whatever the tables held when they were.

use std::collections::BTreeMap;

use skald_core::ids::{SagaId, Shard};
use sqlx::{
    AssertSqlSafe, PgConnection, Postgres, QueryBuilder, Row as _,
    postgres::{PgConnectOptions, PgRow},
};

use super::{
    super::{
        StoreError,
        log::{
            LogEvent, LogPage, LogQuery, SCAN_MAX,
            facts::{FactsRecord, Remembered},
            filter,
            rows::{self, LOG_COLUMNS, LogRecord, Unknown, Window},
        },
        records,
        runs::EVENTS_MAX,
    },
    READ_TIMEOUT, failed,
    sessions::Sessions,
};

/// The end of a shard, whatever it is.
const UNBOUNDED: i64 = 1 << 60;

/// Plans are made once for all values and must stay the right ones, as the writer's.
pub(super) fn session(base: &PgConnectOptions) -> PgConnectOptions {
    base.clone().application_name("skald-log").options([
        ("default_transaction_read_only", "on"),
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("enable_bitmapscan", "off"),
        ("enable_material", "off"),
        ("jit", "off"),
        ("statement_timeout", &READ_TIMEOUT.as_millis().to_string()),
    ])
}

pub async fn heads(connection: &mut PgConnection) -> Result<BTreeMap<Shard, i64>, StoreError> {
    let rows: Vec<(i32, i64)> =
        sqlx::query_as("SELECT shard, head FROM shards").fetch_all(connection).await.map_err(failed)?;
    rows.into_iter().map(|(shard, head)| Ok((records::shard(shard)?, head))).collect()
}

pub async fn log(sessions: &Sessions, remembered: &Remembered, query: &LogQuery) -> Result<LogPage, StoreError> {
    let windows = sessions.ask(async |session| windows(session, query).await).await?;
    let (records, mut page) = rows::mix(windows, query.limit);
    page.events = complete(sessions, remembered, records).await?;
    Ok(page)
}

async fn complete(
    sessions: &Sessions,
    remembered: &Remembered,
    records: Vec<LogRecord>,
) -> Result<Vec<LogEvent>, StoreError> {
    rows::complete(remembered, records, async |unknown| {
        sessions.ask(async |session| facts(session, unknown).await).await
    })
    .await
}

/// Every shard's row answers, with its window and with the events in it; the heads and the events are of one moment.
async fn windows(connection: &mut PgConnection, query: &LogQuery) -> Result<Vec<Window<LogRecord>>, StoreError> {
    let mut sql = QueryBuilder::new("");
    push_windows(&mut sql, query);
    let rows = sql.build().fetch_all(connection).await.map_err(failed)?;
    rows.chunk_by(|one, next| shard(one).ok() == shard(next).ok())
        .map(|of_shard| window(records::shard(shard(&of_shard[0]).map_err(failed)?)?, of_shard, query).map_err(failed))
        .collect()
}

fn shard(row: &PgRow) -> Result<i32, sqlx::Error> {
    row.try_get(0)
}

fn window(shard: Shard, rows: &[PgRow], query: &LogQuery) -> Result<Window<LogRecord>, sqlx::Error> {
    let first = &rows[0];
    let mut window = Window {
        shard,
        after: first.try_get(1)?,
        looked_to: first.try_get(2)?,
        last: first.try_get(3)?,
        records: Default::default(),
    };
    let found =
        rows.iter().map(|row| LogRecord::read(row, 5)).filter(|row| !matches!(row, Ok(events) if events.is_empty()));
    let share = usize::try_from(first.try_get::<i64, _>(4)?).unwrap_or(1).max(1);
    window.fill(found.collect::<Result<_, _>>()?, share, &query.filter);
    Ok(window)
}

/// The shards that have more share the limit. Where retention left a hole, a window begins behind it. The rows of a shard come together, and in order: the one join is a loop
/// over the shards, in theirs.
pub(super) fn push_windows(sql: &mut QueryBuilder<Postgres>, query: &LogQuery) {
    let asked: Vec<(i32, i64, i64)> = query
        .after
        .iter()
        .map(|(shard, after)| (i32::from(shard.0), *after, query.until.get(shard).copied().unwrap_or(UNBOUNDED)))
        .collect();
    let scan_max = if query.filter.is_any() { i64::from(query.limit) } else { SCAN_MAX };
    sql.push(
        "WITH asked AS MATERIALIZED (
             SELECT a.shard, a.after, a.last, greatest(count(*) FILTER (WHERE a.last > a.after) OVER (), 1) AS with_more
             FROM (SELECT a.shard, least(a.until, s.head) AS last,
                          greatest(a.after, least(a.until, s.head, coalesce(h.last, 0))) AS after
                   FROM unnest(",
    );
    sql.push_bind(asked.iter().map(|asked| asked.0).collect::<Vec<i32>>()).push("::integer[], ");
    sql.push_bind(asked.iter().map(|asked| asked.1).collect::<Vec<i64>>()).push("::bigint[], ");
    sql.push_bind(asked.iter().map(|asked| asked.2).collect::<Vec<i64>>()).push("::bigint[]");
    sql.push(
        ") AS a (shard, after, until)
                   JOIN shards AS s ON s.shard = a.shard
                   LEFT JOIN LATERAL (
                       SELECT last
                       FROM log_holes AS h
                       WHERE h.shard = a.shard AND h.first <= a.after + 1
                       ORDER BY h.first DESC
                       LIMIT 1
                   ) AS h ON true) AS a
         ), win AS MATERIALIZED (
             SELECT shard, after, last, greatest(",
    );
    sql.push_bind(i64::from(query.limit)).push(" / with_more, 1) AS share, after + greatest(");
    sql.push_bind(scan_max).push(
        " / with_more, 1) AS scan_to
             FROM asked
         )
         SELECT w.shard, w.after, least(w.scan_to, w.last) AS looked_to, w.last, w.share, e.*
         FROM win AS w
         LEFT JOIN LATERAL (
             SELECT ",
    );
    sql.push(LOG_COLUMNS).push(
        "
             FROM events AS e
             WHERE w.last > w.after
               AND e.shard = w.shard
               AND e.position > w.after
               AND e.position < least(w.scan_to, w.last) + ",
    );
    sql.push(EVENTS_MAX).push(" AND e.position - e.events < least(w.scan_to, w.last)");
    filter::push(sql, &query.filter);
    sql.push(
        "
             ORDER BY e.position
             LIMIT w.share
         ) AS e ON true",
    );
}

async fn facts(connection: &mut PgConnection, unknown: Unknown) -> Result<Vec<FactsRecord>, StoreError> {
    sqlx::query_as(FACTS)
        .bind(unknown.sagas.first().copied())
        .bind(unknown.sagas.last().copied())
        .bind(unknown.sagas)
        .bind(unknown.others)
        .fetch_all(connection)
        .await
        .map_err(failed)
}

/// The bounds on the id, implied by the list, let whole partitions be left out.
pub(super) const FACTS: &str = "
    SELECT s.id, NULL AS name, s.definition, s.mode, s.correlation_id
    FROM sagas AS s
    WHERE s.id BETWEEN $1::uuid AND $2::uuid AND s.id = ANY($3::uuid[])
    UNION ALL
    SELECT n.id, n.name, NULL, NULL, NULL
    FROM streams AS n
    WHERE n.id = ANY($4::uuid[])";

pub async fn stream_log(
    sessions: &Sessions,
    remembered: &Remembered,
    stream: SagaId,
    versions: (u64, Option<u64>),
    limit: u32,
) -> Result<Vec<LogEvent>, StoreError> {
    let (after, until) = rows::bounds(versions);
    let sql = format!(
        "SELECT {LOG_COLUMNS}
         FROM events AS e
         WHERE e.stream = $1 AND e.version > $2 AND e.version < $3 + {EVENTS_MAX} AND e.version - e.events < $3
         ORDER BY e.version
         LIMIT $4"
    );
    let rows = sessions
        .ask(async |session| {
            let query =
                sqlx::query(AssertSqlSafe(sql)).bind(stream.as_uuid()).bind(after).bind(until).bind(i64::from(limit));
            read(&query.fetch_all(session).await.map_err(failed)?)
        })
        .await?;
    complete(sessions, remembered, rows::within(rows, (after, until), limit)).await
}

pub async fn events_at(
    sessions: &Sessions,
    remembered: &Remembered,
    shard: Shard,
    positions: &[i64],
) -> Result<Vec<LogEvent>, StoreError> {
    let rows = sessions
        .ask(async |session| {
            let query = sqlx::query(AssertSqlSafe(events_at_sql())).bind(i32::from(shard.0)).bind(positions);
            read(&query.fetch_all(session).await.map_err(failed)?)
        })
        .await?;
    complete(sessions, remembered, rows::at(rows, positions)).await
}

/// A lookup for each position.
pub(super) fn events_at_sql() -> String {
    format!(
        "SELECT {LOG_COLUMNS}
         FROM unnest($2::bigint[]) AS a (position)
         CROSS JOIN LATERAL (
             SELECT *
             FROM events AS e
             WHERE e.shard = $1
               AND e.position >= a.position
               AND e.position < a.position + {EVENTS_MAX}
               AND e.position - e.events < a.position
             LIMIT 1
         ) AS e"
    )
}

fn read(rows: &[PgRow]) -> Result<Vec<Vec<LogRecord>>, StoreError> {
    rows.iter().map(|row| LogRecord::read(row, 0)).collect::<Result<_, _>>().map_err(failed)
}
