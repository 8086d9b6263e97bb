//! Reading sagas and their events. Single statements on pooled sessions that cannot write.

use skald_core::{
    event::Recorded,
    ids::{SagaId, Shard},
    state::SagaRow,
    time::Timestamp,
};
use sqlx::{AssertSqlSafe, PgConnection, QueryBuilder, types::Uuid};

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

pub async fn events(
    connection: &mut PgConnection,
    saga: SagaId,
    after: u64,
    limit: u32,
) -> Result<Vec<Recorded>, StoreError> {
    let sql = format!(
        "SELECT {RUN_COLUMNS}
         FROM events
         WHERE stream = $1 AND version > $2
         ORDER BY version
         LIMIT $3"
    );
    let rows: Vec<RunRecord> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(saga.as_uuid())
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    read_stream(&rows, after, limit)
}

/// The bounds on the stream, implied by the list, let whole partitions be left out.
pub async fn streams(connection: &mut PgConnection, sagas: &[SagaId]) -> Result<Vec<Vec<Recorded>>, StoreError> {
    let Some((first, last)) = sagas.iter().min().zip(sagas.iter().max()) else { return Ok(Vec::new()) };
    let sql = format!(
        "SELECT {RUN_COLUMNS}
         FROM events
         WHERE stream = ANY($1) AND stream BETWEEN $2 AND $3
         ORDER BY stream, version"
    );
    let rows: Vec<RunRecord> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(sagas.iter().map(|saga| saga.as_uuid()).collect::<Vec<Uuid>>())
        .bind(first.as_uuid())
        .bind(last.as_uuid())
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    Ok(group_by_stream(sagas, read_events(&rows)?))
}

pub async fn row(connection: &mut PgConnection, saga: SagaId) -> Result<Option<SagaRow>, StoreError> {
    let sql = AssertSqlSafe(format!("SELECT {SAGA_COLUMNS} FROM sagas WHERE id = $1"));
    let row: Option<SagaRecord> =
        sqlx::query_as(sql).bind(saga.as_uuid()).fetch_optional(&mut *connection).await.map_err(failed)?;
    row.map(SagaRow::try_from).transpose()
}

pub async fn list(connection: &mut PgConnection, filter: &SagaFilter) -> Result<Vec<SagaRow>, StoreError> {
    let mut query = QueryBuilder::new("");
    if !push_list(&mut query, filter) {
        return Ok(Vec::new());
    }
    let rows: Vec<SagaRecord> = query.build_query_as().fetch_all(&mut *connection).await.map_err(failed)?;
    read_all(rows)
}

pub async fn unfinished(
    connection: &mut PgConnection,
    shard: Shard,
    after: Option<SagaId>,
    limit: u32,
) -> Result<Vec<Unfinished>, StoreError> {
    let rows: Vec<UnfinishedRecord> = sqlx::query_as(
        "SELECT id, mode, status, wake_at_us
         FROM sagas
         WHERE shard = $1 AND ended_at_us IS NULL AND id > $2
         ORDER BY id
         LIMIT $3",
    )
    .bind(i32::from(shard.0))
    .bind(after.map_or(Uuid::nil(), SagaId::as_uuid))
    .bind(i64::from(limit))
    .fetch_all(&mut *connection)
    .await
    .map_err(failed)?;
    read_all(rows)
}

/// The condition is that of the index `sagas_unfinished`, so that ended sagas cost nothing.
pub const TALLY: &str =
    "SELECT definition, mode, status, count(*) AS sagas, count(*) FILTER (WHERE deadline_at_us < $1) AS overdue
     FROM sagas
     WHERE ended_at_us IS NULL
     GROUP BY definition, mode, status
     ORDER BY definition, mode, status";

pub async fn tally(connection: &mut PgConnection, now: Timestamp) -> Result<Vec<Tally>, StoreError> {
    let rows: Vec<TallyRecord> =
        sqlx::query_as(TALLY).bind(now.as_micros()).fetch_all(&mut *connection).await.map_err(failed)?;
    read_all(rows)
}

pub async fn keyed_saga(
    connection: &mut PgConnection,
    definition: &str,
    key: &str,
) -> Result<Option<KeyedSaga>, StoreError> {
    let row: Option<KeyedSagaRecord> =
        sqlx::query_as("SELECT saga, fingerprint FROM start_keys WHERE definition = $1 AND key = $2")
            .bind(definition)
            .bind(key)
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
    row.map(KeyedSaga::try_from).transpose()
}
