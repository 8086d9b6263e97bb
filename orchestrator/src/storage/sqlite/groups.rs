//! The rows of consumer groups. Writes wait for no disk: what a crash takes back is handed out again.

use std::collections::HashSet;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use skald_core::{
    ids::{SagaId, Shard},
    time::Timestamp,
};
use sqlx::{SqliteConnection, types::Uuid};

use super::{
    super::{
        StoreError,
        groups::{
            Group, NewGroup, PutGroup, ShardLag, Start,
            rows::{
                Change, GroupRecord, GroupRows, HELD_OF_STREAM_MAX, Held, HeldRecord, LagRecord, Seen, View,
                filter_text, number,
            },
        },
        records,
    },
    SHARD, SqliteStore,
    log::hex_array,
    now,
};

mod change;

/// One row for each cursor, each with all of the group: one statement is of one moment by itself.
const VIEW: &str = "
    SELECT g.name, g.filter, g.retry_initial_ms, g.retry_max_ms, g.retry_attempts, g.created_at_us,
           ?2 AS now_us,
           (SELECT json_group_array(json_array(consumer, seen_until_us)) FROM consumer_members WHERE group_name = ?1)
               AS members,
           EXISTS (SELECT 1 FROM consumer_held WHERE group_name = ?1 AND status = 'retry' AND next_at_us <= ?2) AS due,
           (SELECT min(next_at_us) FROM consumer_held
            WHERE group_name = ?1 AND status = 'retry' AND next_at_us > ?2) AS next_due_us,
           c.shard, s.head, c.looked_to, c.in_hand, c.owed, c.consumer, c.token, c.lease_ms, c.lease_until_us,
           c.losses, c.moved_at_us, c.revision,
           EXISTS (SELECT 1 FROM consumer_held AS h WHERE h.group_name = ?1 AND h.shard = c.shard) AS holds
    FROM consumer_groups AS g
    JOIN consumer_cursors AS c ON c.group_name = g.name
    JOIN shards AS s ON s.shard = c.shard
    WHERE g.name = ?1
    ORDER BY c.shard";

#[async_trait]
impl GroupRows for SqliteStore {
    async fn put_group_row(&self, group: &NewGroup) -> Result<PutGroup, StoreError> {
        let (group, now) = (group.clone(), now());
        self.writer.lazily(move |connection| put(connection, group, now).boxed()).await
    }

    async fn group_rows(&self) -> Result<Vec<Group>, StoreError> {
        let asking = sqlx::query_as::<_, GroupRecord>(
            "SELECT name, filter, retry_initial_ms, retry_max_ms, retry_attempts, created_at_us
             FROM consumer_groups
             ORDER BY name",
        );
        records::read_all(self.followers.fetch(asking).await?)
    }

