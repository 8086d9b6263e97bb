//! `POST /admin/sagas/{id}/retry`: tries again what is parked or waits for its next attempt.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use skald_core::decide::OperatorAction;
use utoipa::ToSchema;

use super::{
    super::{
        body::{Form, given},
        problem::Problem,
        request::RequestContext,
        view::Saga,
    },
    answer::{ActionProblems, carry_out},
    order::{Actor, Order, OrderHeaders, Reason, RepeatHeader},
};
use crate::{access::scope::Scope, app::App};

/// What to try again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    #[schema(value_type = String, min_length = 1, max_length = 500, example = "the participant is back")]
    reason: Reason,
    /// Who acts; the header `X-Actor` does as well.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, nullable = false, min_length = 1, max_length = 128, example = "jane")]
    actor: Option<Actor>,
    /// Only this step; every one that is parked if left out, or, if none is, that waits for its next attempt.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, example = "process_payment")]
    step: Option<String>,
}

/// Retry a saga.
///
/// The operation is called at once, with the same idempotency key and a fresh retry policy.
#[utoipa::path(
    post,
    path = "/admin/sagas/{id}/retry",
    operation_id = "retrySaga",
    tag = "admin",
    security(("bearer" = [Scope::SagasOperate])),
    params(("id" = String, Path, format = "uuid", description = "The saga"), OrderHeaders, RepeatHeader),
    request_body(content = RetryRequest),
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
    Form(request): Form<RetryRequest>,
) -> Result<HttpResponse, Problem> {
    let order = Order::given(&req, &request.reason, request.actor)?;
    carry_out(&app, &context, &req, (&id, order), OperatorAction::Retry { step: request.step }).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::testing::{TestServer, answered};

    #[actix_web::test]
    async fn what_is_parked_is_tried_again_and_ends_the_saga() {
        let server = TestServer::start().await;
        server.participants.answer("publish:action", answered(422, json!({"code": "no", "reason": "no"})));
        server.participants.answer("write:compensation", answered(410, json!({"code": "gone"})));
        let id = server.start_note().await;
        server.until(&id, "parked").await;
        let path = format!("/admin/sagas/{id}/retry");
        server.act(&path, json!({"step": "nowhere"})).await.problem(404, "step_not_found");
        server.act(&path, json!({"step": "publish"})).await.problem(409, "not_possible");
        server.participants.answer("write:compensation", answered(200, json!({})));
        let reply = server.act(&path, json!({"step": "write"})).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let saga = server.until(&id, "compensated").await;
        assert_eq!(saga.body["steps"][0]["compensation"]["status"], "compensated");
        let attempts = saga.body["steps"][0]["attempts"].as_array().unwrap();
        let of_undoing: Vec<_> = attempts.iter().filter(|attempt| attempt["operation"] == "compensation").collect();
        assert_eq!((of_undoing.len(), &of_undoing[1]["http_status"]), (2, &json!(200)));
    }
}
