//! `GET /events/stats`: what the log holds.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::super::{
    params::Params,
    problem::{Problem, problems},
};
use crate::{access::scope::Scope, app::App, events::position::Place, storage::log::EventStats};

/// Rates are over at most so long.
const RATE_OVER: Duration = Duration::from_secs(60);

problems!(Problems, InvalidParameter, DatabaseUnavailable);

/// What the log holds.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventStatistics {
    /// How many events were ever written.
    pub total: u64,
    pub counts: Vec<EventCount>,
    /// Events at the end of the log that are not in the counts yet; asking again counts on.
    pub uncounted: u64,
    /// What the events take on the disk with their indexes; on SQLite the whole database.
    pub bytes: u64,
    /// Events per second, over up to a minute before this call; 0 at the first.
    pub rate: f64,
    /// The last position of each shard, by its number.
    pub heads: BTreeMap<String, i64>,
    /// The same as a place in the log: what comes after it is new.
    #[schema(example = "p8a01")]
    pub cursor: String,
}

/// How many events there ever were of a type.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventCount {
    #[schema(example = "saga")]
    pub category: String,
    #[serde(rename = "type")]
    #[schema(example = "StockReserved")]
    pub type_name: String,
    pub events: u64,
}

/// How many events there were when; the rate is over what lies between.
#[derive(Debug, Default)]
pub struct Seen(Mutex<Vec<(Instant, u64)>>);

impl Seen {
    /// Events per second since the earliest look that is not too old.
    fn rate(&self, now: Instant, total: u64) -> f64 {
        let mut seen = self.0.lock().expect("nothing panics while it holds this lock");
        seen.retain(|(at, _)| now.duration_since(*at) <= RATE_OVER);
        let rate = seen.first().map_or(0.0, |(at, before)| {
            let seconds = now.duration_since(*at).as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let events = total.saturating_sub(*before) as f64;
            if seconds > 0.0 { events / seconds } else { 0.0 }
        });
        // One a second is enough to go by.
        if seen.last().is_none_or(|(at, _)| now.duration_since(*at) >= Duration::from_secs(1)) {
            seen.push((now, total));
        }
        rate
    }
}

/// Count events.
///
/// By category and type, with the log's size, rate and ends.
#[utoipa::path(
    get,
    path = "/events/stats",
    operation_id = "getEventStats",
    tag = "events",
    security(("bearer" = [Scope::EventsRead])),
    responses((status = 200, description = "What the log holds", body = EventStatistics), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let EventStats { heads, counts, uncounted, bytes } =
        app.read_log(|log| async move { log.event_stats().await }).await?;
    let total = heads.values().map(|head| head.unsigned_abs()).sum();
    let counts = counts.into_iter();
    Ok(HttpResponse::Ok().json(EventStatistics {
        total,
        counts: counts
            .map(|count| EventCount { category: count.category, type_name: count.type_name, events: count.events })
            .collect(),
        uncounted,
        bytes,
        rate: app.events_seen().rate(Instant::now(), total),
        heads: heads.iter().map(|(shard, head)| (shard.0.to_string(), *head)).collect(),
        cursor: Place(heads).to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_over_the_last_minute() {
        let (seen, begun) = (Seen::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let rates =
            [(0, 100), (10, 200), (50, 600), (61, 1_200), (200, 5_000)].map(|(s, total)| seen.rate(at(s), total));
        let expected = [0.0, 10.0, 10.0, 1_000.0 / 51.0, 0.0];
        assert!(rates.iter().zip(expected).all(|(rate, expected)| (rate - expected).abs() < 1e-9), "{rates:?}");
    }
}
