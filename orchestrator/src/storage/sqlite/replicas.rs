//! Who shares the shard. The clock is the machine's: all processes on one file share it.

use skald_core::time::Millis;
use sqlx::SqlitePool;

use super::{
    super::{
        DEAD_REPLICAS_KEPT, Owner, ReplicaRow, StoreError, VERSION,
        records::{ReplicaRecord, read_all},
    },
    failed, now,
    writer::Writer,
};

pub async fn heartbeat(writer: &Writer, owner: &Owner, lease: Millis) -> Result<(), StoreError> {
    let now = now();
    let beating = sqlx::query(
        "INSERT INTO replicas (id, url, version, started_at_us, seen_until_us)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (id) DO UPDATE SET seen_until_us = ?5",
    )
    .bind(owner.id.clone())
    .bind(owner.url.clone())
    .bind(VERSION)
    .bind(now.as_micros())
    .bind(now.plus(lease).as_micros());
    writer.execute(beating).await?;
    let purging = sqlx::query("DELETE FROM replicas WHERE seen_until_us + ? < ?")
        .bind(i64::try_from(DEAD_REPLICAS_KEPT.0 * 1000).unwrap_or(i64::MAX))
        .bind(now.as_micros());
    writer.execute(purging).await.map(drop)
}

pub async fn leave(writer: &Writer, id: &str) -> Result<(), StoreError> {
    let leaving = sqlx::query("DELETE FROM replicas WHERE id = ?").bind(id.to_owned());
    writer.execute(leaving).await.map(drop)
}

pub async fn replicas(pool: &SqlitePool) -> Result<Vec<ReplicaRow>, StoreError> {
    let rows: Vec<ReplicaRecord> = sqlx::query_as(
        "SELECT id, url, version, started_at_us, seen_until_us, seen_until_us > ? AS alive
         FROM replicas
         ORDER BY started_at_us, id",
    )
    .bind(now().as_micros())
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    read_all(rows)
}
