//! `POST /admin/participants/{name}/pause` and `/resume`: calls to the participant wait meanwhile.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    super::{
        body::Form,
        params::Params,
        problem::{Code, Problem},
    },
    order::{ActorHeader, OperatorRequest, Order},
    pauses::{ParticipantPauseProblems, PauseView, pause as begin, resume as end},
};
use crate::{access::scope::Scope, app::App, storage::PauseKind};

/// Pause a participant.
///
/// Its calls wait, using no attempt, until it is resumed. Deadlines go on.
#[utoipa::path(
    post,
    path = "/admin/participants/{name}/pause",
    operation_id = "pauseParticipant",
    tag = "admin",
    security(("bearer" = [Scope::PausesWrite])),
    params(("name" = String, Path, description = "The participant", example = "sales"), ActorHeader),
    request_body(content = OperatorRequest),
    responses((status = 200, description = "It is paused", body = PauseView), ParticipantPauseProblems),
)]
pub async fn pause(
    app: web::Data<App>,
    req: HttpRequest,
    name: web::Path<String>,
    Form(request): Form<OperatorRequest>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let order = Order::given(&req, &request.reason, request.actor)?;
    let name = known(&app, &name)?;
    begin(&app, &req, PauseKind::Participant, name, order).await
}

/// Resume a participant.
///
/// Its calls are made again, within seconds.
#[utoipa::path(
    post,
    path = "/admin/participants/{name}/resume",
    operation_id = "resumeParticipant",
    tag = "admin",
    security(("bearer" = [Scope::PausesWrite])),
    params(("name" = String, Path, description = "The participant", example = "sales"), ActorHeader),
    request_body(content = OperatorRequest),
    responses((status = 204, description = "It is not paused any more, or was not"), ParticipantPauseProblems),
)]
pub async fn resume(
    app: web::Data<App>,
    req: HttpRequest,
    name: web::Path<String>,
    Form(request): Form<OperatorRequest>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let order = Order::given(&req, &request.reason, request.actor)?;
    let name = known(&app, &name)?;
    end(&app, &req, PauseKind::Participant, name, order).await
}

fn known(app: &App, name: &str) -> Result<String, Problem> {
    let found = app.gate().health().into_iter().map(|health| health.name).find(|known| known == name);
    found.ok_or_else(|| Problem::new(Code::ParticipantNotFound, "No participant of this name is configured."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::testing::TestServer;

    #[actix_web::test]
    async fn a_participant_is_paused_and_resumed_at_its_gate() {
        let server = TestServer::start().await;
        let paused = |server: &TestServer| server.app.gate().health().iter().any(|health| health.paused);
        assert_eq!(server.act("/admin/participants/sales/pause", json!({})).await.status, 200);
        assert!(paused(&server));
        assert_eq!(server.act("/admin/participants/sales/resume", json!({})).await.status, 204);
        assert!(!paused(&server));
        server.act("/admin/participants/none/pause", json!({})).await.problem(404, "participant_not_found");
        server.post("/admin/participants/sales/pause", &json!({})).await.problem(400, "invalid_body");
    }
}
