//! Reading a whole file for a check. The connection is opened with `mode=ro`; a page of sagas is one read transaction,
//! which in WAL neither waits for writers nor holds them up.

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use skald_core::ids::{SagaId, Shard};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
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
    failed, file_of, lifecycle, registry,
};

#[derive(Debug)]
pub struct SqliteAudit {
    pool: SqlitePool,
}

impl SqliteAudit {
    /// Opens the file that `url` (`sqlite:PATH`) names. It must be there.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file_of(url)?)
            .create_if_missing(false)
            .read_only(true)
            .foreign_keys(false)
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(|error| StoreError::Open(error.to_string()))?;
        Ok(Self { pool })
    }
}

#[async_trait]
impl Audit for SqliteAudit {
    async fn check_schema(&self) -> Result<(), StoreError> {
        lifecycle::check_schema(&self.pool).await
    }

    async fn definitions(&self) -> Result<Vec<StoredDefinition>, StoreError> {
        registry::definitions(&self.pool).await
    }

    /// There is one shard, and the position is the row's number.
    async fn shards(&self) -> Result<Vec<LogBounds>, StoreError> {
        let rows: Vec<LogBoundsRecord> = sqlx::query_as(
            "SELECT shard, epoch, head,
                    (SELECT position - events + 1 FROM events ORDER BY position LIMIT 1) AS first,
                    (SELECT max(position) FROM events) AS last
             FROM shards
             ORDER BY shard",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        read_all(rows)
    }

    /// Positions are unique here, whatever shard an event claims to lie in.
    async fn places(&self, _shard: Shard, after: Option<Place>, until: i64, limit: u32) -> Result<Stretch, StoreError> {
        let mut snapshot = self.pool.begin().await.map_err(failed)?;
        let after = after.map_or(i64::MIN, |place| place.position);
        let rows: Vec<PlaceRecord> = sqlx::query_as(
            "SELECT shard, position, stream, version, epoch, events
             FROM events
             WHERE position > ?1 AND position <= ?2
             ORDER BY position
             LIMIT ?3",
        )
        .bind(after)
        .bind(until)
        .bind(i64::from(limit))
        .fetch_all(&mut *snapshot)
        .await
        .map_err(failed)?;
        let holes = sqlx::query_as(
            "SELECT first, last
             FROM log_holes
             WHERE shard = 0 AND last > ?1 AND first <= ?2
             ORDER BY first",
        )
        .bind(after)
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

    async fn sagas(
        &self,
        from: SagaId,
        limit: u32,
        visit: &mut (dyn FnMut(Found) + Send),
    ) -> Result<Option<SagaId>, StoreError> {
        let mut snapshot = self.pool.begin().await.map_err(failed)?;
        let removing: Option<Uuid> =
            sqlx::query_scalar("SELECT removing FROM archive_parts WHERE removing IS NOT NULL LIMIT 1")
                .fetch_optional(&mut *snapshot)
                .await
                .map_err(failed)?;
        if let Some(removing) = removing {
            visit(Found::Removing(SagaId::from_uuid(removing)));
        }
        let rows: Vec<FoundSagaRecord> = sqlx::query_as(
            "SELECT id, shard, definition, definition_version, mode, status, state, version, correlation_id, failure,
                    created_at_us, updated_at_us, ended_at_us, deadline_at_us, wake_at_us
             FROM sagas
             WHERE id >= ?1
             ORDER BY id
             LIMIT ?2",
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
             WHERE stream >= ?1 AND stream <= ?2
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
             WHERE (k.definition, k.key) > (?1, ?2)
             ORDER BY k.definition, k.key
             LIMIT ?3",
        )
        .bind(after.0)
        .bind(after.1)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)
    }
}
