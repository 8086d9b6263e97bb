//! `POST /admin/sagas/{id}/abandon`: closes a parked saga as it stands.

use actix_web::{HttpRequest, HttpResponse, web};
use skald_core::decide::OperatorAction;

use super::{
    super::{body::Form, problem::Problem, request::RequestContext, view::Saga},
    answer::{ActionProblems, carry_out},
    order::{OperatorRequest, Order, OrderHeaders, RepeatHeader},
};
use crate::{access::scope::Scope, app::App};

/// Abandon a saga.
///
/// Closes a parked saga as it stands; nothing more is done or undone.
#[utoipa::path(
    post,
    path = "/admin/sagas/{id}/abandon",
    operation_id = "abandonSaga",
    tag = "admin",
    security(("bearer" = [Scope::SagasOperate])),
    params(("id" = String, Path, format = "uuid", description = "The saga"), OrderHeaders, RepeatHeader),
    request_body(content = OperatorRequest),
    responses(
        (status = 200, description = "The saga as it is then", body = Saga, headers(("ETag" = String))),
        ActionProblems,
    ),
)]
pub async fn handle(
    app: web::Data<App>,
    context: RequestContext,
    req: HttpRequest,
    id: web::Path<String>,
    Form(request): Form<OperatorRequest>,
) -> Result<HttpResponse, Problem> {
    let order = Order::given(&req, &request.reason, request.actor)?;
    carry_out(&app, &context, &req, (&id, order), OperatorAction::Abandon).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::testing::{TestServer, answered};

    #[actix_web::test]
    async fn only_a_parked_saga_can_be_abandoned() {
        let server = TestServer::start().await;
        server.participants.hold("publish:action");
        let id = server.start_note().await;
        let path = format!("/admin/sagas/{id}/abandon");
        assert!(server.act(&path, json!({})).await.problem(409, "not_possible").contains("parked"));
        server.participants.answer("publish:action", answered(422, json!({"code": "no", "reason": "no"})));
        server.participants.answer("write:compensation", answered(422, json!({"code": "no", "reason": "no"})));
        server.participants.release("publish:action");
        let parked = server.until(&id, "parked").await;
        assert_eq!(parked.body["steps"][0]["parked"]["operation"], "compensation");
        assert_eq!(parked.body["steps"][0]["compensation"]["status"], "parked");
        let reply = server.act(&path, json!({})).await;
        assert_eq!((reply.status, &reply.body["status"]), (200, &json!("abandoned")));
    }
}
