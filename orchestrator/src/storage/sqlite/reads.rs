//! Reading sagas and their events. Single statements on pooled connections that cannot write.

use skald_core::{
    event::Recorded,
    ids::{SagaId, Shard},
    state::SagaRow,
    time::Timestamp,
};
use sqlx::{AssertSqlSafe, QueryBuilder, SqlitePool, types::Uuid};

use super::{
    super::{
        KeyedSaga, SagaFilter, StoreError, Tally, Unfinished,
        listing::{SAGA_COLUMNS, push_list},
        records::{
            KeyedSagaRecord, RUN_COLUMNS, RunRecord, SagaRecord, TallyRecord, UnfinishedRecord, group_by_stream,
            read_all, read_events, read_stream,
        },
    },
    failed,
};

pub async fn events(pool: &SqlitePool, saga: SagaId, after: u64, limit: u32) -> Result<Vec<Recorded>, StoreError> {
    let sql = format!(
        "SELECT {RUN_COLUMNS}
         FROM events
         WHERE stream = ?1 AND version > ?2
         ORDER BY version
         LIMIT ?3"
    );
    let rows: Vec<RunRecord> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(saga.as_uuid())
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    read_stream(&rows, after, limit)
}

/// The ids travel as one JSON array, so that any number of them is the same statement.
pub async fn streams(pool: &SqlitePool, sagas: &[SagaId]) -> Result<Vec<Vec<Recorded>>, StoreError> {
    let ids: Vec<String> = sagas.iter().map(|saga| saga.as_uuid().simple().to_string()).collect();
    let ids = serde_json::to_string(&ids).map_err(|error| StoreError::Unreadable(error.to_string()))?;
    let sql = format!(
        "SELECT {RUN_COLUMNS}
         FROM events
         WHERE stream IN (SELECT unhex(value) FROM json_each(?1))
         ORDER BY stream, version"
    );
    let rows: Vec<RunRecord> = sqlx::query_as(AssertSqlSafe(sql)).bind(ids).fetch_all(pool).await.map_err(failed)?;
    Ok(group_by_stream(sagas, read_events(&rows)?))
}

pub async fn row(pool: &SqlitePool, saga: SagaId) -> Result<Option<SagaRow>, StoreError> {
    let sql = AssertSqlSafe(format!("SELECT {SAGA_COLUMNS} FROM sagas WHERE id = ?1"));
    let row: Option<SagaRecord> =
        sqlx::query_as(sql).bind(saga.as_uuid()).fetch_optional(pool).await.map_err(failed)?;
    row.map(SagaRow::try_from).transpose()
}

pub async fn list(pool: &SqlitePool, filter: &SagaFilter) -> Result<Vec<SagaRow>, StoreError> {
    let mut query = QueryBuilder::new("");
    if !push_list(&mut query, filter) {
        return Ok(Vec::new());
    }
    let rows: Vec<SagaRecord> = query.build_query_as().fetch_all(pool).await.map_err(failed)?;
    read_all(rows)
}

pub async fn unfinished(
    pool: &SqlitePool,
    shard: Shard,
    after: Option<SagaId>,
    limit: u32,
) -> Result<Vec<Unfinished>, StoreError> {
    let rows: Vec<UnfinishedRecord> = sqlx::query_as(
        "SELECT id, mode, status, wake_at_us
         FROM sagas
         WHERE shard = ?1 AND ended_at_us IS NULL AND id > ?2
         ORDER BY id
         LIMIT ?3",
    )
    .bind(i32::from(shard.0))
    .bind(after.map_or(Uuid::nil(), SagaId::as_uuid))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    read_all(rows)
}

/// Ended sagas cost nothing: without being told, SQLite walks all of them in the order of the groups.
pub async fn tally(pool: &SqlitePool, now: Timestamp) -> Result<Vec<Tally>, StoreError> {
    let rows: Vec<TallyRecord> = sqlx::query_as(
        "SELECT definition, mode, status, count(*) AS sagas, count(*) FILTER (WHERE deadline_at_us < ?1) AS overdue
         FROM sagas INDEXED BY sagas_unfinished
         WHERE ended_at_us IS NULL
         GROUP BY definition, mode, status
         ORDER BY definition, mode, status",
    )
    .bind(now.as_micros())
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    read_all(rows)
}

pub async fn keyed_saga(pool: &SqlitePool, definition: &str, key: &str) -> Result<Option<KeyedSaga>, StoreError> {
    let row: Option<KeyedSagaRecord> =
        sqlx::query_as("SELECT saga, fingerprint FROM start_keys WHERE definition = ?1 AND key = ?2")
            .bind(definition)
            .bind(key)
            .fetch_optional(pool)
            .await
            .map_err(failed)?;
    row.map(KeyedSaga::try_from).transpose()
}
