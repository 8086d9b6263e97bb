//! The rows of consumer groups. Single statements, on sessions whose commits wait for no disk: what a crash takes back is
//! handed out again.

use std::collections::HashSet;

use async_trait::async_trait;
use skald_core::{
    ids::{SagaId, Shard},
    time::{Millis, Timestamp},
};
use sqlx::{postgres::PgConnectOptions, types::Uuid};

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
    PostgresStore, log,
};

mod change;
#[cfg(test)]
pub(super) use change::CHANGE;

pub(super) fn session(base: &PgConnectOptions, lease: Millis) -> PgConnectOptions {
    let timeouts = super::SessionTimeouts::within(lease);
    log::session(base).application_name("skald-groups").options([
        ("default_transaction_read_only", "off"),
        ("synchronous_commit", "off"),
        ("lock_timeout", &timeouts.lock),
        ("statement_timeout", &timeouts.statement),
        ("idle_in_transaction_session_timeout", &timeouts.statement),
    ])
}

/// One row for each cursor, each with all of the group. A subquery that yields one value is a lookup for each row, and
/// one that asks nothing of the row is asked once.
pub(super) const VIEW: &str = "
    SELECT g.name, g.filter, g.retry_initial_ms, g.retry_max_ms, g.retry_attempts, g.created_at_us,
           now.us AS now_us,
           (SELECT coalesce(json_agg(json_build_array(consumer, seen_until_us))::text, '[]')
            FROM consumer_members
            WHERE group_name = $1) AS members,
           coalesce((SELECT true FROM consumer_held
                     WHERE group_name = $1 AND status = 'retry' AND next_at_us <= (SELECT skald_now_us())
                     ORDER BY next_at_us LIMIT 1), false) AS due,
           (SELECT next_at_us FROM consumer_held
            WHERE group_name = $1 AND status = 'retry' AND next_at_us > (SELECT skald_now_us())
            ORDER BY next_at_us LIMIT 1) AS next_due_us,
           c.shard, s.head, c.looked_to, c.in_hand, c.owed, c.consumer, c.token, c.lease_ms, c.lease_until_us, c.losses,
           c.moved_at_us, c.revision,
           coalesce((SELECT true FROM consumer_held AS h WHERE h.group_name = $1 AND h.shard = c.shard LIMIT 1), false)
               AS holds
    FROM (SELECT skald_now_us() AS us OFFSET 0) AS now,
         consumer_groups AS g,
         consumer_cursors AS c,
         shards AS s
    WHERE g.name = $1 AND c.group_name = $1 AND s.shard = c.shard
    ORDER BY c.shard";

pub(super) const DUE: &str = "
    SELECT *
    FROM (SELECT shard, position, stream, status, tries, next_at_us, error, held_at_us
          FROM consumer_held
          WHERE group_name = $1 AND status = 'retry' AND next_at_us <= $3 AND shard = ANY($2::integer[])
          ORDER BY next_at_us, shard, position
          LIMIT $4) AS h
    ORDER BY shard, position";

pub(super) const HELD: &str = "
    SELECT h.*
    FROM unnest($3::uuid[]) AS a (stream)
    CROSS JOIN LATERAL (
        SELECT shard, position, stream, status, tries, next_at_us, error, held_at_us
        FROM consumer_held AS h
        WHERE h.group_name = $1 AND h.shard = $2 AND h.stream = a.stream
        ORDER BY h.position
        LIMIT $4
    ) AS h";

pub(super) const HELD_STREAMS: &str = "
    SELECT a.stream
    FROM unnest($2::integer[], $3::uuid[]) AS a (shard, stream)
    CROSS JOIN LATERAL (
        SELECT 1 FROM consumer_held AS h WHERE h.group_name = $1 AND h.shard = a.shard AND h.stream = a.stream LIMIT 1
    ) AS h";

pub(super) const PARKED: &str = "
    SELECT shard, position, stream, status, tries, next_at_us, error, held_at_us
    FROM consumer_held
    WHERE group_name = $1 AND status = 'parked' AND (shard, position) > ($2, $3)
    ORDER BY shard, position
    LIMIT $4";

pub(super) const LAGS: &str = "
    SELECT c.group_name, c.shard, s.head, c.looked_to, c.in_hand, c.owed, h.retrying, h.waiting, h.parked
    FROM consumer_cursors AS c
    JOIN shards AS s ON s.shard = c.shard
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE h.status = 'retry') AS retrying,
               count(*) FILTER (WHERE h.status = 'waiting') AS waiting,
               count(*) FILTER (WHERE h.status = 'parked') AS parked
        FROM consumer_held AS h
        WHERE h.group_name = c.group_name AND h.shard = c.shard
    ) AS h
    WHERE c.group_name = $1 OR $1 IS NULL
    ORDER BY c.group_name, c.shard";

/// Binds what makes a group, in the order of its columns.
macro_rules! bind_group {
    ($query:expr, $group:expr) => {
        $query
            .bind($group.name.clone())
            .bind(filter_text(&$group.filter))
            .bind(number($group.retry.initial))
            .bind(number($group.retry.max))
            .bind(i32::try_from($group.retry.attempts).unwrap_or(i32::MAX))
    };
}

