//! Definitions and pauses.

use futures_util::FutureExt as _;
use sqlx::{SqliteConnection, SqlitePool};

use super::{
    super::{
        Pause, PauseKind, Registration, StoreError, StoredDefinition,
        records::{DefinitionRecord, PauseRecord, pause_word, read_all},
    },
    failed,
    writer::{Session, Writer},
};

/// Registers a definition unless its name and version are taken; then the hash tells whether by the same content.
pub async fn register(writer: &Writer, definition: &StoredDefinition) -> Result<Registration, StoreError> {
    let definition = definition.clone();
    writer.run(move |session| session.register(definition).boxed()).await?.map_err(failed)
}

impl Session {
    async fn register(&mut self, definition: StoredDefinition) -> Result<Registration, sqlx::Error> {
        register_on(self.connection().await?, &definition).await
    }
}

pub(super) async fn register_on(
    connection: &mut SqliteConnection,
    definition: &StoredDefinition,
) -> Result<Registration, sqlx::Error> {
    let inserted = sqlx::query(
        "INSERT INTO definitions (name, version, hash, document, registered_at_us)
         VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (name, version) DO NOTHING",
    )
    .bind(&definition.name)
    .bind(i64::from(definition.version))
    .bind(&definition.hash)
    .bind(&definition.document)
    .bind(definition.registered_at.as_micros())
    .execute(&mut *connection)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok(Registration::Created);
    }
    let hash: String = sqlx::query_scalar("SELECT hash FROM definitions WHERE name = ? AND version = ?")
        .bind(&definition.name)
        .bind(i64::from(definition.version))
        .fetch_one(connection)
        .await?;
    Ok(if hash == definition.hash { Registration::Unchanged } else { Registration::Conflict })
}

pub async fn definitions(pool: &SqlitePool) -> Result<Vec<StoredDefinition>, StoreError> {
    let rows: Vec<DefinitionRecord> = sqlx::query_as(
        "SELECT name, version, hash, document, registered_at_us
         FROM definitions
         ORDER BY name, version",
    )
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    read_all(rows)
}

pub async fn pauses(pool: &SqlitePool) -> Result<Vec<Pause>, StoreError> {
    let rows: Vec<PauseRecord> =
        sqlx::query_as("SELECT kind, name, actor, reason, since_us FROM pauses ORDER BY kind, name")
            .fetch_all(pool)
            .await
            .map_err(failed)?;
    read_all(rows)
}

pub async fn pause(writer: &Writer, pause: &Pause) -> Result<(), StoreError> {
    let pausing = sqlx::query(
        "INSERT INTO pauses (kind, name, actor, reason, since_us)
         VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (kind, name) DO UPDATE
         SET actor = excluded.actor, reason = excluded.reason, since_us = excluded.since_us",
    )
    .bind(pause_word(pause.kind))
    .bind(pause.name.clone())
    .bind(pause.actor.clone())
    .bind(pause.reason.clone())
    .bind(pause.since.as_micros());
    writer.execute(pausing).await?;
    Ok(())
}

pub async fn unpause(writer: &Writer, kind: PauseKind, name: &str) -> Result<bool, StoreError> {
    let unpausing =
        sqlx::query("DELETE FROM pauses WHERE kind = ? AND name = ?").bind(pause_word(kind)).bind(name.to_owned());
    Ok(writer.execute(unpausing).await?.rows_affected() > 0)
}
