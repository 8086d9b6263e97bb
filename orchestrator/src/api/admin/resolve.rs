//! `POST /admin/sagas/{id}/steps/{step}/resolve`: states how an operation ended that is parked or waits.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::Value;
use skald_core::decide::{OperatorAction, Resolution};
use utoipa::ToSchema;

use super::{
    super::{
        body::{Form, given},
        problem::{Code, Problem},
        request::RequestContext,
        view::Saga,
    },
    answer::{ActionProblems, carry_out},
    order::{Actor, Order, OrderHeaders, Reason, RepeatHeader},
};
use crate::{access::scope::Scope, app::App};

/// What an operator found out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    #[schema(value_type = String, min_length = 1, max_length = 500, example = "found in the bank's records")]
    reason: Reason,
    /// Who acts; the header `X-Actor` does as well.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, nullable = false, min_length = 1, max_length = 128, example = "jane")]
    actor: Option<Actor>,
    outcome: ResolvedOutcome,
    /// Of a step that succeeded; required when other steps refer to it.
    #[serde(default, deserialize_with = "given")]
    #[schema(required = false)]
    output: Option<Value>,
}

/// How an operation ended: `rejected` had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResolvedOutcome {
    Succeeded,
    Rejected,
}

/// Resolve a step.
///
/// The operation's outcome is what the operator says, and the saga goes on from there. A compensation can only be
/// resolved as succeeded.
#[utoipa::path(
    post,
    path = "/admin/sagas/{id}/steps/{step}/resolve",
    operation_id = "resolveStep",
    tag = "admin",
    security(("bearer" = [Scope::SagasOperate])),
    params(
        ("id" = String, Path, format = "uuid", description = "The saga"),
        ("step" = String, Path, description = "The step", example = "process_payment"),
        OrderHeaders,
        RepeatHeader,
    ),
    request_body(content = ResolveRequest),
    responses(
        (status = 200, description = "The saga as it is then", body = Saga, headers(("ETag" = String))),
        ActionProblems,
    ),
)]
pub async fn handle(
    app: web::Data<App>,
    context: RequestContext,
    req: HttpRequest,
    path: web::Path<(String, String)>,
    Form(request): Form<ResolveRequest>,
) -> Result<HttpResponse, Problem> {
    let (id, step) = path.into_inner();
    let order = Order::given(&req, &request.reason, request.actor)?;
    let resolution = match (request.outcome, request.output) {
        (ResolvedOutcome::Succeeded, output) => Resolution::Succeeded { output },
        (ResolvedOutcome::Rejected, None) => Resolution::Rejected,
        (ResolvedOutcome::Rejected, Some(_)) => {
            let reason = "belongs to the outcome succeeded only";
            return Err(Problem::in_field(Code::InvalidBody, "/output", reason));
        }
    };
    carry_out(&app, &context, &req, (&id, order), OperatorAction::Resolve { step, resolution }).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::testing::{TestServer, answered};

    #[actix_web::test]
    async fn an_outcome_that_an_operator_found_out_moves_the_saga_on() {
        let server = TestServer::start().await;
        server.participants.answer("publish:action", answered(422, json!({"code": "no", "reason": "no"})));
        server.participants.answer("write:compensation", answered(410, json!({"code": "gone"})));
        let id = server.start_note().await;
        server.until(&id, "parked").await;
        let path = format!("/admin/sagas/{id}/steps/write/resolve");
        server.act(&path, json!({"outcome": "rejected"})).await.problem(409, "not_possible");
        server.act(&path, json!({"outcome": "rejected", "output": 1})).await.problem(400, "invalid_body");
        server.act(&path, json!({"outcome": "maybe"})).await.problem(400, "invalid_body");
        let reply = server.act(&path, json!({"outcome": "succeeded"})).await;
        assert_eq!((reply.status, &reply.body["status"]), (200, &json!("compensated")), "{}", reply.text);
    }
}
