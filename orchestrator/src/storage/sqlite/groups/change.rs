//! What every delivery and every settlement writes.

use futures_util::FutureExt as _;
use skald_core::ids::Shard;
use sqlx::{Sqlite, SqliteConnection, query::QueryAs, sqlite::SqliteArguments};

use super::super::{
    super::{
        StoreError,
        groups::rows::{Change, Cursor, Held, Seen, number},
    },
    writer::{Writer, lazily},
};

/// What moves a cursor, if its revision is still there.
macro_rules! move_cursor {
    () => {
        "UPDATE consumer_cursors
         SET looked_to = ?, in_hand = ?, owed = ?, consumer = ?, token = ?, lease_ms = ?, lease_until_us = ?,
             losses = ?, moved_at_us = ?, revision = revision + 1
         WHERE group_name = ? AND shard = ? AND revision = ?
         RETURNING shard"
    };
}

type MoveCursor<'q> = QueryAs<'q, Sqlite, (i32,), SqliteArguments>;

/// Writes each change whose revision still holds, all or none.
pub async fn change(
    writer: &Writer,
    group: &str,
    seen: Option<Seen>,
    changes: Vec<Change>,
) -> Result<Vec<Shard>, StoreError> {
    if let ([change], None) = (&*changes, &seen)
        && change.hold.is_empty()
        && change.release.is_empty()
    {
        // By far the most common, in one trip.
        let moving = bind_cursor(sqlx::query_as(lazily!(move_cursor!())), group, &change.cursor);
        let moved = writer.lazily_at_once(moving).await?;
        return Ok(moved.into_iter().map(|_| change.cursor.shard).collect());
    }
    let group = group.to_owned();
    writer.lazily(move |connection| change_all(connection, group, seen, changes).boxed()).await
}

async fn change_all(
    connection: &mut SqliteConnection,
    group: String,
    seen: Option<Seen>,
    changes: Vec<Change>,
) -> Result<Vec<Shard>, sqlx::Error> {
    let mut moved = Vec::new();
    for change in changes {
        if move_cursor(connection, &group, &change.cursor).await? {
            moved.push(change.cursor.shard);
            for held in change.hold {
                hold(connection, &group, held).await?;
            }
            for position in change.release {
                sqlx::query("DELETE FROM consumer_held WHERE group_name = ? AND shard = ? AND position = ?")
                    .bind(&group)
                    .bind(change.cursor.shard.0)
                    .bind(position)
                    .execute(&mut *connection)
                    .await?;
            }
        }
    }
    if let Some(seen) = seen {
        see(connection, &group, seen).await?;
    }
    Ok(moved)
}

async fn move_cursor(connection: &mut SqliteConnection, group: &str, cursor: &Cursor) -> Result<bool, sqlx::Error> {
    let moving = bind_cursor(sqlx::query_as(move_cursor!()), group, cursor);
    Ok(moving.fetch_optional(connection).await?.is_some())
}

fn bind_cursor<'q>(query: MoveCursor<'q>, group: &str, cursor: &Cursor) -> MoveCursor<'q> {
    query
        .bind(cursor.looked_to)
        .bind(cursor.in_hand.to_text())
        .bind(cursor.owed.to_text())
        .bind(cursor.consumer.clone())
        .bind(cursor.token)
        .bind(number(cursor.lease))
        .bind(cursor.lease_until.as_micros())
        .bind(cursor.losses)
        .bind(cursor.moved_at.as_micros())
        .bind(group.to_owned())
        .bind(cursor.shard.0)
        .bind(cursor.revision)
}

async fn hold(connection: &mut SqliteConnection, group: &str, held: Held) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO consumer_held (group_name, shard, position, stream, status, tries, next_at_us, error, held_at_us)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (group_name, shard, position) DO UPDATE
         SET status = excluded.status, tries = excluded.tries, next_at_us = excluded.next_at_us,
             error = excluded.error, held_at_us = excluded.held_at_us",
    )
    .bind(group)
    .bind(held.shard.0)
    .bind(held.position)
    .bind(held.stream.as_uuid())
    .bind(held.status.as_str())
    .bind(held.tries)
    .bind(held.next_at.as_micros())
    .bind(held.error)
    .bind(held.held_at.as_micros())
    .execute(connection)
    .await
    .map(drop)
}

async fn see(connection: &mut SqliteConnection, group: &str, seen: Seen) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO consumer_members (group_name, consumer, seen_until_us)
         SELECT name, ?2, ?3 FROM consumer_groups WHERE name = ?1
         ON CONFLICT (group_name, consumer) DO UPDATE SET seen_until_us = excluded.seen_until_us",
    )
    .bind(group)
    .bind(&seen.consumer)
    .bind(seen.until.as_micros())
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM consumer_members WHERE group_name = ? AND seen_until_us < ? AND consumer <> ?")
        .bind(group)
        .bind(seen.forget_before.as_micros())
        .bind(&seen.consumer)
        .execute(connection)
        .await
        .map(drop)
}
