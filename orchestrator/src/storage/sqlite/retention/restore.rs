//! Putting archived streams back, within the transaction that is open.

use skald_core::ids::SagaId;
use sqlx::{AssertSqlSafe, SqliteConnection};

use super::{
    super::{
        super::{
            Registration, StoreError, StoredDefinition,
            retention::{
                EventCopy, Hole, Restored, RetentionError, SagaCopy, StreamCopy, WholeStream,
                records::{CopiedRecord, copies},
                restoring::{self, RestoreRows, ShardEnd},
            },
            runs::EVENTS_MAX,
        },
        failed, registry,
    },
    holes,
};

pub async fn restore(
    connection: &mut SqliteConnection,
    definitions: Vec<StoredDefinition>,
    streams: Vec<WholeStream>,
) -> Result<Vec<Restored>, RetentionError> {
    restoring::restore(&mut Rows(connection), &definitions, &streams).await
}

struct Rows<'a>(&'a mut SqliteConnection);

impl RestoreRows for Rows<'_> {
    async fn register(&mut self, definition: &StoredDefinition) -> Result<Registration, StoreError> {
        registry::register_on(self.0, definition).await.map_err(failed)
    }

    async fn shard_count(&mut self) -> Result<u16, StoreError> {
        Ok(1)
    }

    async fn shard_end(&mut self, shard: i32) -> Result<Option<ShardEnd>, StoreError> {
        let found: Option<(i64, i64)> = sqlx::query_as("SELECT head, epoch FROM shards WHERE shard = ?")
            .bind(shard)
            .fetch_optional(&mut *self.0)
            .await
            .map_err(failed)?;
        Ok(found.map(|(head, epoch)| ShardEnd { head, epoch }))
    }

    async fn set_shard_end(&mut self, shard: i32, end: ShardEnd) -> Result<(), StoreError> {
        let setting =
            sqlx::query("UPDATE shards SET head = ?2, epoch = ?3 WHERE shard = ?1 AND (head, epoch) <> (?2, ?3)");
        setting.bind(shard).bind(end.head).bind(end.epoch).execute(&mut *self.0).await.map_err(failed)?;
        Ok(())
    }

    async fn prepare(&mut self, _: SagaId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn saga(&mut self, id: SagaId) -> Result<Option<SagaCopy>, StoreError> {
        sqlx::query_as("SELECT *, NULL AS start_key, NULL AS fingerprint FROM sagas WHERE id = ?")
            .bind(id.as_uuid())
            .fetch_optional(&mut *self.0)
            .await
            .map_err(failed)
    }

    async fn streams(&mut self, name: &str, id: SagaId) -> Result<Vec<StreamCopy>, StoreError> {
        sqlx::query_as("SELECT * FROM streams WHERE name = ? OR id = ?")
            .bind(name)
            .bind(id.as_uuid())
            .fetch_all(&mut *self.0)
            .await
            .map_err(failed)
    }

    async fn events(&mut self, id: SagaId) -> Result<Vec<EventCopy>, StoreError> {
        let rows: Vec<CopiedRecord> = sqlx::query_as("SELECT * FROM events WHERE stream = ? ORDER BY version")
            .bind(id.as_uuid())
            .fetch_all(&mut *self.0)
            .await
            .map_err(failed)?;
        copies(&rows)
    }

    async fn is_taken(&mut self, _: i32, position: i64) -> Result<bool, StoreError> {
        let sql = format!(
            "SELECT EXISTS (SELECT 1
                            FROM events
                            WHERE position >= ?1 AND position < ?1 + {EVENTS_MAX} AND position - events < ?1)"
        );
        sqlx::query_scalar(AssertSqlSafe(sql)).bind(position).fetch_one(&mut *self.0).await.map_err(failed)
    }

    async fn insert_saga(&mut self, saga: &SagaCopy) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO sagas (id, shard, definition, definition_version, mode, status, state, version, correlation_id,
                                failure, created_at_us, updated_at_us, ended_at_us, deadline_at_us, wake_at_us)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(saga.id)
        .bind(saga.shard)
        .bind(&saga.definition)
        .bind(saga.definition_version)
        .bind(&saga.mode)
        .bind(&saga.status)
        .bind(&saga.state)
        .bind(saga.version)
        .bind(&saga.correlation_id)
        .bind(&saga.failure)
        .bind(saga.created_at_us)
        .bind(saga.updated_at_us)
        .bind(saga.ended_at_us)
        .bind(saga.deadline_at_us)
        .bind(saga.wake_at_us)
        .execute(&mut *self.0)
        .await
        .map_err(failed)?;
        let Some((key, fingerprint)) = saga.start_key.as_ref().zip(saga.fingerprint.as_ref()) else { return Ok(()) };
        sqlx::query(
            "INSERT INTO start_keys (definition, key, shard, saga, fingerprint)
             VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (definition, key) DO NOTHING",
        )
        .bind(&saga.definition)
        .bind(key)
        .bind(saga.shard)
        .bind(saga.id)
        .bind(fingerprint)
        .execute(&mut *self.0)
        .await
        .map_err(failed)?;
        Ok(())
    }

    async fn insert_stream(&mut self, stream: &StreamCopy) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO streams (name, id, shard, category, version, created_at_us, updated_at_us)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&stream.name)
        .bind(stream.id)
        .bind(stream.shard)
        .bind(&stream.category)
        .bind(stream.version)
        .bind(stream.created_at_us)
        .bind(stream.updated_at_us)
        .execute(&mut *self.0)
        .await
        .map_err(failed)?;
        Ok(())
    }

    async fn insert_event(&mut self, event: &EventCopy) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO events (position, shard, stream, version, epoch, kind, type, occurred_at_us, actor,
                                 schema_version, event_id, correlation_id, causation_id, data)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(event.position)
        .bind(event.shard)
        .bind(event.stream)
        .bind(event.version)
        .bind(event.epoch)
        .bind(&event.kind)
        .bind(&event.type_name)
        .bind(event.occurred_at_us)
        .bind(&event.actor)
        .bind(event.schema_version)
        .bind(&event.event_id)
        .bind(&event.correlation_id)
        .bind(&event.causation_id)
        .bind(&event.data)
        .execute(&mut *self.0)
        .await
        .map_err(failed)?;
        Ok(())
    }

    async fn add_hole(&mut self, _: i32, hole: Hole) -> Result<(), StoreError> {
        holes::add(self.0, hole).await.map_err(failed)
    }

    async fn fill_hole(&mut self, _: i32, position: i64) -> Result<(), StoreError> {
        holes::fill(self.0, position).await.map_err(failed)
    }
}
