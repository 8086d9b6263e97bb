//! Who owns which shard: leases by the database's clock.
//!
//! Every statement that locks rows of `shards` does so in ascending order, as commits do: none can deadlock another.
//! And each is given up in time to be tried again before the lease ends, also when the network swallows the answer.

use std::time::Duration;

use skald_core::{
    ids::Shard,
    shard::{batch::Fence, leases::LeaseView},
    time::Millis,
};
use sqlx::{
    FromRow, PgPool, Postgres,
    postgres::{PgArguments, PgRow},
    query::QueryAs,
};

use super::{
    super::{
        OwnedShard, Owner, ShardRow, StoreError,
        records::{self, HadShardRecord, OwnedShardRecord, ShardRecord, read_all},
    },
    failed,
};

pub async fn shards(pool: &PgPool) -> Result<Vec<ShardRow>, StoreError> {
    let rows: Vec<ShardRecord> =
        sqlx::query_as("SELECT shard, epoch, owner, owner_url, lease_until_us, head FROM shards ORDER BY shard")
            .fetch_all(pool)
            .await
            .map_err(failed)?;
    read_all(rows)
}

/// Takes what is free. `FOR UPDATE` waits for a commit that holds a shard's row to end, one way or the other, and a
/// commit that has not got that far yet will find the epoch gone.
pub async fn take(
    control: &Control,
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
    let mut taken: Vec<OwnedShard> = read_all(control.fetch(taking).await?)?;
    taken.sort_by_key(|owned| owned.shard);
    Ok(taken)
}

pub async fn renew(
    control: &Control,
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
    let rows = control.fetch(renewing).await?;
    let mut held = rows.into_iter().map(|(shard,)| records::shard(shard)).collect::<Result<Vec<_>, _>>()?;
    held.sort();
    Ok(held)
}

pub async fn release_shards(control: &Control, owner: &Owner, fences: &[Fence]) -> Result<(), StoreError> {
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
    control.fetch(releasing).await.map(drop)
}

pub async fn release(control: &Control, owner: &Owner) -> Result<(), StoreError> {
    let releasing = sqlx::query_as::<_, (i32,)>(
        "WITH held AS MATERIALIZED (SELECT shard FROM shards WHERE owner = $1 ORDER BY shard FOR UPDATE)
         UPDATE shards AS s
         SET owner = NULL, owner_url = NULL, lease_until_us = 0
         FROM held
         WHERE s.shard = held.shard
         RETURNING s.shard",
    )
    .bind(owner.id.clone());
    control.fetch(releasing).await.map(drop)
}

/// Read by the sessions that keep leases, so that no amount of other reading delays it.
pub async fn view(control: &Control, owner: &Owner) -> Result<LeaseView, StoreError> {
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
    records::lease_view(control.fetch(live).await?, control.fetch(had).await?)
}

/// The sessions that keep leases.
#[derive(Debug)]
pub struct Control {
    pub pool: PgPool,
    /// How long to wait for an answer.
    pub patience: Duration,
}

impl Control {
    /// Runs one statement, its own transaction. A session that does not answer in time is not used again.
    pub async fn fetch<R>(&self, statement: QueryAs<'static, Postgres, R, PgArguments>) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        match tokio::time::timeout(self.patience, statement.fetch_all(&mut *connection)).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => {
                connection.close_on_drop();
                Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut))
            }
        }
    }
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
