//! Where streams end, and which event ids they know.

use skald_core::shard::batch::{StreamAsk, StreamHead, StreamLook};
use sqlx::PgConnection;

use super::{
    super::{
        StoreError,
        look_up::{LookRecord, looks, pairs},
    },
    failed,
};

/// One row for each event id that is asked for, if its stream exists. The subquery is a lookup for each of them, whatever
/// the tables hold.
pub(super) const LOOK_UP: &str = "
    SELECT stream.name, stream.id, stream.version, stream.updated_at_us, event.event_id,
           event.version AS event_version
    FROM unnest($1::text[], $2::text[]) AS asked (name, event_id)
    JOIN streams AS stream ON stream.name = asked.name
    LEFT JOIN LATERAL (
        SELECT event_id, version FROM events WHERE events.stream = stream.id AND events.event_id = asked.event_id LIMIT 1
    ) AS event ON true";

pub async fn look_up(connection: &mut PgConnection, asks: &[StreamAsk]) -> Result<Vec<StreamLook>, StoreError> {
    let (names, event_ids): (Vec<&str>, Vec<&str>) = pairs(asks).unzip();
    let rows: Vec<LookRecord> =
        sqlx::query_as(LOOK_UP).bind(names).bind(event_ids).fetch_all(&mut *connection).await.map_err(failed)?;
    looks(asks, rows)
}

pub async fn stream_head(connection: &mut PgConnection, name: &str) -> Result<Option<StreamHead>, StoreError> {
    let row: Option<LookRecord> = sqlx::query_as(
        "SELECT name, id, version, updated_at_us, NULL AS event_id, NULL::bigint AS event_version
         FROM streams
         WHERE name = $1",
    )
    .bind(name)
    .fetch_optional(&mut *connection)
    .await
    .map_err(failed)?;
    row.map(|row| row.head()).transpose()
}
