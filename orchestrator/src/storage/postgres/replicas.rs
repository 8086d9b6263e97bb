//! Who shares the shards: heartbeats by the database's clock.

use skald_core::time::Millis;
use sqlx::PgConnection;

use super::{
    super::{
        DEAD_REPLICAS_KEPT, Owner, ReplicaRow, StoreError, VERSION,
        records::{ReplicaRecord, read_all},
    },
    failed,
    leases::lease_us,
    sessions::Sessions,
};

/// Rows that another replica is removing at this moment are skipped: waiting for each other's would be a deadlock.
pub async fn heartbeat(sessions: &Sessions, owner: &Owner, lease: Millis) -> Result<(), StoreError> {
    let beating = sqlx::query_as::<_, (String,)>(
        "WITH dead AS MATERIALIZED (
             SELECT id
             FROM replicas
             WHERE id <> $1 AND seen_until_us < skald_now_us() - $5
             FOR UPDATE SKIP LOCKED
         ), purged AS (
             DELETE FROM replicas WHERE id IN (SELECT id FROM dead)
         )
         INSERT INTO replicas AS r (id, url, version, started_at_us, seen_until_us)
         VALUES ($1, $2, $3, skald_now_us(), skald_now_us() + $4)
         ON CONFLICT (id) DO UPDATE SET seen_until_us = skald_now_us() + $4
         RETURNING r.id",
    )
    .bind(owner.id.clone())
    .bind(owner.url.clone())
    .bind(VERSION)
    .bind(lease_us(lease))
    .bind(lease_us(DEAD_REPLICAS_KEPT));
    sessions.fetch(beating).await.map(drop)
}

pub async fn leave(sessions: &Sessions, id: &str) -> Result<(), StoreError> {
    let leaving = sqlx::query_as::<_, (String,)>("DELETE FROM replicas WHERE id = $1 RETURNING id").bind(id.to_owned());
    sessions.fetch(leaving).await.map(drop)
}

pub async fn replicas(connection: &mut PgConnection) -> Result<Vec<ReplicaRow>, StoreError> {
    let rows: Vec<ReplicaRecord> = sqlx::query_as(
        "SELECT id, url, version, started_at_us, seen_until_us, seen_until_us > skald_now_us() AS alive
         FROM replicas
         ORDER BY started_at_us, id",
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(failed)?;
    read_all(rows)
}
