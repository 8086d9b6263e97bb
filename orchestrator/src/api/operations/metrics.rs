//! `GET /metrics`: for Prometheus.

use actix_web::{HttpRequest, HttpResponse, web};

use super::super::{
    params::Params,
    problem::{Problem, problems},
};
use crate::app::App;

problems!(Problems, InvalidParameter);

/// Get the metrics.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    tag = "operations",
    responses(
        (status = 200, description = "Prometheus' text format", content_type = "text/plain", body = String),
        Problems,
    ),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(app.metrics().render()))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::TestServer;

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