#[async_trait]
impl GroupRows for PostgresStore {
    async fn put_group_row(&self, group: &NewGroup) -> Result<PutGroup, StoreError> {
        let creating = sqlx::query_as::<_, (String,)>(
            "WITH made AS (
                 INSERT INTO consumer_groups
                     (name, filter, retry_initial_ms, retry_max_ms, retry_attempts, created_at_us)
                 VALUES ($1, $2, $3, $4, $5, skald_now_us())
                 ON CONFLICT (name) DO NOTHING
                 RETURNING name, created_at_us
             ), cursors AS (
                 INSERT INTO consumer_cursors (group_name, shard, looked_to, token, moved_at_us)
                 SELECT made.name, s.shard, CASE WHEN $6 THEN s.head ELSE 0 END, made.created_at_us, made.created_at_us
                 FROM made, shards AS s
             )
             SELECT name FROM made",
        );
        let creating = bind_group!(creating, group).bind(group.start == Start::End);
        if !self.groups.fetch(creating).await?.is_empty() {
            return Ok(PutGroup::Created);
        }
        let changing = sqlx::query_as::<_, (String,)>(
            "UPDATE consumer_groups
             SET filter = $2, retry_initial_ms = $3, retry_max_ms = $4, retry_attempts = $5
             WHERE name = $1
               AND (filter, retry_initial_ms, retry_max_ms, retry_attempts) IS DISTINCT FROM ($2, $3, $4, $5)
             RETURNING name",
        );
        let changed = self.groups.fetch(bind_group!(changing, group)).await?;
        Ok(if changed.is_empty() { PutGroup::Unchanged } else { PutGroup::Changed })
    }

    async fn group_rows(&self) -> Result<Vec<Group>, StoreError> {
        let rows: Vec<GroupRecord> = self
            .log
            .fetch(sqlx::query_as(
                "SELECT name, filter, retry_initial_ms, retry_max_ms, retry_attempts, created_at_us
                 FROM consumer_groups
                 ORDER BY name",
            ))
            .await?;
        records::read_all(rows)
    }

    async fn drop_group_rows(&self, name: &str) -> Result<bool, StoreError> {
        let dropping = sqlx::query_as::<_, (String,)>(
            "WITH cursors AS (DELETE FROM consumer_cursors WHERE group_name = $1),
                  members AS (DELETE FROM consumer_members WHERE group_name = $1),
                  held AS (DELETE FROM consumer_held WHERE group_name = $1)
             DELETE FROM consumer_groups WHERE name = $1 RETURNING name",
        );
        Ok(!self.groups.fetch(dropping.bind(name.to_owned())).await?.is_empty())
    }

    async fn view(&self, group: &str) -> Result<Option<View>, StoreError> {
        View::read(self.log.fetch(sqlx::query_as(VIEW).bind(group.to_owned())).await?)
    }

    async fn held_streams(&self, group: &str, streams: &[(Shard, SagaId)]) -> Result<HashSet<SagaId>, StoreError> {
        let (shards, streams): (Vec<i32>, Vec<Uuid>) =
            streams.iter().map(|(shard, stream)| (i32::from(shard.0), stream.as_uuid())).unzip();
        let asking = sqlx::query_as::<_, (Uuid,)>(HELD_STREAMS).bind(group.to_owned()).bind(shards).bind(streams);
        Ok(self.log.fetch(asking).await?.into_iter().map(|(stream,)| SagaId::from_uuid(stream)).collect())
    }

    async fn due(&self, group: &str, shards: &[Shard], now: Timestamp, limit: u32) -> Result<Vec<Held>, StoreError> {
        let shards: Vec<i32> = shards.iter().map(|shard| i32::from(shard.0)).collect();
        let asking = sqlx::query_as::<_, HeldRecord>(DUE)
            .bind(group.to_owned())
            .bind(shards)
            .bind(now.as_micros())
            .bind(i64::from(limit));
        records::read_all(self.log.fetch(asking).await?)
    }

    async fn held(&self, group: &str, shard: Shard, streams: &[SagaId]) -> Result<Vec<Held>, StoreError> {
        let streams: Vec<Uuid> = streams.iter().map(|stream| stream.as_uuid()).collect();
        let asking = sqlx::query_as::<_, HeldRecord>(HELD)
            .bind(group.to_owned())
            .bind(i32::from(shard.0))
            .bind(streams)
            .bind(HELD_OF_STREAM_MAX);
        records::read_all(self.log.fetch(asking).await?)
    }

    async fn parked_rows(&self, group: &str, after: (Shard, i64), limit: u32) -> Result<Vec<Held>, StoreError> {
        let asking = sqlx::query_as::<_, HeldRecord>(PARKED)
            .bind(group.to_owned())
            .bind(i32::from(after.0.0))
            .bind(after.1)
            .bind(i64::from(limit));
        records::read_all(self.log.fetch(asking).await?)
    }

    async fn change(&self, group: &str, seen: Option<Seen>, changes: Vec<Change>) -> Result<Vec<Shard>, StoreError> {
        change::change(&self.groups, group, seen, changes).await
    }

    async fn lag_rows(&self, group: Option<&str>) -> Result<Vec<(String, ShardLag)>, StoreError> {
        let rows: Vec<LagRecord> = self.log.fetch(sqlx::query_as(LAGS).bind(group.map(str::to_owned))).await?;
        records::read_all(rows)
    }
}
