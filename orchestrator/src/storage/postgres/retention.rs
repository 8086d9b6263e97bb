//! Retention: a month leaves whole, with its partitions ([`month`]).
//!
//! Everything here but the lease goes through a session of its own, so that nothing else waits for it.

use std::collections::HashSet;

use async_trait::async_trait;
use skald_core::{
    ids::SagaId,
    time::{Millis, Timestamp},
};
use sqlx::{
    AssertSqlSafe, FromRow,
    postgres::{PgConnectOptions, PgRow},
    types::Uuid,
};

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
    PostgresStore, failed,
};

mod month;
mod restore;

/// How long one of its statements may take: it reads pages, and counts through a month's positions.
const STATEMENT_TIMEOUT_MS: &str = "600000";

pub(super) fn session(base: &PgConnectOptions) -> PgConnectOptions {
    base.clone().application_name("skald-retention").options([
        ("synchronous_commit", "on"),
        // Which plan is good depends on the ids: they tell which partitions are left out.
        ("plan_cache_mode", "force_custom_plan"),
        ("jit", "off"),
        ("statement_timeout", STATEMENT_TIMEOUT_MS),
        ("idle_in_transaction_session_timeout", "60000"),
    ])
}

#[async_trait]
impl Retention for PostgresStore {
    fn unit(&self) -> Unit {
        Unit::Month
    }

    async fn hold_retention(&self, holder: &str, lease: Millis) -> Result<bool, StoreError> {
        let holding = sqlx::query(
            "INSERT INTO retention_lease AS r (holder, until_us) VALUES ($1, skald_now_us() + $2)
             ON CONFLICT (one) DO UPDATE
             SET holder = excluded.holder, until_us = excluded.until_us
             WHERE r.holder = excluded.holder OR r.until_us <= skald_now_us()",
        )
        .bind(holder)
        .bind(i64::try_from(lease.0).unwrap_or(i64::MAX / 1000) * 1000);
        let held =
            self.groups.ask(async |session| holding.execute(session).await.map_err(failed)).await?.rows_affected();
        Ok(held == 1)
    }

    async fn let_retention_go(&self, holder: &str) -> Result<(), StoreError> {
        let letting_go = sqlx::query("DELETE FROM retention_lease WHERE holder = $1").bind(holder);
        self.groups.ask(async |session| letting_go.execute(session).await.map(drop).map_err(failed)).await
    }

    async fn needs(&self) -> Result<Vec<Need>, StoreError> {
        let rows: Vec<NeedRecord> = self
            .retention
            .fetch(sqlx::query_as(
                "SELECT 'consumer group ' || group_name AS who, shard, looked_to AS position, in_hand, owed
                 FROM consumer_cursors
                 UNION ALL
                 SELECT 'the relay to ' || b.bus, s.shard, coalesce(r.position, 0), '', ''
                 FROM (SELECT DISTINCT bus FROM relay_cursors) AS b
                 CROSS JOIN shards AS s
                 LEFT JOIN relay_cursors AS r ON r.bus = b.bus AND r.shard = s.shard
                 UNION ALL
                 SELECT 'the counts of events', s.shard, coalesce(c.position, 0), '', ''
                 FROM shards AS s
                 LEFT JOIN event_count_cursors AS c ON c.shard = s.shard",
            ))
            .await?;
        read_all(rows)
    }

    async fn held_streams(&self, before: SagaId) -> Result<HashSet<SagaId>, StoreError> {
        let held: Vec<(Uuid,)> = self
            .retention
            .fetch(sqlx::query_as("SELECT DISTINCT stream FROM consumer_held WHERE stream < $1").bind(before.as_uuid()))
            .await?;
        Ok(held.into_iter().map(|(stream,)| SagaId::from_uuid(stream)).collect())
    }

