//! `POST /admin/sagas/{id}/compensate`: undoes a saga that goes forward.

use actix_web::{HttpRequest, HttpResponse, web};
use skald_core::decide::OperatorAction;

use super::{
    super::{body::Form, problem::Problem, request::RequestContext, view::Saga},
    answer::{ActionProblems, carry_out},
    order::{OperatorRequest, Order, OrderHeaders, RepeatHeader},
};
use crate::{access::scope::Scope, app::App};

/// Compensate a saga.
///
/// Ends its way forward and undoes what took effect, also past the pivot. A call in flight ends first.
#[utoipa::path(
    post,
    path = "/admin/sagas/{id}/compensate",
    operation_id = "compensateSaga",
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
    carry_out(&app, &context, &req, (&id, order), OperatorAction::Compensate).await
}

#[cfg(test)]
mod tests {
    use reqwest::Method;
    use serde_json::json;

    use super::super::super::testing::TestServer;

    #[actix_web::test]
    async fn a_running_saga_is_undone_and_the_operator_is_recorded() {
        let server = TestServer::start().await;
        server.participants.hold("publish:action");
        let id = server.start_note().await;
        while server.get(&format!("/sagas/{id}")).await.body["steps"][1]["status"] != "running" {}
        let reply = server.act(&format!("/admin/sagas/{id}/compensate"), json!({"reason": "customer called"})).await;
        assert_eq!((reply.status, &reply.body["status"]), (200, &json!("compensating")), "{}", reply.text);
        assert_eq!(reply.header("etag"), format!("\"{}\"", reply.body["revision"]));
        server.participants.release("publish:action");
        let saga = server.until(&id, "compensated").await;
        assert_eq!(saga.body["failure"], json!({"code": "force_compensated", "reason": "customer called"}));
        let events = server.get(&format!("/sagas/{id}/events")).await;
        let events = events.body["items"].as_array().unwrap();
        let acted = events.iter().find(|event| event["kind"] == "OperatorActed").unwrap();
        assert_eq!((&acted["actor"], &acted["data"]["reason"]), (&json!("tester"), &json!("customer called")));
        assert_eq!(acted["data"]["correlation_id"].as_str(), Some(reply.header("x-correlation-id")));

        let again = server.act(&format!("/admin/sagas/{id}/compensate"), json!({})).await;
        assert!(again.problem(409, "saga_ended").contains("compensated"));
    }

    #[actix_web::test]
    async fn another_revision_is_refused() {
        let server = TestServer::start().await;
        server.participants.hold("publish:action");
        let id = server.start_note().await;
        let path = format!("/admin/sagas/{id}/compensate");
        let with = |tag: &str| {
            let body = json!({"reason": "x", "actor": "tester"});
            server.request(Method::POST, &path).header("If-Match", tag).json(&body)
        };
        server.send(with("\"999\"")).await.problem(412, "revision_mismatch");
        server.send(with("999")).await.problem(400, "invalid_header");
        while server.get(&format!("/sagas/{id}")).await.body["steps"][1]["status"] != "running" {}
        let tag = server.get(&format!("/sagas/{id}")).await.header("etag").to_owned();
        assert_eq!(server.send(with(&tag)).await.status, 200);
        server.participants.release("publish:action");
    }

    #[actix_web::test]
    async fn who_and_why_must_be_said() {
        let server = TestServer::start().await;
        let path = "/admin/sagas/01890a5d-ac96-774b-bcce-b302099a8057/compensate";
        for (body, place) in [
            (json!({}), "/reason"),
            (json!({"reason": ""}), "/reason"),
            (json!({"reason": "two\nlines"}), "/reason"),
            (json!({"reason": "x".repeat(501)}), "/reason"),
            (json!({"reason": 7}), "/reason"),
            (json!({"reason": "x"}), "/actor"),
            (json!({"reason": "x", "actor": ""}), "/actor"),
            (json!({"reason": "x", "actor": "me", "force": true}), "/force"),
            (json!([]), ""),
        ] {
            let reply = server.post(path, &body).await;
            reply.problem(400, "invalid_body");
            assert_eq!(reply.body["errors"][0]["place"], place, "{body}");
        }
        let both = server.request(Method::POST, path).header("X-Actor", "me");
        server.send(both.json(&json!({"reason": "x", "actor": "you"}))).await.problem(400, "invalid_body");
        server.act(path, json!({})).await.problem(404, "saga_not_found");
        server.act("/admin/sagas/nobody/compensate", json!({})).await.problem(400, "invalid_parameter");
    }
}
