//! Where streams end, and which event ids they know.

use skald_core::shard::batch::{StreamAsk, StreamHead, StreamLook};
use sqlx::SqlitePool;

use super::{
    super::{
        StoreError,
        look_up::{LookRecord, looks, pairs},
    },
    failed,
};

/// What is asked travels as one JSON array, so that any number of it is the same statement.
pub async fn look_up(pool: &SqlitePool, asks: &[StreamAsk]) -> Result<Vec<StreamLook>, StoreError> {
    let asked: Vec<(&str, &str)> = pairs(asks).collect();
    let asked = serde_json::to_string(&asked).map_err(|error| StoreError::Unreadable(error.to_string()))?;
    let rows: Vec<LookRecord> = sqlx::query_as(
        "SELECT stream.name, stream.id, stream.version, stream.updated_at_us, event.event_id,
                event.version AS event_version
         FROM json_each(?1) AS asked
         CROSS JOIN streams AS stream ON stream.name = asked.value ->> 0
         LEFT JOIN events AS event ON event.stream = stream.id AND event.event_id = asked.value ->> 1",
    )
    .bind(asked)
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    looks(asks, rows)
}

pub async fn stream_head(pool: &SqlitePool, name: &str) -> Result<Option<StreamHead>, StoreError> {
    let row: Option<LookRecord> = sqlx::query_as(
        "SELECT name, id, version, updated_at_us, NULL AS event_id, NULL AS event_version
         FROM streams
         WHERE name = ?1",
    )
    .bind(name)
    .fetch_optional(pool)
    .await
    .map_err(failed)?;
    row.map(|row| row.head()).transpose()
}
