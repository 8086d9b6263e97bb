//! `POST /sagas/{definition}`: starts a saga; the body is its input.

use actix_web::{HttpRequest, HttpResponse, http::Method, web};
use skald_core::event::Mode;

use super::{
    super::{
        endpoint::method_not_allowed,
        params::{ModeParam, Params, saga_id},
        problem::Problem,
        request::RequestContext,
    },
    described::{StartHeaders, StartProblems, Started},
    starting::{Ask, StartBody, asked_in_headers, start},
};
use crate::{access::scope::Scope, app::App, events::stream_name::StreamName};

/// Start a saga.
///
/// The body is the saga's input. The answer waits for the saga's end, 10 seconds unless `Prefer` says otherwise: 201
/// when it has ended (look at `status`: `compensated` means that it failed and was undone), 202 when it goes on or is
/// parked; `Location` is where to look.
///
/// With an `Idempotency-Key` the request can be repeated: the same key gives the same saga. A repetition is answered in
/// the same way, with the saga as it is by then and `Idempotent-Replayed: true`.
///
/// With `from`, properties that the body lacks and the definition's schema names are taken from the state of a stream: a
/// checkout from a cart. With an `Idempotency-Key` the stream may go on meanwhile: a repetition gives the same saga.
#[utoipa::path(
    post,
    path = "/sagas/{definition}",
    operation_id = "startSaga",
    tag = "sagas",
    security(("bearer" = [Scope::SagasStart])),
    params(
        ("definition" = String, Path, description = "Name of the definition", example = "checkout"),
        ("version" = Option<u32>, Query, minimum = 1, description = "Version of the definition; the highest if left out"),
        ("mode" = Option<super::super::words::SagaMode>, Query, description = "`orchestrated` if left out"),
        ("from" = Option<String>, Query, nullable = false, example = "cart-42",
         description = "A stream whose state fills in what the body lacks"),
        StartHeaders,
    ),
    request_body(content = serde_json::Value, description = "The input; its schema is the definition's"),
    responses(
        Started,
        StartProblems,
    ),
)]
pub async fn handle(
    app: web::Data<App>,
    context: RequestContext,
    req: HttpRequest,
    definition: web::Path<String>,
    StartBody(input): StartBody,
) -> Result<HttpResponse, Problem> {
    let mut params = Params::of(&req);
    let version = params.version();
    let mode = params.take("mode").map_or(Mode::Orchestrated, |ModeParam(mode)| mode);
    let from = params.take::<StreamName>("from");
    params.finish()?;
    let (key, prefer) = asked_in_headers(&req)?;
    start(&app, &context, Ask { definition: definition.into_inner(), version, mode, input, from, key, prefer }).await
}