    async fn old_streams(
        &self,
        after: Option<SagaId>,
        before: SagaId,
        limit: u32,
    ) -> Result<Vec<OldStream>, StoreError> {
        let rows: Vec<OldStreamRecord> = self
            .retention
            .fetch(
                sqlx::query_as(
                    "SELECT o.id, o.shard, o.name, o.version, o.over_since_us,
                            (SELECT e.position FROM events AS e WHERE e.stream = o.id AND e.version = o.version) AS position
                     FROM ((SELECT id, shard, NULL AS name, version, ended_at_us AS over_since_us
                            FROM sagas
                            WHERE id > $1 AND id < $2
                            ORDER BY id
                            LIMIT $3)
                           UNION ALL
                           (SELECT id, shard, name, version, updated_at_us
                            FROM streams
                            WHERE id > $1 AND id < $2
                            ORDER BY id
                            LIMIT $3)
                           ORDER BY id
                           LIMIT $3) AS o
                     ORDER BY o.id",
                )
                .bind(after.map_or(Uuid::nil(), SagaId::as_uuid))
                .bind(before.as_uuid())
                .bind(i64::from(limit)),
            )
            .await?;
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
                 WHERE s.id BETWEEN $2 AND $3 AND s.id = ANY($1)",
                ids,
            )
            .await?;
        let streams: Vec<StreamCopy> = self
            .of_ids(
                "SELECT name, id, shard, category, version, created_at_us, updated_at_us
                 FROM streams
                 WHERE id BETWEEN $2 AND $3 AND id = ANY($1)",
                ids,
            )
            .await?;
        let sagas = sagas.into_iter().map(|saga| Copied::Saga(Box::new(saga)));
        let mut rows: Vec<Copied> = sagas.chain(streams.into_iter().map(Copied::Stream)).collect();
        rows.sort_by_key(Copied::id);
        Ok(rows)
    }

    /// The bounds on the stream, implied by the list, let whole partitions be left out.
    async fn copy_events(
        &self,
        ids: &[SagaId],
        after: Option<(SagaId, i64)>,
        limit: u32,
    ) -> Result<Vec<EventCopy>, StoreError> {
        let (stream, version) = after.map_or((Uuid::nil(), 0), |(stream, version)| (stream.as_uuid(), version));
        let (ids, first, last) = bounds(ids);
        let sql = format!(
            "SELECT {RUN_COLUMNS}, event_id, correlation_id, causation_id
             FROM events
             WHERE stream BETWEEN $2 AND $3 AND stream = ANY($1) AND (stream, version) > ($4, $5)
             ORDER BY stream, version
             LIMIT $6"
        );
        let query = sqlx::query_as(AssertSqlSafe(sql)).bind(ids).bind(first).bind(last).bind(stream).bind(version);
        let rows: Vec<CopiedRecord> = self.retention.fetch(query.bind(i64::from(limit))).await?;
        copies(&rows)
    }

    async fn parts(&self) -> Result<Vec<Part>, StoreError> {
        let sql = format!("SELECT {PART_COLUMNS} FROM archive_parts ORDER BY name");
        let rows: Vec<PartRecord> = self.retention.fetch(sqlx::query_as(AssertSqlSafe(sql))).await?;
        read_all(rows)
    }

    async fn is_removed(&self, id: SagaId) -> Result<bool, StoreError> {
        let found: Vec<(i32,)> = self
            .readers
            .fetch(
                sqlx::query_as(
                    "SELECT 1 FROM archive_parts WHERE state <> 'written' AND $1 BETWEEN first_id AND last_id LIMIT 1",
                )
                .bind(id.as_uuid()),
            )
            .await?;
        Ok(!found.is_empty())
    }

    async fn add_part(&self, part: &Part) -> Result<(), StoreError> {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let adding = sqlx::query(
            "INSERT INTO archive_parts (name, state, first_id, last_id, sagas, streams, events, sha256, archived_at_us)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(&part.name)
        .bind(part.state.as_str())
        .bind(part.first_id.as_uuid())
        .bind(part.last_id.as_uuid())
        .bind(count(part.sagas))
        .bind(count(part.streams))
        .bind(count(part.events))
        .bind(part.sha256.as_slice())
        .bind(part.archived_at.as_micros());
        self.retention.ask(async |session| adding.execute(session).await.map(drop).map_err(failed)).await
    }

    async fn forget_part(&self, name: &str) -> Result<(), StoreError> {
        self.to_part("DELETE FROM archive_parts WHERE name = $1", name).await
    }

    async fn begin_removing(&self, name: &str) -> Result<(), StoreError> {
        self.to_part("UPDATE archive_parts SET state = 'removing' WHERE name = $1 AND state = 'written'", name).await
    }

    async fn remove_some(&self, _: &str, _: &str, _: &[Leaving]) -> Result<usize, RetentionError> {
        Err(RetentionError::Changed("streams go by months here".to_owned()))
    }

    async fn end_removing(&self, name: &str) -> Result<(), StoreError> {
        let sql = "UPDATE archive_parts SET state = 'removed', removed_at_us = skald_now_us() WHERE name = $1";
        self.to_part(sql, name).await
    }

    async fn droppable_months(&self) -> Result<Vec<Timestamp>, StoreError> {
        month::droppable(&self.retention).await
    }

    async fn drop_month(
        &self,
        holder: &str,
        month: Timestamp,
        parts: &[String],
        appended: i64,
    ) -> Result<(), RetentionError> {
        let dropped = month::drop_whole(&self.retention, holder, month, parts, appended).await;
        self.tail.forget();
        dropped
    }

    async fn restore(
        &self,
        definitions: &[StoredDefinition],
        streams: &[WholeStream],
    ) -> Result<Vec<Restored>, RetentionError> {
        self.retention
            .ask(async |session| {
                sqlx::raw_sql("BEGIN").execute(&mut *session).await.map_err(failed)?;
                let restored = restore::restore(session, definitions, streams).await;
                let end = if restored.is_ok() { "COMMIT" } else { "ROLLBACK" };
                sqlx::raw_sql(end).execute(session).await.map_err(failed)?;
                Ok(restored)
            })
            .await?
    }
}

impl PostgresStore {
    async fn of_ids<R>(&self, sql: &'static str, ids: &[SagaId]) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let (ids, first, last) = bounds(ids);
        self.retention.fetch(sqlx::query_as(sql).bind(ids).bind(first).bind(last)).await
    }

    async fn to_part(&self, sql: &'static str, name: &str) -> Result<(), StoreError> {
        let changing = sqlx::query(sql).bind(name);
        self.retention.ask(async |session| changing.execute(session).await.map(drop).map_err(failed)).await
    }
}

fn bounds(ids: &[SagaId]) -> (Vec<Uuid>, Option<Uuid>, Option<Uuid>) {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    let (first, last) = (ids.iter().min().copied(), ids.iter().max().copied());
    (ids, first, last)
}

/// When a stream began, as its id tells.
fn began_at_ms(stream: SagaId) -> i64 {
    i64::try_from(stream.as_uuid().as_u128() >> 80).unwrap_or(i64::MAX)
}
