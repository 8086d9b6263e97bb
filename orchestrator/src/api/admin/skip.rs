//! `POST /admin/sagas/{id}/steps/{step}/skip`: leaves out an operation that is parked or waits.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::Value;
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

/// What to leave out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SkipRequest {
    #[schema(value_type = String, min_length = 1, max_length = 500, example = "done by hand")]
    reason: Reason,
    /// Who acts; the header `X-Actor` does as well.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, nullable = false, min_length = 1, max_length = 128, example = "jane")]
    actor: Option<Actor>,
    /// Stands for the step's output; required when other steps refer to it.
    #[serde(default, deserialize_with = "given")]
    #[schema(required = false)]
    output: Option<Value>,
}

/// Skip a step.
///
/// Going forward, the step is left out and the saga goes on. Going backward, its compensation is: then the saga ends as
/// `abandoned`.
#[utoipa::path(
    post,
    path = "/admin/sagas/{id}/steps/{step}/skip",
    operation_id = "skipStep",
    tag = "admin",
    security(("bearer" = [Scope::SagasOperate])),
    params(
        ("id" = String, Path, format = "uuid", description = "The saga"),
        ("step" = String, Path, description = "The step", example = "process_payment"),
        OrderHeaders,
        RepeatHeader,
    ),
    request_body(content = SkipRequest),
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
    Form(request): Form<SkipRequest>,
) -> Result<HttpResponse, Problem> {
    let (id, step) = path.into_inner();
    let order = Order::given(&req, &request.reason, request.actor)?;
    carry_out(&app, &context, &req, (&id, order), OperatorAction::Skip { step, output: request.output }).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use skald_core::{
        classify::{Answer, Body, CallResult},
        time::Millis,
    };

    use super::super::super::testing::{TestServer, answered};

    #[actix_web::test]
    async fn a_skipped_compensation_ends_the_saga_as_abandoned() {
        let server = TestServer::start().await;
        server.participants.answer("publish:action", answered(422, json!({"code": "no", "reason": "no"})));
        server.participants.answer("write:compensation", answered(410, json!({"code": "gone"})));
        let id = server.start_note().await;
        server.until(&id, "parked").await;
        let reply = server.act(&format!("/admin/sagas/{id}/steps/write/skip"), json!({})).await;
        assert_eq!((reply.status, &reply.body["status"]), (200, &json!("abandoned")), "{}", reply.text);
        assert_eq!(reply.body["steps"][0]["status"], "compensation_skipped");
        assert_eq!(reply.body["steps"][0]["compensation"]["status"], "skipped");
    }

    #[actix_web::test]
    async fn an_output_that_others_refer_to_must_be_given() {
        let server = TestServer::start().await;
        // The next attempt is far enough for the operator to be first, however busy the machine is.
        let again_in_a_minute =
            Answer { status: 503, retry_after: Some(Millis(60_000)), location: None, body: Body::Empty };
        server.participants.answer("reserve_stock:action", CallResult::Answered(again_in_a_minute));
        let order = json!({
            "customer_id": "c-1",
            "items": [{"product_id": "p-1", "quantity": 2}],
            "payment": {"method": "card", "token": "tok_ok"},
        });
        let request = server.request(reqwest::Method::POST, "/sagas/checkout").header("Prefer", "respond-async");
        let id = server.send(request.json(&order)).await.id().to_owned();
        while server.get(&format!("/sagas/{id}")).await.body["steps"][1]["attempts"][0].is_null() {}
        let path = format!("/admin/sagas/{id}/steps/reserve_stock/skip");
        let mut reply = server.act(&path, json!({})).await;
        while reply.body["code"] == "not_possible" {
            reply = server.act(&path, json!({})).await;
        }
        reply.problem(422, "output_required");
        assert_eq!(reply.body["errors"][0]["place"], "/output");
        let reply = server.act(&path, json!({"output": {"total": 5}})).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let saga = server.until(&id, "completed").await;
        assert_eq!(saga.body["output"]["total"], 5);
    }
}
