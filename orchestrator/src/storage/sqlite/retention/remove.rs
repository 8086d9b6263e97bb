//! Removing archived streams, within the transaction that is open.
//!
//! A stream that is short goes in one transaction, together with others. The row of a long one goes first, with its key:
//! from then on the stream is gone for everybody but for a check of the log, which learns from the part's row which
//! stream it is of whose events some are left.

use skald_core::ids::SagaId;
use sqlx::SqliteConnection;

use super::{
    super::{
        super::retention::{Leaving, RetentionError, ranges},
        failed,
    },
    check_lease, holes,
};

/// Rows that one transaction removes, about: a few milliseconds of the writer's time.
const ROWS_TOGETHER: i64 = 300;

pub async fn remove(
    connection: &mut SqliteConnection,
    holder: String,
    part: String,
    streams: Vec<Leaving>,
) -> Result<usize, RetentionError> {
    check_lease(connection, &holder).await?;
    execute(connection, "INSERT INTO retention_under_way (since_us) VALUES (0)").await?;
    let mut room = ROWS_TOGETHER;
    let mut gone = 0;
    for stream in streams {
        if room <= 0 || (gone > 0 && stream.version > room) {
            break;
        }
        if !remove_row(connection, stream).await? {
            // It has grown since, or was removed before; events that a crash left of the latter are still to go.
            if row_exists(connection, stream.id).await? {
                gone += 1;
                continue;
            }
        }
        let removed = remove_events(connection, stream.id, room).await?;
        room -= removed + 1;
        let some_left = removed > 0 && events_left(connection, stream.id).await?;
        note_removing(connection, &part, some_left.then_some(stream.id)).await?;
        if some_left {
            break;
        }
        gone += 1;
    }
    execute(connection, "DELETE FROM retention_under_way").await?;
    Ok(gone)
}

/// Whether the stream was as it was archived.
async fn remove_row(connection: &mut SqliteConnection, stream: Leaving) -> Result<bool, RetentionError> {
    let id = stream.id.as_uuid();
    let sql = if stream.is_saga {
        "DELETE FROM sagas WHERE id = ? AND version = ? AND ended_at_us IS NOT NULL"
    } else {
        "DELETE FROM streams WHERE id = ? AND version = ?"
    };
    let removed = sqlx::query(sql).bind(id).bind(stream.version).execute(&mut *connection).await.map_err(failed)?;
    if removed.rows_affected() == 0 {
        return Ok(false);
    }
    remove_beside(connection, stream.id).await?;
    Ok(true)
}

/// Removes what is kept of a saga beside its row and events.
async fn remove_beside(connection: &mut SqliteConnection, saga: SagaId) -> Result<(), RetentionError> {
    for sql in ["DELETE FROM start_keys WHERE saga = ?", "DELETE FROM saga_subjects WHERE saga = ?"] {
        sqlx::query(sql).bind(saga.as_uuid()).execute(&mut *connection).await.map_err(failed)?;
    }
    Ok(())
}

async fn row_exists(connection: &mut SqliteConnection, id: SagaId) -> Result<bool, RetentionError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sagas WHERE id = ?1) OR EXISTS (SELECT 1 FROM streams WHERE id = ?1)";
    Ok(sqlx::query_scalar(sql).bind(id.as_uuid()).fetch_one(connection).await.map_err(failed)?)
}

/// Removes the first rows of a stream's events; answers how many.
async fn remove_events(connection: &mut SqliteConnection, id: SagaId, most: i64) -> Result<i64, RetentionError> {
    let mut removed: Vec<(i64, i64)> = sqlx::query_as(
        "DELETE FROM events
         WHERE position IN (SELECT position FROM events WHERE stream = ?1 ORDER BY version LIMIT ?2)
         RETURNING position, events",
    )
    .bind(id.as_uuid())
    .bind(most)
    .fetch_all(&mut *connection)
    .await
    .map_err(failed)?;
    removed.sort_unstable();
    for hole in ranges(removed.iter().flat_map(|(last, events)| last - events + 1..=*last)) {
        holes::add(connection, hole).await.map_err(failed)?;
    }
    Ok(i64::try_from(removed.len()).unwrap_or(i64::MAX))
}

async fn events_left(connection: &mut SqliteConnection, id: SagaId) -> Result<bool, RetentionError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM events WHERE stream = ?)";
    Ok(sqlx::query_scalar(sql).bind(id.as_uuid()).fetch_one(connection).await.map_err(failed)?)
}

async fn note_removing(
    connection: &mut SqliteConnection,
    part: &str,
    stream: Option<SagaId>,
) -> Result<(), RetentionError> {
    sqlx::query("UPDATE archive_parts SET removing = ?1 WHERE name = ?2 AND removing IS NOT ?1")
        .bind(stream.map(SagaId::as_uuid))
        .bind(part)
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(())
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), RetentionError> {
    sqlx::query(sql).execute(connection).await.map_err(failed)?;
    Ok(())
}