/// Any other method: what is read by name is no definition but a saga, misspelt.
pub async fn not_a_saga(
    app: web::Data<App>,
    req: HttpRequest,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let reads = matches!(*req.method(), Method::GET | Method::HEAD);
    if reads && app.definitions().get(&name, None).is_none() {
        saga_id(&name)?;
    }
    Err(method_not_allowed("POST"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures_util::future::join_all;
    use reqwest::Method;
    use serde_json::{Value, json};
    use skald_core::shard::batch::CommitError;

    use super::super::super::testing::{Reply, TestServer};
    use crate::storage::memory::Applied;

    fn order() -> Value {
        json!({
            "customer_id": "c-1",
            "items": [{"product_id": "p-1", "quantity": 2}],
            "payment": {"method": "card", "token": "tok_ok"},
        })
    }

    async fn keyed(server: &TestServer, key: &str, input: Value, prefer: &str) -> Reply {
        let request = server.request(Method::POST, "/sagas/note").json(&input);
        server.send(request.header("Idempotency-Key", key).header("Prefer", prefer)).await
    }

    #[actix_web::test]
    async fn a_saga_that_ends_in_time_is_answered_whole() {
        let server = TestServer::start().await;
        let reply = server.post("/sagas/checkout", &order()).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        assert_eq!(reply.header("location"), format!("/sagas/{}", reply.id()));
        assert_eq!(reply.header("etag"), format!("\"{}\"", reply.body["revision"]));
        assert_eq!(reply.body["status"], "completed");
        assert_eq!(reply.body["output"], json!({"order_id": reply.id(), "total": 100}));
        assert_eq!(reply.body["correlation_id"], reply.header("x-correlation-id"));
        let again = server.get(reply.header("location")).await;
        assert_eq!(again.body, reply.body);
        let known = server.request(Method::GET, reply.header("location")).header("If-None-Match", reply.header("etag"));
        let known = server.send(known).await;
        assert_eq!((known.status, &*known.text, known.header("etag")), (304, "", reply.header("etag")));
    }

    #[actix_web::test]
    async fn a_start_waits_as_long_as_the_client_prefers() {
        let server = TestServer::start().await;
        server.participants.hold("publish:action");
        for (prefer, applied) in
            [("wait=0", "wait=0"), ("respond-async", "respond-async"), ("respond-async, wait=0", "wait=0")]
        {
            let request = server.request(Method::POST, "/sagas/note").header("Prefer", prefer).json(&json!({}));
            let reply = server.send(request).await;
            assert_eq!((reply.status, reply.header("preference-applied")), (202, applied), "{}", reply.text);
            assert_eq!(reply.body["status"], "running");
        }
        let waiting = server.request(Method::POST, "/sagas/note").header("Prefer", "wait=1").json(&json!({}));
        assert_eq!(server.send(waiting).await.status, 202);
        let waiting = server.request(Method::POST, "/sagas/note").header("Prefer", "wait=60").json(&json!({}));
        let releasing = async { server.participants.release("publish:action") };
        assert_eq!(tokio::join!(server.send(waiting), releasing).0.status, 201);
    }

    #[actix_web::test]
    async fn what_was_waited_for_is_answered_as_it_would_be_read_and_not_read() {
        let server = TestServer::start().await;
        for (answer, status) in [(200, "completed"), (402, "compensated")] {
            let body = json!({"code": "card_declined", "detail": "the bank says no"});
            server.participants.answer("process_payment:action", super::super::super::testing::answered(answer, body));
            let reads = server.store.streams_read();
            let started = server.post("/sagas/checkout", &order()).await;
            assert_eq!((started.status, &started.body["status"]), (201, &json!(status)), "{}", started.text);
            assert_eq!(server.store.streams_read(), reads);
            assert_eq!(started.body, server.get(&format!("/sagas/{}", started.id())).await.body);
        }
    }

    #[actix_web::test]
    async fn one_key_is_one_saga_also_for_fifty_at_once_10() {
        let server = TestServer::start().await;
        let replies = join_all((0..50).map(|_| keyed(&server, "same", json!({"a": 1}), "respond-async"))).await;
        let ids: BTreeSet<&str> = replies.iter().map(Reply::id).collect();
        assert_eq!(ids.len(), 1);
        let first = replies.iter().filter(|reply| reply.header("idempotent-replayed").is_empty()).count();
        assert_eq!(first, 1);
        let saga = server.until(replies[0].id(), "completed").await;
        // Written otherwise, it is still the same.
        let again = server.request(Method::POST, "/sagas/note").body("{ \"a\" : 1 }");
        let again = server.send(again.header("Idempotency-Key", "\"same\"")).await;
        assert_eq!((again.status, &again.body), (201, &saga.body));
        assert_eq!(again.header("idempotent-replayed"), "true");
        let generic = json!({"definition": "note", "input": {"a": 1}});
        let generic = server.request(Method::POST, "/sagas").header("Idempotency-Key", "same").json(&generic);
        assert_eq!(server.send(generic).await.body, saga.body);
    }

    #[actix_web::test]
    async fn a_key_stands_for_one_request() {
        let server = TestServer::start().await;
        keyed(&server, "k", json!({"a": 1}), "wait=5").await;
        keyed(&server, "k", json!({"a": 2}), "wait=5").await.problem(422, "idempotency_key_reused");
        let other = server.request(Method::POST, "/sagas/note?version=1").header("Idempotency-Key", "k");
        server.send(other.json(&json!({"a": 1}))).await.problem(422, "idempotency_key_reused");
        let elsewhere = server.request(Method::POST, "/sagas/checkout").header("Idempotency-Key", "k").json(&order());
        assert_eq!(server.send(elsewhere).await.status, 201, "keys belong to their definition");
    }

    #[actix_web::test]
    async fn a_repeated_start_waits_for_the_end_as_the_first_did() {
        let server = TestServer::start().await;
        server.participants.hold("publish:action");
        assert_eq!(keyed(&server, "k", json!({}), "respond-async").await.status, 202);
        assert_eq!(keyed(&server, "k", json!({}), "respond-async").await.header("idempotent-replayed"), "true");
        let releasing = async { server.participants.release("publish:action") };
        let (reply, ()) = tokio::join!(keyed(&server, "k", json!({}), "wait=30"), releasing);
        assert_eq!((reply.status, &reply.body["status"]), (201, &json!("completed")));
    }

    #[actix_web::test]
    async fn a_start_whose_commit_is_in_doubt_is_found_by_its_key_10() {
        let server = TestServer::start().await;
        server.store.fail_commit(CommitError::InDoubt("connection lost".to_owned()), Applied::Yes);
        let reply = keyed(&server, "k", json!({}), "wait=30").await;
        assert_eq!((reply.status, &reply.body["status"]), (201, &json!("completed")), "{}", reply.text);
        server.store.fail_commit(CommitError::InDoubt("connection lost".to_owned()), Applied::No);
        let unkeyed = server.post("/sagas/note", &json!({})).await;
        assert!(unkeyed.problem(503, "in_doubt").contains("correlation_id"));
        assert_eq!(unkeyed.header("retry-after"), "1");
        assert_eq!(server.get("/sagas").await.body["items"].as_array().map(Vec::len), Some(1));
    }

    /// Posts a body until it is answered with a status: what the engine has room for is told with a little delay.
    async fn until_answered(server: &TestServer, body: &'static str, status: u16) -> Reply {
        for _ in 0..2000 {
            let reply = server.send(server.request(Method::POST, "/sagas/note").body(body)).await;
            if reply.status == status {
                return reply;
            }
        }
        panic!("{body} was never answered {status}");
    }

    #[actix_web::test]
    async fn overload_is_refused_before_anything_is_accepted() {
        let server = TestServer::with_limits(1, 1000).await;
        server.participants.hold("publish:action");
        let running = keyed(&server, "k", json!({}), "respond-async").await;
        assert_eq!(running.status, 202);
        let refused = server.post("/sagas/note", &json!({})).await;
        refused.problem(503, "overloaded");
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(server.get("/sagas").await.body["items"].as_array().map(Vec::len), Some(1));
        until_answered(&server, "{ what it says is not even read", 503).await.problem(503, "overloaded");
        assert_eq!(keyed(&server, "k", json!({}), "respond-async").await.header("idempotent-replayed"), "true");
        server.participants.release("publish:action");
        server.until(running.id(), "completed").await;
        until_answered(&server, "{}", 201).await;
    }

    #[actix_web::test]
    async fn an_input_is_kept_as_it_was_written() {
        let server = TestServer::start().await;
        let text = "{\"price\": 1.50, \"name\":\"\\u00e9\"}";
        let started = server.send(server.request(Method::POST, "/sagas/note").body(format!("\n {text} \n"))).await;
        assert!(started.text.contains(&format!("\"input\":{text}")), "{}", started.text);
        let events = server.get(&format!("/sagas/{}/events", started.id())).await;
        assert!(events.text.contains(text), "{}", events.text);
        let generic = format!("{{\"definition\":\"note\",\"input\": {text} }}");
        let started = server.send(server.request(Method::POST, "/sagas").body(generic)).await;
        assert!(started.text.contains(&format!("\"input\":{text}")), "{}", started.text);
    }

    #[actix_web::test]
    async fn a_refused_step_is_answered_as_an_ended_saga_that_tells_why() {
        let server = TestServer::start().await;
        let declined = json!({"code": "card_declined", "detail": "the bank says no"});
        server.participants.answer("process_payment:action", super::super::super::testing::answered(402, declined));
        let reply = server.post("/sagas/checkout", &order()).await;
        assert_eq!((reply.status, &reply.body["status"]), (201, &json!("compensated")), "{}", reply.text);
        assert_eq!(reply.body["failure"]["step"], "process_payment");
        let steps = &reply.body["steps"];
        assert_eq!((&steps[1]["status"], &steps[1]["outcome"]), (&json!("compensated"), &json!("succeeded")));
        assert_eq!((&steps[2]["status"], &steps[2]["outcome"]), (&json!("rejected"), &json!("rejected")));
        assert_eq!((&steps[3]["status"], &steps[3]["attempts"]), (&json!("pending"), &json!([])));
        assert_eq!(steps[2]["attempts"][0]["http_status"], 402);
        assert!(steps[2]["attempts"][0]["error"].is_string());
    }
}
