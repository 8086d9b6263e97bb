//! Putting archived streams back, within the transaction that is open.

use skald_core::ids::SagaId;
use sqlx::{AssertSqlSafe, PgConnection};

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
    began_at_ms,
};

pub async fn restore(
    connection: &mut PgConnection,
    definitions: &[StoredDefinition],
    streams: &[WholeStream],
) -> Result<Vec<Restored>, RetentionError> {
    restoring::restore(&mut Rows(connection), definitions, streams).await
}

struct Rows<'a>(&'a mut PgConnection);

impl RestoreRows for Rows<'_> {
    async fn register(&mut self, definition: &StoredDefinition) -> Result<Registration, StoreError> {
        registry::register(self.0, definition).await
    }

    async fn shard_count(&mut self) -> Result<u16, StoreError> {
        let shards: i64 =
            sqlx::query_scalar("SELECT count(*) FROM shards").fetch_one(&mut *self.0).await.map_err(failed)?;
        u16::try_from(shards).map_err(|_| StoreError::Unreadable(format!("{shards} shards")))
    }

    async fn shard_end(&mut self, shard: i32) -> Result<Option<ShardEnd>, StoreError> {
        let found: Option<(i64, i64)> =
            sqlx::query_as("SELECT head, epoch FROM shards WHERE shard = $1 FOR NO KEY UPDATE")
                .bind(shard)
                .fetch_optional(&mut *self.0)
                .await
                .map_err(failed)?;
        Ok(found.map(|(head, epoch)| ShardEnd { head, epoch }))
    }

    async fn set_shard_end(&mut self, shard: i32, end: ShardEnd) -> Result<(), StoreError> {
        let setting =
            sqlx::query("UPDATE shards SET head = $2, epoch = $3 WHERE shard = $1 AND (head, epoch) <> ($2, $3)");
        setting.bind(shard).bind(end.head).bind(end.epoch).execute(&mut *self.0).await.map_err(failed)?;
        Ok(())
    }

    /// The month's partitions, unless rows of that month lie in the default ones.
    async fn prepare(&mut self, stream: SagaId) -> Result<(), StoreError> {
        sqlx::query("SELECT skald_create_month(date_trunc('month', to_timestamp($1 / 1000.0) AT TIME ZONE 'UTC'))")
            .bind(began_at_ms(stream))
            .execute(&mut *self.0)
            .await
            .map_err(failed)?;
        Ok(())
    }

    async fn saga(&mut self, id: SagaId) -> Result<Option<SagaCopy>, StoreError> {
        sqlx::query_as("SELECT *, NULL AS start_key, NULL AS fingerprint FROM sagas WHERE id = $1")
            .bind(id.as_uuid())
            .fetch_optional(&mut *self.0)
            .await
            .map_err(failed)
    }

    async fn streams(&mut self, name: &str, id: SagaId) -> Result<Vec<StreamCopy>, StoreError> {
        sqlx::query_as("SELECT * FROM streams WHERE name = $1 OR id = $2")
            .bind(name)
            .bind(id.as_uuid())
            .fetch_all(&mut *self.0)
            .await
            .map_err(failed)
    }

    async fn events(&mut self, id: SagaId) -> Result<Vec<EventCopy>, StoreError> {
        let rows: Vec<CopiedRecord> = sqlx::query_as("SELECT * FROM events WHERE stream = $1 ORDER BY version")
            .bind(id.as_uuid())
            .fetch_all(&mut *self.0)
            .await
            .map_err(failed)?;
        copies(&rows)
    }

    async fn is_taken(&mut self, shard: i32, position: i64) -> Result<bool, StoreError> {
        let sql = format!(
            "SELECT EXISTS (SELECT 1
                            FROM events
                            WHERE shard = $1
                              AND position >= $2
                              AND position < $2 + {EVENTS_MAX}
                              AND position - events < $2)"
        );
        sqlx::query_scalar(AssertSqlSafe(sql)).bind(shard).bind(position).fetch_one(&mut *self.0).await.map_err(failed)
    }

    async fn insert_saga(&mut self, saga: &SagaCopy) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO sagas (id, shard, definition, definition_version, mode, status, state, version, correlation_id,
                                failure, created_at_us, updated_at_us, ended_at_us, deadline_at_us, wake_at_us)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
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
             VALUES ($1, $2, $3, $4, $5)
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
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
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
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
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

    async fn add_hole(&mut self, shard: i32, hole: Hole) -> Result<(), StoreError> {
        let adding = sqlx::query("SELECT skald_add_hole($1, $2, $3)").bind(shard).bind(hole.first).bind(hole.last);
        adding.execute(&mut *self.0).await.map_err(failed)?;
        Ok(())
    }

    async fn fill_hole(&mut self, shard: i32, position: i64) -> Result<(), StoreError> {
        let filling = sqlx::query("SELECT skald_fill_hole($1, $2)").bind(shard).bind(position);
        filling.execute(&mut *self.0).await.map_err(failed)?;
        Ok(())
    }
}
