//! `POST /admin/definitions/{name}/pause` and `/resume`: no saga of the definition starts meanwhile.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    super::{body::Form, params::Params, problem::Problem},
    order::{ActorHeader, OperatorRequest, Order},
    pauses::{DefinitionPauseProblems, PauseView, pause as begin, resume as end},
};
use crate::{access::scope::Scope, app::App, storage::PauseKind};

/// Pause a definition.
///
/// No saga of any version of it is started, until it is resumed. Those that run go on.
#[utoipa::path(
    post,
    path = "/admin/definitions/{name}/pause",
    operation_id = "pauseDefinition",
    tag = "admin",
    security(("bearer" = [Scope::PausesWrite])),
    params(("name" = String, Path, description = "The definition", example = "checkout"), ActorHeader),
    request_body(content = OperatorRequest),
    responses((status = 200, description = "It is paused", body = PauseView), DefinitionPauseProblems),
)]
pub async fn pause(
    app: web::Data<App>,
    req: HttpRequest,
    name: web::Path<String>,
    Form(request): Form<OperatorRequest>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let order = Order::given(&req, &request.reason, request.actor)?;
    let name = known(&app, &name).await?;
    begin(&app, &req, PauseKind::Definition, name, order).await
}

/// Resume a definition.
///
/// Its sagas are started again.
#[utoipa::path(
    post,
    path = "/admin/definitions/{name}/resume",
    operation_id = "resumeDefinition",
    tag = "admin",
    security(("bearer" = [Scope::PausesWrite])),
    params(("name" = String, Path, description = "The definition", example = "checkout"), ActorHeader),
    request_body(content = OperatorRequest),
    responses((status = 204, description = "It is not paused any more, or was not"), DefinitionPauseProblems),
)]
pub async fn resume(
    app: web::Data<App>,
    req: HttpRequest,
    name: web::Path<String>,
    Form(request): Form<OperatorRequest>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let order = Order::given(&req, &request.reason, request.actor)?;
    let name = known(&app, &name).await?;
    end(&app, &req, PauseKind::Definition, name, order).await
}

async fn known(app: &App, name: &str) -> Result<String, Problem> {
    Ok(app.definition(name, None).await?.name.clone())
}

#[cfg(test)]
mod tests {
    use reqwest::Method;
    use serde_json::json;

    use super::super::super::testing::TestServer;

    #[actix_web::test]
    async fn a_paused_definition_starts_nothing_until_it_is_resumed() {
        let server = TestServer::start().await;
        let keyed = || server.request(Method::POST, "/sagas/note").header("Idempotency-Key", "k").json(&json!({}));
        let first = server.send(keyed()).await;
        let paused = server.act("/admin/definitions/note/pause", json!({"reason": "maintenance"})).await;
        assert_eq!((paused.status, &paused.body["kind"]), (200, &json!("definition")), "{}", paused.text);
        let refused = server.post("/sagas/note", &json!({})).await;
        refused.problem(503, "definition_paused");
        assert_eq!(refused.header("retry-after"), "30");
        assert_eq!(server.send(keyed()).await.id(), first.id(), "a repetition starts nothing");
        let list = server.get("/admin/pauses").await;
        assert_eq!(list.body["items"][0]["reason"], "maintenance", "{}", list.text);
        for _ in 0..2 {
            assert_eq!(server.act("/admin/definitions/note/resume", json!({})).await.status, 204);
        }
        assert_eq!(server.post("/sagas/note", &json!({})).await.status, 201);
        server.act("/admin/definitions/none/pause", json!({})).await.problem(404, "definition_not_found");
    }

    #[actix_web::test]
    async fn another_replica_hears_of_a_pause() {
        let one = TestServer::start().await;
        let other = TestServer::on(std::sync::Arc::clone(&one.store), 1000, 1000).await;
        one.act("/admin/definitions/note/pause", json!({})).await;
        one.act("/admin/participants/sales/pause", json!({})).await;
        while other.post("/sagas/note", &json!({})).await.body["code"] != "definition_paused" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(other.app.gate().health().iter().any(|health| health.name == "sales" && health.paused));
    }
}
