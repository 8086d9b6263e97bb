//! Retention: streams leave one by one, a few hundred rows at a time.

use std::collections::HashSet;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use skald_core::{
    ids::SagaId,
    time::{Millis, Timestamp},
};
use sqlx::{FromRow, SqliteConnection, sqlite::SqliteRow, types::Uuid};

use super::{
    super::{
        StoreError, StoredDefinition,
        records::{RUN_COLUMNS, read_all},
        retention::{
            Copied, EventCopy, Leaving, Need, OldStream, Part, Restored, Retention, RetentionError, SagaCopy,
            StreamCopy, Unit, WholeStream,
            records::{CopiedRecord, NeedRecord, OldStreamRecord, PART_COLUMNS, PartRecord, copies},
        },
    },
    SqliteStore, failed,
    log::hex_array,
    now,
};

pub(super) mod holes;
mod remove;
mod restore;

#[async_trait]
impl Retention for SqliteStore {
    fn unit(&self) -> Unit {
        Unit::Stream
    }

    async fn hold_retention(&self, holder: &str, lease: Millis) -> Result<bool, StoreError> {
        let now = now();
        let holding = sqlx::query(
            "INSERT INTO retention_lease (one, holder, until_us) VALUES (1, ?1, ?2)
             ON CONFLICT (one) DO UPDATE
             SET holder = excluded.holder, until_us = excluded.until_us
             WHERE holder = excluded.holder OR until_us <= ?3",
        )
        .bind(holder.to_owned())
        .bind(now.plus(lease).as_micros())
        .bind(now.as_micros());
        Ok(self.writer.execute(holding).await?.rows_affected() == 1)
    }

    async fn let_retention_go(&self, holder: &str) -> Result<(), StoreError> {
        let letting_go = sqlx::query("DELETE FROM retention_lease WHERE holder = ?").bind(holder.to_owned());
        self.writer.execute(letting_go).await.map(drop)
    }

    async fn needs(&self) -> Result<Vec<Need>, StoreError> {
        let rows: Vec<NeedRecord> = sqlx::query_as(
            "SELECT 'consumer group ' || group_name AS who, shard, looked_to AS position, in_hand, owed
             FROM consumer_cursors
             UNION ALL
             SELECT 'the relay to ' || bus, shard, position, '', ''
             FROM relay_cursors
             UNION ALL
             SELECT 'the counts of events', s.shard, coalesce(c.position, 0), '', ''
             FROM shards AS s
             LEFT JOIN event_count_cursors AS c ON c.shard = s.shard",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        read_all(rows)
    }

    async fn held_streams(&self, before: SagaId) -> Result<HashSet<SagaId>, StoreError> {
        let held: Vec<(Uuid,)> = sqlx::query_as("SELECT DISTINCT stream FROM consumer_held WHERE stream < ?")
            .bind(before.as_uuid())
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
        Ok(held.into_iter().map(|(stream,)| SagaId::from_uuid(stream)).collect())
    }

    async fn old_streams(
        &self,
        after: Option<SagaId>,
        before: SagaId,
        limit: u32,
    ) -> Result<Vec<OldStream>, StoreError> {
        let rows: Vec<OldStreamRecord> = sqlx::query_as(
            "SELECT o.id, o.shard, o.name, o.version, o.over_since_us,
                    (SELECT e.position FROM events AS e WHERE e.stream = o.id AND e.version = o.version) AS position
             FROM (SELECT * FROM (SELECT id, shard, NULL AS name, version, ended_at_us AS over_since_us
                                  FROM sagas
                                  WHERE id > ?1 AND id < ?2
                                  ORDER BY id
                                  LIMIT ?3)
                   UNION ALL
                   SELECT * FROM (SELECT id, shard, name, version, updated_at_us
                                  FROM streams
                                  WHERE id > ?1 AND id < ?2
                                  ORDER BY id
                                  LIMIT ?3)
                   ORDER BY id
                   LIMIT ?3) AS o
             ORDER BY o.id",
        )
        .bind(after.map_or(Uuid::nil(), SagaId::as_uuid))
        .bind(before.as_uuid())
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        read_all(rows)
    }

    async fn copy_rows(&self, ids: &[SagaId]) -> Result<Vec<Copied>, StoreError> {
        let sagas: Vec<SagaCopy> = self
            .of_ids(
                "SELECT s.id, s.shard, s.definition, s.definition_version, s.mode, s.status, s.state, s.version,
                        s.correlation_id, s.failure, s.created_at_us, s.updated_at_us, s.ended_at_us, s.deadline_at_us,
                        s.wake_at_us, k.key AS start_key, k.fingerprint
                 FROM sagas AS s
                 LEFT JOIN start_keys AS k ON k.saga = s.id
                 WHERE s.id IN (SELECT unhex(value) FROM json_each(?1))",
                ids,
            )
            .await?;
        let streams: Vec<StreamCopy> = self
            .of_ids(
                "SELECT name, id, shard, category, version, created_at_us, updated_at_us
                 FROM streams
                 WHERE id IN (SELECT unhex(value) FROM json_each(?1))",
                ids,
            )
            .await?;
        let sagas = sagas.into_iter().map(|saga| Copied::Saga(Box::new(saga)));
        let mut rows: Vec<Copied> = sagas.chain(streams.into_iter().map(Copied::Stream)).collect();
        rows.sort_by_key(Copied::id);
        Ok(rows)
    }

    async fn copy_events(
        &self,
        ids: &[SagaId],
        after: Option<(SagaId, i64)>,
        limit: u32,
    ) -> Result<Vec<EventCopy>, StoreError> {
        let (stream, version) = after.map_or((Uuid::nil(), 0), |(stream, version)| (stream.as_uuid(), version));
        let sql = format!(
            "SELECT {RUN_COLUMNS}, event_id, correlation_id, causation_id
             FROM events
             WHERE stream IN (SELECT unhex(value) FROM json_each(?1)) AND (stream, version) > (?2, ?3)
             ORDER BY stream, version
             LIMIT ?4"
        );
        let rows: Vec<CopiedRecord> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(hex_of(ids))
            .bind(stream)
            .bind(version)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
        copies(&rows)
    }

    async fn parts(&self) -> Result<Vec<Part>, StoreError> {
        let sql = format!("SELECT {PART_COLUMNS} FROM archive_parts ORDER BY name");
        let rows: Vec<PartRecord> =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&self.readers).await.map_err(failed)?;
        read_all(rows)
    }

