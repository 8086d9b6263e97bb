//! `GET /metrics`: for Prometheus.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};

use super::super::{
    params::Params,
    problem::{Problem, problems},
};
use crate::{access::scope::Scope, app::App};

/// For counting what has come since the last time. A scrape does not wait longer: it shows what was counted by then.
const COUNTING_TIME_MAX: Duration = Duration::from_secs(1);

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
    count_events(&app).await;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(app.metrics().render()))
}

async fn count_events(app: &App) {
    let counting = app.read_log(|log| async move { log.event_stats().await });
    if let Ok(Ok(stats)) = tokio::time::timeout(COUNTING_TIME_MAX, counting).await {
        app.metrics().events.stored(stats.counts.iter().map(|count| (&*count.category, count.events)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::testing::TestServer;

    #[actix_web::test]
    async fn the_events_of_the_log_are_counted_by_category() {
        let server = TestServer::logged().await;
        for number in 0..3 {
            let event = json!({"event_id": number.to_string(), "type": "Opened", "data": {}});
            server.post("/streams/complaint-1/events", &json!({"expected_version": "any", "events": [event]})).await;
        }
        let text = server.get("/metrics").await.text;
        assert!(text.contains(r#"event_store_event_count{category="complaint"} 3"#), "{text}");
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
