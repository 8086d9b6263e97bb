//! Who shares the shards: heartbeats by the database's clock.

use skald_core::time::Millis;
use sqlx::PgPool;

use super::{
    super::{
        DEAD_REPLICAS_KEPT, Owner, ReplicaRow, StoreError, VERSION,
        records::{ReplicaRecord, read_all},
    },
    failed,
    leases::{Control, lease_us},
};

/// Rows that another replica is removing at this moment are skipped: waiting for each other's would be a deadlock.
pub async fn heartbeat(control: &Control, owner: &Owner, lease: Millis) -> Result<(), StoreError> {
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
    control.fetch(beating).await.map(drop)
}

pub async fn leave(control: &Control, owner: &Owner) -> Result<(), StoreError> {
    let leaving =
        sqlx::query_as::<_, (String,)>("DELETE FROM replicas WHERE id = $1 RETURNING id").bind(owner.id.clone());
    control.fetch(leaving).await.map(drop)
}

pub async fn replicas(pool: &PgPool) -> Result<Vec<ReplicaRow>, StoreError> {
    let rows: Vec<ReplicaRecord> = sqlx::query_as(
        "SELECT id, url, version, started_at_us, seen_until_us, seen_until_us > skald_now_us() AS alive
         FROM replicas
         ORDER BY started_at_us, id",
    )
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    read_all(rows)
}
