//! Migrations, and whether the file is fit for service.

use futures_util::FutureExt as _;
use sqlx::{Connection as _, SqlitePool, migrate::Migrator};

use super::{
    super::{StoreError, schema},
    failed,
    writer::{Session, Writer},
};

fn migrations() -> Migrator {
    sqlx::migrate!("../migrations/sqlite")
}

/// Applies every missing migration, and founds the database (secret, shard), in one transaction. A second process waits
/// for the first and then finds nothing to do.
pub async fn migrate(writer: &Writer) -> Result<(), StoreError> {
    writer.run(|session| session.migrate().boxed()).await?
}

impl Session {
    async fn migrate(&mut self) -> Result<(), StoreError> {
        let connection = self.connection().await.map_err(failed)?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        migrations().run_direct(None, &mut *transaction, false).await.map_err(schema::migration_failed)?;
        sqlx::query("INSERT INTO settings (name, value) VALUES ('secret', ?) ON CONFLICT (name) DO NOTHING")
            .bind(rand::random::<[u8; 32]>().to_vec())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        sqlx::query("INSERT INTO shards (shard) VALUES (0) ON CONFLICT (shard) DO NOTHING")
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    /// Whether the file takes writes. While commits succeed, being able to begin one says so; once one has failed, only
    /// a real one does.
    async fn ping(&mut self) -> Result<(), sqlx::Error> {
        let suspect = self.suspect;
        let connection = self.connection().await?;
        if suspect {
            sqlx::query(
                "INSERT INTO settings (name, value) VALUES ('ping', randomblob(8))
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )
            .execute(connection)
            .await?;
            self.suspect = false;
            return Ok(());
        }
        let begun = sqlx::raw_sql("BEGIN IMMEDIATE").execute(connection).await;
        self.roll_back().await;
        begun.map(drop)
    }
}

pub async fn check_schema(pool: &SqlitePool) -> Result<(), StoreError> {
    let applied = sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success").fetch_all(pool).await;
    schema::compare(&migrations(), applied.map_err(failed)?)
}

pub async fn ping(writer: &Writer) -> Result<(), StoreError> {
    writer.run(|session| session.ping().boxed()).await?.map_err(failed)
}

pub async fn secret(pool: &SqlitePool) -> Result<[u8; 32], StoreError> {
    let secret: Option<Vec<u8>> = sqlx::query_scalar("SELECT value FROM settings WHERE name = 'secret'")
        .fetch_optional(pool)
        .await
        .map_err(failed)?;
    let secret = secret.ok_or_else(|| StoreError::NotMigrated("it has no secret".to_owned()))?;
    secret.try_into().map_err(|_| StoreError::Unreadable("the secret is not 32 bytes long".to_owned()))
}
