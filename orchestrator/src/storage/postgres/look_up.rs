//! Where streams end, and which event ids they know.

use skald_core::shard::batch::{StreamAsk, StreamLook};
use sqlx::PgConnection;

use super::{
    super::{
        StoreError,
        look_up::{LookRecord, looks, pairs},
    },
    failed,
};

pub async fn look_up(connection: &mut PgConnection, asks: &[StreamAsk]) -> Result<Vec<StreamLook>, StoreError> {
    let (names, event_ids): (Vec<&str>, Vec<&str>) = pairs(asks).unzip();
    let rows: Vec<LookRecord> = sqlx::query_as(
        "SELECT stream.name, stream.id, stream.version, stream.updated_at_us, event.event_id,
                event.version AS event_version
         FROM unnest($1::text[], $2::text[]) AS asked (name, event_id)
         JOIN streams AS stream ON stream.name = asked.name
         LEFT JOIN events AS event ON event.stream = stream.id AND event.event_id = asked.event_id",
    )
    .bind(names)
    .bind(event_ids)
    .fetch_all(&mut *connection)
    .await
    .map_err(failed)?;
    looks(asks, rows)
}
