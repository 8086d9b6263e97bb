//! Dropping a month.
//!
//! The statement that does it is its own transaction: parts noted as removed, holes noted, streams gone, and last, for as
//! short as can be, the tables locked and the partitions dropped. While it waits for the locks, commits and reads wait
//! behind it; so it gives up soon, and tries again when whoever was in the way had their turn.

use std::time::Duration;

use skald_core::time::Timestamp;
use sqlx::PgConnection;

use super::super::{
    super::{StoreError, retention::RetentionError},
    failed,
    sessions::Sessions,
};

/// How long to wait for the locks, try after try. At last longer than `deadlock_timeout`, after which a vacuum of the
/// partition gives way, and still shorter than a commit's own patience.
const LOCK_WAITS_MS: [i32; 7] = [50, 100, 100, 200, 200, 400, 1100];

/// What others get in between, times the last wait.
const PAUSE_FACTOR: u64 = 5;

/// Start keys deleted together.
const KEYS_TOGETHER: i64 = 2000;

/// `LOCK_WAITS_MS` ran out, or the locks were waited for crosswise.
const IN_USE: [&str; 2] = ["55P03", "40P01"];

pub async fn droppable(sessions: &Sessions) -> Result<Vec<Timestamp>, StoreError> {
    let months: Vec<(i64,)> = sessions
        .fetch(sqlx::query_as(
            "SELECT (extract(epoch FROM to_date(substr(c.relname, 7), 'YYYYMM')::timestamp AT TIME ZONE 'UTC')
                     * 1000000)::bigint
             FROM pg_inherits AS i
             JOIN pg_class AS c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'sagas'::regclass AND c.relname ~ '^sagas_[0-9]{6}$'
             ORDER BY 1",
        ))
        .await?;
    Ok(months.into_iter().map(|(first_us,)| Timestamp::from_micros(first_us)).collect())
}

pub async fn drop_whole(
    sessions: &Sessions,
    holder: &str,
    month: Timestamp,
    parts: &[String],
    appended: i64,
) -> Result<(), RetentionError> {
    while sessions.ask(async |session| delete_keys(session, month).await).await? > 0 {}
    let holes = holes(sessions, month).await?;
    for wait_ms in LOCK_WAITS_MS {
        let dropping = sqlx::query(
            "SELECT skald_drop_month(to_timestamp($1 / 1000000.0) AT TIME ZONE 'UTC', $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(month.as_micros())
        .bind(holder)
        .bind(parts)
        .bind(appended)
        .bind(holes.iter().map(|hole| hole.0).collect::<Vec<i32>>())
        .bind(holes.iter().map(|hole| hole.1).collect::<Vec<i64>>())
        .bind(holes.iter().map(|hole| hole.2).collect::<Vec<i64>>())
        .bind(wait_ms);
        let dropped = sessions.ask(async |session| Ok(dropping.execute(session).await)).await?;
        match dropped.map_err(meaning) {
            Ok(_) => return Ok(()),
            Err(RetentionError::InUse) => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(Duration::from_millis(PAUSE_FACTOR * u64::from(wait_ms.unsigned_abs()))).await;
    }
    Err(RetentionError::InUse)
}

/// What an error of the function means.
fn meaning(error: sqlx::Error) -> RetentionError {
    let sqlx::Error::Database(refusal) = &error else { return failed(error).into() };
    match refusal.code().as_deref() {
        Some("SK004") => RetentionError::Busy,
        Some("SK005") => RetentionError::Changed(refusal.message().to_owned()),
        Some(code) if IN_USE.contains(&code) => RetentionError::InUse,
        _ => failed(error).into(),
    }
}

/// Deletes start keys of the month's sagas, so many that nobody waits for it. They go before their sagas: a key never
/// leads nowhere.
async fn delete_keys(session: &mut PgConnection, month: Timestamp) -> Result<u64, StoreError> {
    let deleted = sqlx::query(
        "WITH month AS (
             SELECT to_timestamp($1 / 1000000.0) AS first
         )
         DELETE FROM start_keys
         WHERE (definition, key) IN (
             SELECT k.definition, k.key
             FROM start_keys AS k
             WHERE k.saga >= (SELECT skald_uuid_floor(first) FROM month)
               AND k.saga < (SELECT skald_uuid_floor((first AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC')
                             FROM month)
             LIMIT $2
         )",
    )
    .bind(month.as_micros())
    .bind(KEYS_TOGETHER)
    .execute(session)
    .await
    .map_err(failed)?;
    Ok(deleted.rows_affected())
}

/// The positions of the month's events, as ranges that do not touch: shard, first, last.
async fn holes(sessions: &Sessions, month: Timestamp) -> Result<Vec<(i32, i64, i64)>, StoreError> {
    let holes = sqlx::query_as(
        "WITH month AS (
             SELECT to_timestamp($1 / 1000000.0) AS first
         )
         SELECT shard, min(position - events) + 1, max(position)
         FROM (SELECT shard, position, events,
                      position - sum(events) OVER (PARTITION BY shard ORDER BY position) AS island
               FROM events
               WHERE stream >= (SELECT skald_uuid_floor(first) FROM month)
                 AND stream < (SELECT skald_uuid_floor((first AT TIME ZONE 'UTC' + interval '1 month')
                                                       AT TIME ZONE 'UTC')
                               FROM month)) AS numbered
         GROUP BY shard, island
         ORDER BY shard, max(position)",
    );
    sessions.fetch(holes.bind(month.as_micros())).await
}
