//! Reading a whole database for a check. The session cannot write; a page is one short transaction of the kind REPEATABLE
//! READ, READ ONLY, everything else one statement.

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use skald_core::ids::{SagaId, Shard};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
    types::Uuid,
};

use super::{
    super::{
        StoreError, StoredDefinition,
        audit::{
            Audit, Found, FoundEventRecord, FoundKey, FoundSaga, FoundSagaRecord, LogBounds, LogBoundsRecord, Place,
            PlaceRecord, Stretch, page_end,
        },
        records::{RUN_COLUMNS, read_all},
    },
    CONNECT_TIMEOUT, failed, lifecycle, registry,
};

/// Begins a page of one moment.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

#[derive(Debug)]
pub struct PostgresAudit {
    pool: PgPool,
}

impl PostgresAudit {
    /// Connects with one session.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let base: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| StoreError::Open(error.to_string()))?;
        let session = base.disable_statement_logging().application_name("skald-verify").options([
            ("default_transaction_read_only", "on"),
            // Every statement walks an index in order, page by page; a plan that sorts a whole table would not do.
            ("plan_cache_mode", "force_custom_plan"),
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("enable_bitmapscan", "off"),
            ("jit", "off"),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_with(session)
            .await
            .map_err(|error| StoreError::Open(error.to_string()))?;
        Ok(Self { pool })
    }
}

#[async_trait]
impl Audit for PostgresAudit {
    async fn check_schema(&self) -> Result<(), StoreError> {
        lifecycle::check_schema(&mut *self.pool.acquire().await.map_err(failed)?).await
    }

    async fn definitions(&self) -> Result<Vec<StoredDefinition>, StoreError> {
        registry::definitions(&mut *self.pool.acquire().await.map_err(failed)?).await
    }

    async fn shards(&self) -> Result<Vec<LogBounds>, StoreError> {
        let rows: Vec<LogBoundsRecord> = sqlx::query_as(
            "SELECT s.shard, s.epoch, s.head,
                    (SELECT e.position - e.events + 1 FROM events AS e WHERE e.shard = s.shard ORDER BY e.position LIMIT 1)
                        AS first,
                    (SELECT e.position FROM events AS e WHERE e.shard = s.shard ORDER BY e.position DESC LIMIT 1)
                        AS last
             FROM shards AS s
             ORDER BY s.shard",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        read_all(rows)
    }

    /// No index makes positions unique across partitions, so the order goes on by stream and version. The bound on the
    /// position alone is what the index goes by.
    async fn places(&self, shard: Shard, after: Option<Place>, until: i64, limit: u32) -> Result<Stretch, StoreError> {
        let mut snapshot = self.pool.begin_with(SNAPSHOT).await.map_err(failed)?;
        let (position, stream, version) = after
            .map_or((i64::MIN, Uuid::nil(), i64::MIN), |place| (place.position, place.stream.as_uuid(), place.version));
        let rows: Vec<PlaceRecord> = sqlx::query_as(
            "SELECT shard, position, stream, version, epoch, events
             FROM events
             WHERE shard = $1
               AND position >= $2
               AND position <= $5
               AND (position, stream, version) > ($2, $3, $4)
             ORDER BY position, stream, version
             LIMIT $6",
        )
        .bind(i32::from(shard.0))
        .bind(position)
        .bind(stream)
        .bind(version)
        .bind(until)
        .bind(i64::from(limit))
        .fetch_all(&mut *snapshot)
        .await
        .map_err(failed)?;
        let holes = sqlx::query_as(
            "SELECT first, last
             FROM log_holes
             WHERE shard = $1 AND last > $2 AND first <= $3
             ORDER BY first",
        )
        .bind(i32::from(shard.0))
        .bind(position)
        .bind(Stretch::end(&rows, until, limit))
        .fetch_all(&mut *snapshot)
        .await
        .map_err(failed)?;
        snapshot.rollback().await.map_err(failed)?;
        Ok(Stretch { places: rows.iter().flat_map(PlaceRecord::places).collect(), holes })
    }

    async fn removed(&self) -> Result<Vec<(SagaId, SagaId)>, StoreError> {
        let ranges: Vec<(Uuid, Uuid)> =
            sqlx::query_as("SELECT first_id, last_id FROM archive_parts WHERE state <> 'written' ORDER BY first_id")
                .fetch_all(&self.pool)
                .await
                .map_err(failed)?;
        Ok(ranges.into_iter().map(|(first, last)| (SagaId::from_uuid(first), SagaId::from_uuid(last))).collect())
    }

    /// The bounds on the stream let whole partitions be left out.
    async fn sagas(
        &self,
        from: SagaId,
        limit: u32,
        visit: &mut (dyn FnMut(Found) + Send),
    ) -> Result<Option<SagaId>, StoreError> {
        let mut snapshot = self.pool.begin_with(SNAPSHOT).await.map_err(failed)?;
        let rows: Vec<FoundSagaRecord> = sqlx::query_as(
            "SELECT id, shard, definition, definition_version, mode, status, state, version, correlation_id, failure,
                    created_at_us, updated_at_us, ended_at_us, deadline_at_us, wake_at_us
             FROM sagas
             WHERE id >= $1
             ORDER BY id
             LIMIT $2",
        )
        .bind(from.as_uuid())
        .bind(i64::from(limit))
        .fetch_all(&mut *snapshot)
        .await
        .map_err(failed)?;
        let rows: Vec<FoundSaga> = rows.into_iter().map(FoundSaga::from).collect();
        let (next, last) = page_end(&rows, limit);
        visit(Found::Sagas(rows));
        let sql = format!(
            "SELECT {RUN_COLUMNS}
             FROM events
             WHERE stream >= $1 AND stream <= $2
             ORDER BY stream, version"
        );
        let mut events = sqlx::query_as::<_, FoundEventRecord>(AssertSqlSafe(sql))
            .bind(from.as_uuid())
            .bind(last)
            .fetch(&mut *snapshot);
        while let Some(row) = events.try_next().await.map_err(failed)? {
            row.found().for_each(&mut *visit);
        }
        drop(events);
        snapshot.rollback().await.map_err(failed)?;
        Ok(next)
    }

    async fn start_keys(&self, after: (&str, &str), limit: u32) -> Result<Vec<FoundKey>, StoreError> {
        sqlx::query_as(
            "SELECT k.definition, k.key, k.shard, k.saga, s.definition AS saga_definition, s.shard AS saga_shard
             FROM start_keys AS k
             LEFT JOIN sagas AS s ON s.id = k.saga
             WHERE (k.definition, k.key) > ($1, $2)
             ORDER BY k.definition, k.key
             LIMIT $3",
        )
        .bind(after.0)
        .bind(after.1)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)
    }
}
