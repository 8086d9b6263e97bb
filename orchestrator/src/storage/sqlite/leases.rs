//! Who owns the shard. The clock is the machine's: all processes on one file share it.

use skald_core::{
    ids::{Epoch, Shard},
    shard::leases::LeaseView,
    time::Millis,
};
use sqlx::SqlitePool;

use super::{
    super::{
        OwnedShard, Owner, ShardRow, StoreError,
        records::{self, HadShardRecord, OwnedShardRecord, ShardRecord, read_all},
    },
    SHARD, failed, now,
    writer::Writer,
};

pub async fn shards(pool: &SqlitePool) -> Result<Vec<ShardRow>, StoreError> {
    let rows: Vec<ShardRecord> =
        sqlx::query_as("SELECT shard, epoch, owner, owner_url, lease_until_us, head FROM shards ORDER BY shard")
            .fetch_all(pool)
            .await
            .map_err(failed)?;
    read_all(rows)
}

/// Runs after every commit that was handed to the writer before: their fate is known by then.
pub async fn take(writer: &Writer, owner: &Owner, lease: Millis) -> Result<Vec<OwnedShard>, StoreError> {
    // An UPDATE here returns only what it wrote, so the former owner is read first, and must still be the same.
    let asking = sqlx::query_as::<_, (Option<String>,)>("SELECT owner FROM shards WHERE shard = 0");
    let Some((former,)) = writer.fetch_all(asking).await?.pop() else { return Ok(Vec::new()) };
    let died = former.as_ref().is_some_and(|former| *former != owner.id);
    let now = now();
    let taking = sqlx::query_as::<_, OwnedShardRecord>(
        "UPDATE shards
         SET epoch = epoch + 1, owner = ?1, owner_url = ?2, lease_until_us = ?4
         WHERE shard = 0 AND (owner IS NULL OR owner = ?1 OR lease_until_us <= ?3) AND owner IS ?5
         RETURNING shard, epoch, head, ?6 AS died",
    )
    .bind(owner.id.clone())
    .bind(owner.url.clone())
    .bind(now.as_micros())
    .bind(now.plus(lease).as_micros())
    .bind(former)
    .bind(died);
    read_all(writer.fetch_all(taking).await?)
}

pub async fn renew(writer: &Writer, owner: &Owner, epoch: Epoch, lease: Millis) -> Result<Vec<Shard>, StoreError> {
    let renewing = sqlx::query("UPDATE shards SET lease_until_us = ? WHERE shard = 0 AND epoch = ? AND owner = ?")
        .bind(now().plus(lease).as_micros())
        .bind(epoch.0)
        .bind(owner.id.clone());
    let renewed = writer.execute(renewing).await?.rows_affected() == 1;
    Ok(if renewed { vec![SHARD] } else { Vec::new() })
}

pub async fn release_shard(writer: &Writer, owner: &Owner, epoch: Epoch) -> Result<(), StoreError> {
    let releasing = sqlx::query(
        "UPDATE shards
         SET owner = NULL, owner_url = NULL, lease_until_us = 0
         WHERE shard = 0 AND epoch = ? AND owner = ?",
    )
    .bind(epoch.0)
    .bind(owner.id.clone());
    writer.execute(releasing).await.map(drop)
}

pub async fn view(pool: &SqlitePool, owner: &Owner) -> Result<LeaseView, StoreError> {
    let now = now().as_micros();
    let live = sqlx::query_as("SELECT id FROM replicas WHERE seen_until_us > ? ORDER BY started_at_us, id")
        .bind(now)
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    let had: Vec<HadShardRecord> = sqlx::query_as(
        "SELECT shard, epoch, owner IS ?1 AS mine
         FROM shards
         WHERE owner IS NULL OR owner = ?1 OR lease_until_us <= ?2
         ORDER BY shard",
    )
    .bind(&owner.id)
    .bind(now)
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    records::lease_view(live, had)
}

pub async fn release(writer: &Writer, owner: &Owner) -> Result<(), StoreError> {
    let releasing = sqlx::query("UPDATE shards SET owner = NULL, owner_url = NULL, lease_until_us = 0 WHERE owner = ?")
        .bind(owner.id.clone());
    writer.execute(releasing).await?;
    Ok(())
}

/// For an owner that died. It stays named, so that who takes the shard learns of its death.
pub async fn end(writer: &Writer, owner_id: &str) -> Result<(), StoreError> {
    let ending = sqlx::query("UPDATE shards SET lease_until_us = 0 WHERE owner = ?").bind(owner_id.to_owned());
    writer.execute(ending).await.map(drop)
}
