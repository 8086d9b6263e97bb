//! Migrations, partitions, and whether the database is fit for service.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use skald_core::time::Timestamp;
use sqlx::{Connection as _, PgConnection, PgPool, migrate::Migrator};

use super::{
    super::{StoreError, schema},
    failed,
    sessions::Sessions,
};

/// Partitions for the coming months are created this often; they reach two months ahead.
const MAINTENANCE_EVERY_US: i64 = 12 * 3600 * 1_000_000;

fn migrations() -> Migrator {
    let mut migrations = sqlx::migrate!("../migrations/postgres");
    // Its own lock is a session's, which poolers and distributed engines lack.
    migrations.set_locking(false);
    migrations
}

/// Applies every missing migration, and founds the database (secret, shards), in one transaction. A second process
/// waits for the first and then finds nothing to do.
pub async fn migrate(pool: &PgPool, shards: u16) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await.map_err(failed)?.detach();
    let mut transaction = connection.begin().await.map_err(failed)?;
    sqlx::raw_sql(
        "SET LOCAL lock_timeout = '60s';
         SET LOCAL statement_timeout = 0;
         SET LOCAL client_min_messages = warning;
         SELECT pg_advisory_xact_lock(hashtext('skald_migrate'))",
    )
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    migrations().run_direct(None, &mut *transaction, false).await.map_err(schema::migration_failed)?;
    sqlx::query("INSERT INTO settings (name, value) VALUES ('secret', $1) ON CONFLICT (name) DO NOTHING")
        .bind(rand::random::<[u8; 32]>().to_vec())
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    sqlx::query(
        "INSERT INTO shards (shard)
         SELECT generate_series(0, $1 - 1)
         WHERE NOT EXISTS (SELECT FROM shards)",
    )
    .bind(i32::from(shards.max(1)))
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    sqlx::query("SELECT skald_create_months()").execute(&mut *transaction).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    connection.close().await.map_err(failed)
}

pub async fn check_schema(connection: &mut PgConnection) -> Result<(), StoreError> {
    let applied = sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success")
        .fetch_all(&mut *connection)
        .await;
    schema::compare(&migrations(), applied.map_err(failed)?)
}

pub async fn ping(connection: &mut PgConnection) -> Result<(), StoreError> {
    let read_only: bool =
        sqlx::query_scalar("SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean")
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
    if read_only {
        return Err(StoreError::Unavailable(sqlx::Error::Configuration("the database takes no writes".into())));
    }
    Ok(())
}

pub async fn now(connection: &mut PgConnection) -> Result<Timestamp, StoreError> {
    let now_us = sqlx::query_scalar("SELECT skald_now_us()").fetch_one(&mut *connection).await.map_err(failed)?;
    Ok(Timestamp::from_micros(now_us))
}

pub async fn secret(connection: &mut PgConnection) -> Result<[u8; 32], StoreError> {
    let secret: Option<Vec<u8>> = sqlx::query_scalar("SELECT value FROM settings WHERE name = 'secret'")
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed)?;
    let secret = secret.ok_or_else(|| StoreError::NotMigrated("it has no secret".to_owned()))?;
    secret.try_into().map_err(|_| StoreError::Unreadable("the secret is not 32 bytes long".to_owned()))
}

/// Looks after partitions now and then, beside whatever is being done. A failure is not fatal, since rows then go to
/// the default partition, and is tried again.
#[expect(clippy::disallowed_methods, reason = "only paces this process; nothing is decided or stored by it")]
pub fn maintain_when_due(sessions: &Sessions, maintained_at_us: &AtomicI64) {
    let now_us = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
    let last_us = maintained_at_us.load(Ordering::Relaxed);
    if now_us - last_us < MAINTENANCE_EVERY_US
        || maintained_at_us.compare_exchange(last_us, now_us, Ordering::Relaxed, Ordering::Relaxed).is_err()
    {
        return;
    }
    let sessions = sessions.clone();
    tokio::spawn(async move {
        let create = sqlx::query("SELECT skald_create_months()");
        let created = sessions.ask(async |session| create.execute(session).await.map_err(failed)).await;
        if let Err(error) = created {
            tracing::warn!(%error, "partitions for the coming months could not be created");
        }
    });
}
