//! Who owns which shard: leases by the database's clock.
//!
//! Every statement that locks rows of `shards` does so in ascending order, as commits do: none can deadlock another.
//! And each is given up in time to be tried again before the lease ends, also when the network swallows the answer.

use skald_core::{
    ids::Shard,
    shard::{batch::Fence, leases::LeaseView},
    time::Millis,
};
use sqlx::PgConnection;

use super::{
    super::{
        OwnedShard, Owner, ShardRow, StoreError,
        records::{self, HadShardRecord, OwnedShardRecord, ShardRecord, read_all},
    },
    failed,
    sessions::Sessions,
};

pub async fn shards(connection: &mut PgConnection) -> Result<Vec<ShardRow>, StoreError> {
    let rows: Vec<ShardRecord> =
        sqlx::query_as("SELECT shard, epoch, owner, owner_url, lease_until_us, head FROM shards ORDER BY shard")
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
    read_all(rows)
}

/// Takes what is free. `FOR UPDATE` waits for a commit that holds a shard's row to end, one way or the other, and a
/// commit that has not got that far yet will find the epoch gone.
pub async fn take(
    sessions: &Sessions,
    owner: &Owner,
    only: Option<&[Shard]>,
    lease: Millis,
) -> Result<Vec<OwnedShard>, StoreError> {
    let taking = sqlx::query_as::<_, OwnedShardRecord>(
        "WITH free AS MATERIALIZED (
             SELECT shard, owner IS NOT NULL AND owner <> $1 AS died
             FROM shards
             WHERE (owner IS NULL OR owner = $1 OR lease_until_us <= skald_now_us())
               AND ($3::integer[] IS NULL OR shard = ANY($3))
             ORDER BY shard
             FOR UPDATE
         )
         UPDATE shards AS s
         SET epoch = s.epoch + 1,
             owner = $1,
             owner_url = $2,
             lease_until_us = skald_now_us() + $4
         FROM free
         WHERE s.shard = free.shard
         RETURNING s.shard, s.epoch, s.head, free.died",
    )
    .bind(owner.id.clone())
    .bind(owner.url.clone())
    .bind(only.map(numbers))
    .bind(lease_us(lease));
    let mut taken: Vec<OwnedShard> = read_all(sessions.fetch(taking).await?)?;
    taken.sort_by_key(|owned| owned.shard);
    Ok(taken)
}

pub async fn renew(
    sessions: &Sessions,
    owner: &Owner,
    fences: &[Fence],
    lease: Millis,
) -> Result<Vec<Shard>, StoreError> {
    let renewing = sqlx::query_as::<_, (i32,)>(
        "WITH held AS MATERIALIZED (
             SELECT s.shard
             FROM unnest($2::integer[], $3::bigint[]) AS f (shard, epoch)
             JOIN shards AS s ON s.shard = f.shard AND s.epoch = f.epoch AND s.owner = $1
             ORDER BY s.shard
             FOR UPDATE OF s
         )
         UPDATE shards AS s
         SET lease_until_us = skald_now_us() + $4
         FROM held
         WHERE s.shard = held.shard
         RETURNING s.shard",
    )
    .bind(owner.id.clone())
    .bind(fenced_shards(fences))
    .bind(fenced_epochs(fences))
    .bind(lease_us(lease));
    let rows = sessions.fetch(renewing).await?;
    let mut held = rows.into_iter().map(|(shard,)| records::shard(shard)).collect::<Result<Vec<_>, _>>()?;
    held.sort();
    Ok(held)
}

pub async fn release_shards(sessions: &Sessions, owner: &Owner, fences: &[Fence]) -> Result<(), StoreError> {
    let releasing = sqlx::query_as::<_, (i32,)>(
        "WITH held AS MATERIALIZED (
             SELECT s.shard
             FROM unnest($2::integer[], $3::bigint[]) AS f (shard, epoch)
             JOIN shards AS s ON s.shard = f.shard AND s.epoch = f.epoch AND s.owner = $1
             ORDER BY s.shard
             FOR UPDATE OF s
         )
         UPDATE shards AS s
         SET owner = NULL, owner_url = NULL, lease_until_us = 0
         FROM held
         WHERE s.shard = held.shard
         RETURNING s.shard",
    )
    .bind(owner.id.clone())
    .bind(fenced_shards(fences))
    .bind(fenced_epochs(fences));
    sessions.fetch(releasing).await.map(drop)
}

pub async fn release(sessions: &Sessions, owner: &Owner) -> Result<(), StoreError> {
    let releasing = sqlx::query_as::<_, (i32,)>(
        "WITH held AS MATERIALIZED (SELECT shard FROM shards WHERE owner = $1 ORDER BY shard FOR UPDATE)
         UPDATE shards AS s
         SET owner = NULL, owner_url = NULL, lease_until_us = 0
         FROM held
         WHERE s.shard = held.shard
         RETURNING s.shard",
    )
    .bind(owner.id.clone());
    sessions.fetch(releasing).await.map(drop)
}

/// For an owner that died. It stays named, so that who takes the shards learns of its death.
pub async fn end(sessions: &Sessions, owner_id: &str) -> Result<(), StoreError> {
    let ending = sqlx::query_as::<_, (i32,)>(
        "WITH held AS MATERIALIZED (SELECT shard FROM shards WHERE owner = $1 ORDER BY shard FOR UPDATE)
         UPDATE shards AS s
         SET lease_until_us = 0
         FROM held
         WHERE s.shard = held.shard
         RETURNING s.shard",
    )
    .bind(owner_id.to_owned());
    sessions.fetch(ending).await.map(drop)
}

pub async fn view(sessions: &Sessions, owner: &Owner) -> Result<LeaseView, StoreError> {
    let live = sqlx::query_as::<_, (String,)>(
        "SELECT id FROM replicas WHERE seen_until_us > skald_now_us() ORDER BY started_at_us, id",
    );
    let had = sqlx::query_as::<_, HadShardRecord>(
        "SELECT shard, epoch, owner IS NOT DISTINCT FROM $1 AS mine
         FROM shards
         WHERE owner IS NULL OR owner = $1 OR lease_until_us <= skald_now_us()
         ORDER BY shard",
    )
    .bind(owner.id.clone());
    records::lease_view(sessions.fetch(live).await?, sessions.fetch(had).await?)
}

fn numbers(shards: &[Shard]) -> Vec<i32> {
    shards.iter().map(|shard| i32::from(shard.0)).collect()
}

fn fenced_shards(fences: &[Fence]) -> Vec<i32> {
    fences.iter().map(|fence| i32::from(fence.shard.0)).collect()
}

fn fenced_epochs(fences: &[Fence]) -> Vec<i64> {
    fences.iter().map(|fence| fence.epoch.0).collect()
}

pub fn lease_us(lease: Millis) -> i64 {
    i64::try_from(lease.0.saturating_mul(1000)).unwrap_or(i64::MAX)
}
