//! `GET /metrics`: for Prometheus.

use std::{collections::BTreeMap, time::Duration};

use actix_web::{HttpRequest, HttpResponse, web};
use skald_core::state::Status;

use super::super::{
    params::Params,
    problem::{Problem, problems},
};
use crate::{
    access::scope::Scope,
    app::App,
    metrics::Metrics,
    storage::{Tally, groups::ShardLag},
};

/// For looking into the database. A scrape does not wait longer: it shows what was seen the last time.
const LOOKING_TIME_MAX: Duration = Duration::from_secs(1);

problems!(Problems, InvalidParameter);

/// Get the metrics.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    tag = "operations",
    security(("bearer" = [Scope::SystemRead])),
    responses(
        (status = 200, description = "Prometheus' text format", content_type = "text/plain", body = String),
        Problems,
    ),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    // What does not answer in time is no error of the scrape.
    let looking = async { tokio::join!(count_events(&app), count_sagas(&app), look_at_groups(&app)) };
    let _ = tokio::time::timeout(LOOKING_TIME_MAX, looking).await;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(app.metrics().render()))
}

async fn count_events(app: &App) {
    if let Ok(stats) = app.read_log(|log| async move { log.event_stats().await }).await {
        let metrics = &app.metrics().events;
        metrics.stored(stats.counts.iter().map(|count| (&*count.category, count.events)));
        metrics.stored_bytes.set(i64::try_from(stats.bytes).unwrap_or(i64::MAX));
    }
}

async fn count_sagas(app: &App) {
    let now = app.clock().now();
    if let Ok(tallies) = app.read(|store| async move { store.tally(now).await }).await {
        show_sagas(app.metrics(), &tallies);
    }
}

fn show_sagas(metrics: &Metrics, tallies: &[Tally]) {
    let unfinished = tallies
        .iter()
        .map(|Tally { mode, definition, status, sagas, .. }| ([mode.as_str(), definition, status.as_str()], *sagas));
    metrics.sagas.unfinished.are(unfinished);
    let mut overdue = BTreeMap::<[&str; 2], u64>::new();
    for Tally { mode, definition, status, overdue: sagas, .. } in tallies {
        // Whoever needs an operator is told of as that.
        let sagas = if *status == Status::Parked { 0 } else { *sagas };
        *overdue.entry([mode.as_str(), definition]).or_default() += sagas;
    }
    metrics.sagas.overdue.are(overdue);
}

async fn look_at_groups(app: &App) {
    if let Ok(lags) = app.groups(|groups| async move { groups.lags(None).await }).await {
        let metrics = &app.metrics().events;
        let sums = |count: fn(&ShardLag) -> u64| {
            lags.iter().map(move |(group, shards)| ([group.as_str()], shards.iter().map(count).sum()))
        };
        metrics.group_lag.are(sums(|lag| lag.ahead));
        metrics.dead_letters.are(sums(|lag| lag.parked));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use skald_core::event::Mode;

    use super::{super::super::testing::TestServer, *};

    #[actix_web::test]
    async fn the_events_of_the_log_are_counted_by_category() {
        let server = TestServer::logged().await;
        for number in 0..3 {
            let event = json!({"event_id": number.to_string(), "type": "Opened", "data": {}});
            server.post("/streams/complaint-1/events", &json!({"expected_version": "any", "events": [event]})).await;
        }
        let text = server.get("/metrics").await.text;
        assert!(text.contains(r#"event_store_event_count{category="complaint"} 3"#), "{text}");
        let bytes = text.lines().find_map(|line| line.strip_prefix("event_store_size_bytes "));
        assert!(bytes.is_some_and(|bytes| bytes.parse::<f64>().unwrap() > 0.0), "{text}");
    }

    #[actix_web::test]
    async fn what_a_group_has_not_looked_at_is_shown() {
        let server = TestServer::logged().await;
        let group = server.request(reqwest::Method::PUT, "/groups/audit").json(&json!({"start": "beginning"}));
        assert_eq!(server.send(group).await.status, 201);
        let event = json!({"event_id": "1", "type": "Opened", "data": {}});
        server.post("/streams/complaint-1/events", &json!({"expected_version": "any", "events": [event]})).await;
        let text = server.get("/metrics").await.text;
        for line in [r#"consumer_group_lag_events{group="audit"} 1"#, r#"dead_letters{group="audit"} 0"#] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_parked_saga_is_not_overdue_too() {
        let metrics = Metrics::new();
        let tally = |mode, status, sagas, overdue| {
            let definition = "checkout".to_owned();
            Tally { definition, mode, status, sagas, overdue }
        };
        show_sagas(
            &metrics,
            &[
                tally(Mode::Orchestrated, Status::Running, 5, 2),
                tally(Mode::Orchestrated, Status::Compensating, 2, 1),
                tally(Mode::Orchestrated, Status::Parked, 4, 4),
                tally(Mode::Choreographed, Status::Parked, 1, 1),
            ],
        );
        let text = metrics.render();
        for line in [
            r#"sagas_unfinished{definition="checkout",mode="orchestrated",status="parked"} 4"#,
            r#"sagas_overdue{definition="checkout",mode="orchestrated"} 3"#,
            r#"sagas_overdue{definition="checkout",mode="choreographed"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[actix_web::test]
    async fn requests_are_counted_by_their_pattern_and_never_by_their_path() {
        let server = TestServer::start().await;
        server.get("/sagas/01890a5d-ac96-774b-bcce-b302099a8057").await;
        server.get("/nowhere/secret").await;
        let text = server.get("/metrics").await.text;
        assert!(
            text.contains(r#"http_request_duration_seconds_count{method="GET",route="/sagas/{id}",status="404"} 1"#)
        );
        assert!(text.contains(r#"route="unmatched",status="404"} 1"#), "{text}");
        assert!(!text.contains("secret") && !text.contains("01890a5d"));
    }
}