    async fn is_removed(&self, id: SagaId) -> Result<bool, StoreError> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM archive_parts WHERE state <> 'written' AND ?1 BETWEEN first_id AND last_id)",
        )
        .bind(id.as_uuid())
        .fetch_one(&self.readers)
        .await
        .map_err(failed)
    }

    async fn add_part(&self, part: &Part) -> Result<(), StoreError> {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let adding = sqlx::query(
            "INSERT INTO archive_parts (name, state, first_id, last_id, sagas, streams, events, sha256, archived_at_us)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(part.name.clone())
        .bind(part.state.as_str())
        .bind(part.first_id.as_uuid())
        .bind(part.last_id.as_uuid())
        .bind(count(part.sagas))
        .bind(count(part.streams))
        .bind(count(part.events))
        .bind(part.sha256.to_vec())
        .bind(part.archived_at.as_micros());
        self.writer.execute(adding).await.map(drop)
    }

    async fn forget_part(&self, name: &str) -> Result<(), StoreError> {
        let forgetting = sqlx::query("DELETE FROM archive_parts WHERE name = ?").bind(name.to_owned());
        self.writer.execute(forgetting).await.map(drop)
    }

    async fn begin_removing(&self, name: &str) -> Result<(), StoreError> {
        let beginning = sqlx::query("UPDATE archive_parts SET state = 'removing' WHERE name = ? AND state = 'written'")
            .bind(name.to_owned());
        self.writer.execute(beginning).await.map(drop)
    }

    async fn remove_some(&self, holder: &str, part: &str, streams: &[Leaving]) -> Result<usize, RetentionError> {
        let (holder, part, streams) = (holder.to_owned(), part.to_owned(), streams.to_vec());
        let removed =
            self.writer.durably(move |connection| remove::remove(connection, holder, part, streams).boxed()).await;
        self.tail.forget();
        removed
    }

    async fn end_removing(&self, name: &str) -> Result<(), StoreError> {
        let ending = sqlx::query("UPDATE archive_parts SET state = 'removed', removed_at_us = ? WHERE name = ?")
            .bind(now().as_micros())
            .bind(name.to_owned());
        self.writer.execute(ending).await.map(drop)
    }

    async fn droppable_months(&self) -> Result<Vec<Timestamp>, StoreError> {
        Ok(Vec::new())
    }

    async fn drop_month(&self, _: &str, _: Timestamp, _: &[String], _: i64) -> Result<(), RetentionError> {
        Err(RetentionError::Changed("streams go by themselves here".to_owned()))
    }

    async fn restore(
        &self,
        definitions: &[StoredDefinition],
        streams: &[WholeStream],
    ) -> Result<Vec<Restored>, RetentionError> {
        let (definitions, streams) = (definitions.to_vec(), streams.to_vec());
        self.writer.durably(move |connection| restore::restore(connection, definitions, streams).boxed()).await
    }
}

impl SqliteStore {
    async fn of_ids<R>(&self, sql: &'static str, ids: &[SagaId]) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        sqlx::query_as(sql).bind(hex_of(ids)).fetch_all(&self.readers).await.map_err(failed)
    }
}

fn hex_of(ids: &[SagaId]) -> String {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    hex_array(&ids)
}

/// Whoever lost the lease removes nothing.
async fn check_lease(connection: &mut SqliteConnection, holder: &str) -> Result<(), RetentionError> {
    let held: Option<(i64,)> = sqlx::query_as("SELECT 1 FROM retention_lease WHERE holder = ? AND until_us > ?")
        .bind(holder)
        .bind(now().as_micros())
        .fetch_optional(connection)
        .await
        .map_err(failed)?;
    held.map(drop).ok_or(RetentionError::Busy)
}
