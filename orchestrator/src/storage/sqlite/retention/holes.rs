//! Where in the log there is nothing any more: ranges that neither touch nor overlap.

use sqlx::SqliteConnection;

use super::super::super::retention::Hole;

/// Notes a range of positions, together with the holes that it touches.
pub async fn add(connection: &mut SqliteConnection, hole: Hole) -> Result<(), sqlx::Error> {
    let Hole { mut first, mut last } = hole;
    if let Some(before) = at_or_before(connection, first - 1).await?
        && before.last >= first - 1
    {
        first = before.first;
        last = last.max(before.last);
    }
    if let Some(after) = at_or_before(connection, last + 1).await?
        && after.first > first
    {
        last = last.max(after.last);
    }
    sqlx::query("DELETE FROM log_holes WHERE shard = 0 AND first BETWEEN ? AND ?")
        .bind(first)
        .bind(last)
        .execute(&mut *connection)
        .await?;
    insert(connection, Hole { first, last }).await
}

/// Notes that there is something at a position again.
pub async fn fill(connection: &mut SqliteConnection, position: i64) -> Result<(), sqlx::Error> {
    let Some(hole) = at_or_before(connection, position).await?.filter(|hole| hole.last >= position) else {
        return Ok(());
    };
    sqlx::query("DELETE FROM log_holes WHERE shard = 0 AND first = ?")
        .bind(hole.first)
        .execute(&mut *connection)
        .await?;
    if hole.first < position {
        insert(connection, Hole { first: hole.first, last: position - 1 }).await?;
    }
    if hole.last > position {
        insert(connection, Hole { first: position + 1, last: hole.last }).await?;
    }
    Ok(())
}

async fn at_or_before(connection: &mut SqliteConnection, position: i64) -> Result<Option<Hole>, sqlx::Error> {
    sqlx::query_as("SELECT first, last FROM log_holes WHERE shard = 0 AND first <= ? ORDER BY first DESC LIMIT 1")
        .bind(position)
        .fetch_optional(connection)
        .await
}

async fn insert(connection: &mut SqliteConnection, hole: Hole) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO log_holes (shard, first, last) VALUES (0, ?, ?)")
        .bind(hole.first)
        .bind(hole.last)
        .execute(connection)
        .await
        .map(drop)
}
