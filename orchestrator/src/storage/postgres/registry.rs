//! Definitions and pauses.

use sqlx::PgConnection;

use super::{
    super::{
        Pause, PauseKind, Registration, StoreError, StoredDefinition,
        records::{DefinitionRecord, PauseRecord, pause_word, read_all},
    },
    failed,
};

/// Registers a definition unless its name and version are taken; then the hash tells whether by the same content.
pub async fn register(
    connection: &mut PgConnection,
    definition: &StoredDefinition,
) -> Result<Registration, StoreError> {
    let inserted = sqlx::query(
        "INSERT INTO definitions (name, version, hash, document, registered_at_us)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (name, version) DO NOTHING",
    )
    .bind(&definition.name)
    .bind(i64::from(definition.version))
    .bind(&definition.hash)
    .bind(&definition.document)
    .bind(definition.registered_at.as_micros())
    .execute(&mut *connection)
    .await
    .map_err(failed)?;
    if inserted.rows_affected() == 1 {
        return Ok(Registration::Created);
    }
    let hash: String = sqlx::query_scalar("SELECT hash FROM definitions WHERE name = $1 AND version = $2")
        .bind(&definition.name)
        .bind(i64::from(definition.version))
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    Ok(if hash == definition.hash { Registration::Unchanged } else { Registration::Conflict })
}

pub async fn definitions(connection: &mut PgConnection) -> Result<Vec<StoredDefinition>, StoreError> {
    let rows: Vec<DefinitionRecord> = sqlx::query_as(
        "SELECT name, version, hash, document, registered_at_us
         FROM definitions
         ORDER BY name COLLATE \"C\", version",
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(failed)?;
    read_all(rows)
}

pub async fn pauses(connection: &mut PgConnection) -> Result<Vec<Pause>, StoreError> {
    let rows: Vec<PauseRecord> =
        sqlx::query_as("SELECT kind, name, actor, reason, since_us FROM pauses ORDER BY kind, name COLLATE \"C\"")
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
    read_all(rows)
}

pub async fn pause(connection: &mut PgConnection, pause: &Pause) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO pauses (kind, name, actor, reason, since_us)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (kind, name) DO UPDATE
         SET actor = excluded.actor, reason = excluded.reason, since_us = excluded.since_us",
    )
    .bind(pause_word(pause.kind))
    .bind(&pause.name)
    .bind(&pause.actor)
    .bind(&pause.reason)
    .bind(pause.since.as_micros())
    .execute(&mut *connection)
    .await
    .map_err(failed)?;
    Ok(())
}

pub async fn unpause(connection: &mut PgConnection, kind: PauseKind, name: &str) -> Result<bool, StoreError> {
    let deleted = sqlx::query("DELETE FROM pauses WHERE kind = $1 AND name = $2")
        .bind(pause_word(kind))
        .bind(name)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    Ok(deleted.rows_affected() > 0)
}