    async fn drop_group_rows(&self, name: &str) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.writer.lazily(move |connection| drop_all(connection, name).boxed()).await
    }

    async fn view(&self, group: &str) -> Result<Option<View>, StoreError> {
        View::read(self.followers.fetch(sqlx::query_as(VIEW).bind(group).bind(now().as_micros())).await?)
    }

    async fn held_streams(&self, group: &str, streams: &[(Shard, SagaId)]) -> Result<HashSet<SagaId>, StoreError> {
        let streams: Vec<Uuid> = streams.iter().map(|(_, stream)| stream.as_uuid()).collect();
        let asking = sqlx::query_as::<_, (Uuid,)>(
            "SELECT DISTINCT stream
             FROM consumer_held
             WHERE group_name = ?1 AND shard = 0 AND stream IN (SELECT unhex(value) FROM json_each(?2))",
        )
        .bind(group)
        .bind(hex_array(&streams));
        let found = self.followers.fetch(asking).await?;
        Ok(found.into_iter().map(|(stream,)| SagaId::from_uuid(stream)).collect())
    }

    async fn due(&self, group: &str, shards: &[Shard], now: Timestamp, limit: u32) -> Result<Vec<Held>, StoreError> {
        if !shards.contains(&SHARD) {
            return Ok(Vec::new());
        }
        let asking = sqlx::query_as::<_, HeldRecord>(
            "SELECT *
             FROM (SELECT shard, position, stream, status, tries, next_at_us, error, held_at_us
                   FROM consumer_held
                   WHERE group_name = ?1 AND status = 'retry' AND next_at_us <= ?2 AND shard = 0
                   ORDER BY next_at_us, position
                   LIMIT ?3)
             ORDER BY position",
        )
        .bind(group)
        .bind(now.as_micros())
        .bind(limit);
        records::read_all(self.followers.fetch(asking).await?)
    }

    async fn held(&self, group: &str, shard: Shard, streams: &[SagaId]) -> Result<Vec<Held>, StoreError> {
        let streams: Vec<Uuid> = streams.iter().map(|stream| stream.as_uuid()).collect();
        let asking = sqlx::query_as::<_, HeldRecord>(
            "SELECT shard, position, stream, status, tries, next_at_us, error, held_at_us
             FROM (SELECT *, row_number() OVER (PARTITION BY stream ORDER BY position) AS nth
                   FROM consumer_held
                   WHERE group_name = ?1 AND shard = ?2 AND stream IN (SELECT unhex(value) FROM json_each(?3)))
             WHERE nth <= ?4",
        )
        .bind(group)
        .bind(shard.0)
        .bind(hex_array(&streams))
        .bind(HELD_OF_STREAM_MAX);
        records::read_all(self.followers.fetch(asking).await?)
    }

    async fn parked_rows(&self, group: &str, after: (Shard, i64), limit: u32) -> Result<Vec<Held>, StoreError> {
        let asking = sqlx::query_as::<_, HeldRecord>(
            "SELECT shard, position, stream, status, tries, next_at_us, error, held_at_us
             FROM consumer_held
             WHERE group_name = ?1 AND status = 'parked' AND (shard, position) > (?2, ?3)
             ORDER BY shard, position
             LIMIT ?4",
        )
        .bind(group)
        .bind(after.0.0)
        .bind(after.1)
        .bind(limit);
        records::read_all(self.followers.fetch(asking).await?)
    }

    async fn change(&self, group: &str, seen: Option<Seen>, changes: Vec<Change>) -> Result<Vec<Shard>, StoreError> {
        change::change(&self.writer, group, seen, changes).await
    }

    async fn lag_rows(&self, group: Option<&str>) -> Result<Vec<(String, ShardLag)>, StoreError> {
        let asking = sqlx::query_as::<_, LagRecord>(
            "SELECT c.group_name, c.shard, s.head, c.looked_to, c.in_hand, c.owed,
                    count(*) FILTER (WHERE h.status = 'retry') AS retrying,
                    count(*) FILTER (WHERE h.status = 'waiting') AS waiting,
                    count(*) FILTER (WHERE h.status = 'parked') AS parked
             FROM consumer_cursors AS c
             JOIN shards AS s ON s.shard = c.shard
             LEFT JOIN consumer_held AS h ON h.group_name = c.group_name AND h.shard = c.shard
             WHERE c.group_name = ?1 OR ?1 IS NULL
             GROUP BY c.group_name, c.shard
             ORDER BY c.group_name, c.shard",
        )
        .bind(group);
        records::read_all(self.followers.fetch(asking).await?)
    }
}

async fn put(connection: &mut SqliteConnection, group: NewGroup, now: Timestamp) -> Result<PutGroup, sqlx::Error> {
    let attempts = i32::try_from(group.retry.attempts).unwrap_or(i32::MAX);
    let made = sqlx::query(
        "INSERT INTO consumer_groups (name, filter, retry_initial_ms, retry_max_ms, retry_attempts, created_at_us)
         VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(&group.name)
    .bind(filter_text(&group.filter))
    .bind(number(group.retry.initial))
    .bind(number(group.retry.max))
    .bind(attempts)
    .bind(now.as_micros())
    .execute(&mut *connection)
    .await?;
    if made.rows_affected() == 1 {
        sqlx::query(
            "INSERT INTO consumer_cursors (group_name, shard, looked_to, token, moved_at_us)
             SELECT ?1, shard, CASE WHEN ?2 THEN head ELSE 0 END, ?3, ?3
             FROM shards",
        )
        .bind(&group.name)
        .bind(group.start == Start::End)
        .bind(now.as_micros())
        .execute(connection)
        .await?;
        return Ok(PutGroup::Created);
    }
    let changed = sqlx::query(
        "UPDATE consumer_groups
         SET filter = ?2, retry_initial_ms = ?3, retry_max_ms = ?4, retry_attempts = ?5
         WHERE name = ?1
           AND (filter <> ?2 OR retry_initial_ms <> ?3 OR retry_max_ms <> ?4 OR retry_attempts <> ?5)",
    )
    .bind(&group.name)
    .bind(filter_text(&group.filter))
    .bind(number(group.retry.initial))
    .bind(number(group.retry.max))
    .bind(attempts)
    .execute(connection)
    .await?;
    Ok(if changed.rows_affected() == 1 { PutGroup::Changed } else { PutGroup::Unchanged })
}

async fn drop_all(connection: &mut SqliteConnection, name: String) -> Result<bool, sqlx::Error> {
    for sql in [
        "DELETE FROM consumer_cursors WHERE group_name = ?",
        "DELETE FROM consumer_members WHERE group_name = ?",
        "DELETE FROM consumer_held WHERE group_name = ?",
    ] {
        sqlx::query(sql).bind(&name).execute(&mut *connection).await?;
    }
    let dropped = sqlx::query("DELETE FROM consumer_groups WHERE name = ?").bind(&name).execute(connection).await?;
    Ok(dropped.rows_affected() == 1)
}
