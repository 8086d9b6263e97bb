//! Personal data, from the start of a saga to the erasure of whose it is.

use reqwest::Method;
use serde_json::{Value, json};
use skald_core::classify::{Answer, Body, CallResult};

use super::super::super::testing::{Reply, TestServer, answered};
use crate::storage::Store;

const SECRETS: [&str; 4] = ["jane@example.org", "jane%40example.org", "Jane Doe", "DE12345"];

/// Two steps; the second is told what the first answered.
const WELCOME: &str = r#"
apiVersion: skald/v1
name: welcome
version: 1
input: { schema: { type: object, properties: { customer_id: {}, email: {}, contacts: {} } } }
personal:
  subject: "${input.customer_id}"
  fields: [input.email, "input.contacts[].name", steps.write.output.account]
steps:
  - id: write
    call:
      service: catalog
      method: POST
      path: "/letters/${input.email}"
      headers: { X-To: "${input.email}" }
      body: { to: "${input.email}", text: "Dear ${input.contacts[0].name}!", all: "${input}" }
    output: { account: "${response.body.account}", total: "${response.body.total}", all: "${response.body}" }
    retry: { max_attempts: 2, initial: 1ms, max: 1ms }
    compensate:
      call: { service: catalog, method: POST, path: /letters/burn, body: { why: "${saga.failure.reason}" } }
      retry: { max_attempts: 1, initial: 1ms, max: 1ms }
  - id: publish
    call: { service: sales, method: POST, path: /sent, body: { account: "${steps.write.output.account}" } }
    retry: { max_attempts: 1, initial: 1ms, max: 1ms }
    compensate:
      call: { service: sales, method: POST, path: /unsent, body: {} }
      retry: { max_attempts: 1, initial: 1ms, max: 1ms }
output: { account: "${steps.write.output.account}" }
"#;

fn input() -> Value {
    json!({"customer_id": "c-7", "email": "jane@example.org", "contacts": [{"name": "Jane Doe", "n": 1}, {"n": 2}]})
}

async fn server() -> TestServer {
    let server = TestServer::start().await;
    prepare(&server).await;
    server
}

async fn prepare<S: Store>(server: &TestServer<S>) {
    let request = server.request(Method::PUT, "/definitions/welcome").header("Content-Type", "application/yaml");
    let registered = server.send(request.body(WELCOME)).await;
    assert!(matches!(registered.status, 200 | 201), "{}", registered.text);
    let answer = json!({"account": "DE12345", "total": 3, "note": "sent to JANE@example.org"});
    server.participants.answer("write:action", answered(200, answer));
}

async fn erase<S: Store>(server: &TestServer<S>, id: &str) -> Reply {
    server.act(&format!("/admin/subjects/{id}/erase"), json!({"reason": "she asked"})).await
}

/// All that is stored of sagas: nothing that a reader without keys could read.
async fn assert_sealed(server: &TestServer, id: &str) {
    for path in [format!("/sagas/{id}/events?limit=250"), "/sagas".to_owned()] {
        let text = server.get(&path).await.text.to_lowercase();
        assert!(text.contains(id));
        for secret in SECRETS {
            assert!(!text.contains(&secret.to_lowercase()), "{secret} in {path}: {text}");
        }
    }
}

#[actix_web::test]
async fn participants_and_readers_see_values_and_the_log_does_not() {
    let server = server().await;
    let saga = server.post("/sagas/welcome", &input()).await;
    assert_eq!((saga.status, &saga.body["status"]), (201, &json!("completed")), "{}", saga.text);
    assert_eq!(saga.body["input"], input());
    let outputs = &saga.body["steps"][0]["output"];
    assert_eq!((&outputs["account"], &outputs["total"]), (&json!("DE12345"), &json!(3)));
    assert_eq!(outputs["all"]["note"], "sent to JANE@example.org");
    assert_eq!(saga.body["output"], json!({"account": "DE12345"}));
    let calls = server.participants.calls.lock().unwrap().clone();
    let body: Value = serde_json::from_str(calls[0].target.body.as_ref().unwrap()).unwrap();
    assert_eq!(body, json!({"to": "jane@example.org", "text": "Dear Jane Doe!", "all": input()}));
    assert_eq!(calls[0].target.path, "/letters/jane%40example.org");
    assert_eq!(calls[0].target.headers, [("X-To".to_owned(), "jane@example.org".to_owned())]);
    assert_eq!(calls[1].target.body.as_deref(), Some(r#"{"account":"DE12345"}"#));
    assert_sealed(&server, saga.id()).await;
}

#[actix_web::test]
async fn an_error_that_repeats_a_value_is_sealed_and_sent_back_as_it_was() {
    let server = server().await;
    let refusal = json!({"code": "unknown_jane@example.org", "detail": "jane@example.org of Jane Doe is not known"});
    server.participants.answer("publish:action", answered(422, refusal));
    let saga = server.post("/sagas/welcome", &input()).await;
    assert_eq!(saga.body["status"], "compensated", "{}", saga.text);
    assert_eq!(saga.body["failure"]["reason"], "jane@example.org of Jane Doe is not known");
    assert_eq!(saga.body["failure"]["code"], "unknown_jane@example.org");
    assert_eq!(saga.body["steps"][1]["attempts"][0]["error"], "jane@example.org of Jane Doe is not known");
    let calls = server.participants.calls.lock().unwrap().clone();
    let undo = calls.last().unwrap().target.body.clone();
    assert_eq!(undo.as_deref(), Some(r#"{"why":"jane@example.org of Jane Doe is not known"}"#));
    assert_sealed(&server, saga.id()).await;
    let list = server.get("/sagas").await;
    assert_eq!(list.body["items"][0]["failure"]["reason"], "[personal] of [personal] is not known");
}

#[actix_web::test]
async fn an_erased_subject_can_be_read_by_nobody_and_its_sagas_still_can() {
    let server = server().await;
    let saga = server.post("/sagas/welcome", &input()).await;
    let other = json!({"customer_id": "c-8", "email": "joe@example.org", "contacts": [{"name": "Joe Bloggs"}]});
    let other = server.post("/sagas/welcome", &other).await;
    let held = server.get("/admin/subjects/c-7").await;
    assert_eq!((&held.body["state"], &held.body["sagas"]), (&json!("held"), &json!(1)), "{}", held.text);

    let erased = erase(&server, "c-7").await;
    assert_eq!((erased.status, &erased.body["state"]), (200, &json!("erased")), "{}", erased.text);
    let erasure = &erased.body["erasures"][0];
    assert_eq!((&erasure["actor"], &erasure["reason"]), (&json!("tester"), &json!("she asked")));
    assert_eq!(erasure["sagas"], 1);
    assert_eq!(erase(&server, "c-7").await.body, erased.body, "erased once");
    assert_eq!(server.get("/admin/subjects/c-7").await.body, erased.body);

    let after = server.get(&format!("/sagas/{}", saga.id())).await;
    let contacts = json!([{"name": "[erased]", "n": 1}, {"n": 2}]);
    assert_eq!(after.body["input"], json!({"customer_id": "c-7", "email": "[erased]", "contacts": contacts}));
    assert_eq!(after.body["output"], json!({"account": "[erased]"}));
    assert_eq!(after.body["steps"][0]["output"]["all"]["note"], "sent to [erased]");
    assert_eq!((&after.body["status"], &after.body["steps"][0]["output"]["total"]), (&json!("completed"), &json!(3)));
    let other = server.get(&format!("/sagas/{}", other.id())).await;
    assert_eq!(other.body["input"]["email"], "joe@example.org", "another's is not touched");

    let again = server.post("/sagas/welcome", &input()).await;
    assert_eq!(again.body["input"], input(), "who comes again is sealed anew");
    let after = server.get(&format!("/sagas/{}", saga.id())).await;
    assert_eq!(after.body["input"]["email"], "[erased]", "and what was erased stays so");
    assert_eq!(erase(&server, "c-7").await.body["erasures"].as_array().map(Vec::len), Some(2));
}

#[actix_web::test]
async fn a_subject_with_an_unfinished_saga_is_not_erased() {
    let server = server().await;
    server.participants.hold("publish:action");
    let request = server.request(Method::POST, "/sagas/welcome").header("Prefer", "respond-async").json(&input());
    let running = server.send(request).await;
    let refused = erase(&server, "c-7").await;
    refused.problem(409, "subject_in_use");
    assert_eq!(refused.body["errors"], json!([{"place": format!("/sagas/{}", running.id()), "reason": "is running"}]));
    server.participants.release("publish:action");
    server.until(running.id(), "completed").await;
    assert_eq!(erase(&server, "c-7").await.status, 200);
}

#[actix_web::test]
async fn a_subject_that_was_never_held_is_unknown() {
    let server = server().await;
    server.get("/admin/subjects/nobody").await.problem(404, "subject_not_found");
    erase(&server, "nobody").await.problem(404, "subject_not_found");
    server.post("/admin/subjects/c-7/erase", &json!({"reason": "x"})).await.problem(400, "invalid_body");
    server.post("/admin/subjects/c-7/erase", &json!({"actor": "x"})).await.problem(400, "invalid_body");
}

#[actix_web::test]
async fn a_start_is_repeated_under_its_key_and_its_fingerprint_tells_nothing() {
    let server = server().await;
    let keyed = |input: Value| {
        let request = server.request(Method::POST, "/sagas/welcome").header("Idempotency-Key", "k").json(&input);
        server.send(request)
    };
    let first = keyed(input()).await;
    let again = keyed(input()).await;
    assert_eq!((again.id(), again.header("idempotent-replayed")), (first.id(), "true"));
    keyed(json!({"customer_id": "c-7", "email": "x@example.org"})).await.problem(422, "idempotency_key_reused");
    assert_eq!(erase(&server, "c-7").await.status, 200);
    let again = keyed(input()).await;
    assert_eq!((again.id(), &again.body["input"]["email"]), (first.id(), &json!("[erased]")));
}

#[actix_web::test]
async fn an_input_must_say_whose_it_is_and_hold_no_tokens() {
    let server = server().await;
    for input in [
        json!({"email": "jane@example.org"}),
        json!({"customer_id": "", "email": "jane@example.org"}),
        json!({"customer_id": "c-7", "email": "~skald.sealed.1.a.b~"}),
        json!({"customer_id": "c-7", "note": "x ~skald.sealed.1.a"}),
    ] {
        let refused = server.post("/sagas/welcome", &input).await;
        assert!(!refused.problem(422, "invalid_input").contains("jane"), "{}", refused.text);
    }
    server.get("/admin/subjects/c-7").await.problem(404, "subject_not_found");
    // Elsewhere it is a text like any other.
    let note = server.post("/sagas/note", &json!({"note": "~skald.sealed.1.a.b~"})).await;
    assert_eq!(note.body["input"]["note"], "~skald.sealed.1.a.b~");
}

#[actix_web::test]
async fn anothers_token_is_not_opened_for_a_participant() {
    let server = server().await;
    let jane = server.post("/sagas/welcome", &input()).await;
    let events = server.get(&format!("/sagas/{}/events", jane.id())).await;
    let token = events.body["items"][0]["data"]["input"]["email"].as_str().unwrap().to_owned();
    // Whoever answers it, or gives it as an input, gets it back as what it is: a text.
    server.participants.answer("write:action", answered(200, json!({"account": token, "total": 1, "x": token})));
    let eve = server
        .post(
            "/sagas/welcome",
            &json!({"customer_id": "c-9", "email": "eve@example.org", "contacts": [{"name": "Eve"}]}),
        )
        .await;
    assert_eq!(eve.body["status"], "completed", "{}", eve.text);
    assert_eq!(eve.body["output"]["account"], token);
    assert_eq!(eve.body["steps"][0]["output"]["all"]["x"], token);
    let calls = server.participants.calls.lock().unwrap().clone();
    assert!(!calls[3].target.body.as_ref().unwrap().contains("jane"), "{:?}", calls[3]);
}

#[actix_web::test]
async fn what_a_callback_or_an_operator_says_is_sealed_too() {
    let server = server().await;
    let accepted = CallResult::Answered(Answer { status: 202, retry_after: None, location: None, body: Body::Empty });
    server.participants.answer("write:action", accepted.clone());
    let start = || server.request(Method::POST, "/sagas/welcome").header("Prefer", "respond-async").json(&input());
    let first = server.send(start()).await;
    let token = String::from_utf8(server.tokens.issue(&format!("{}:write:action", first.id())).to_vec()).unwrap();
    let told = json!({"operation": "action", "outcome": "succeeded",
        "output": {"account": "DE12345", "total": 1, "for": "Jane Doe"}});
    let request = server.request(Method::POST, &format!("/sagas/{}/steps/write/complete", first.id())).json(&told);
    assert_eq!(server.send(request.header("Saga-Callback-Token", token)).await.status, 200);
    let ended = server.until(first.id(), "completed").await;
    assert_eq!(ended.body["steps"][0]["output"]["account"], "DE12345");
    assert_sealed(&server, first.id()).await;

    server.participants.answer("write:action", answered(500, json!({})));
    server.participants.answer("write:compensation", answered(410, json!({})));
    let second = server.send(start()).await;
    server.until(second.id(), "parked").await;
    let path = format!("/admin/sagas/{}/steps/write/resolve", second.id());
    let body = json!({"outcome": "succeeded", "reason": "asked jane@example.org"});
    for _ in 0..2 {
        let request = server.request(Method::POST, &path).header("Idempotency-Key", "r").header("X-Actor", "ann");
        let reply = server.send(request.json(&body)).await;
        assert_eq!((reply.status, &reply.body["status"]), (200, &json!("compensated")), "{}", reply.text);
    }
    assert_sealed(&server, second.id()).await;
}

#[actix_web::test]
async fn a_start_sealed_under_a_key_that_was_destroyed_meanwhile_is_sealed_anew() {
    let (server, other) = TestServer::pair().await;
    prepare(&server).await;
    prepare(&other).await;
    for key in [None, Some("k-2")] {
        server.post("/sagas/welcome", &input()).await;
        // Elsewhere, so that this replica still knows the key.
        assert_eq!(erase(&other, "c-7").await.status, 200);
        let request = server.request(Method::POST, "/sagas/welcome").json(&input());
        let request = key.into_iter().fold(request, |request, key| request.header("Idempotency-Key", key));
        let saga = server.send(request).await;
        assert_eq!((saga.status, &saga.body["status"]), (201, &json!("completed")), "{}", saga.text);
        assert_eq!(saga.body["input"], input());
        assert_eq!(server.get("/admin/subjects/c-7").await.body["sagas"], 1);
        assert_eq!(erase(&server, "c-7").await.status, 200);
    }
}

#[actix_web::test]
async fn personal_data_is_not_choreographed() {
    let server = server().await;
    let refused = server.post("/sagas/welcome?mode=choreographed", &input()).await;
    assert!(refused.problem(422, "not_choreographable").contains("personal"), "{}", refused.text);
}

#[actix_web::test]
async fn a_streams_state_is_opened_as_a_saga_is_and_its_events_are_not() {
    let server = TestServer::logged().await;
    prepare(&server).await;
    let saga = server.post("/sagas/welcome", &input()).await;
    let state = format!("/streams/{}/state", saga.id());
    for path in ["/events?limit=250".to_owned(), format!("/streams/{}/events?limit=250", saga.id())] {
        let text = server.get(&path).await.text.to_lowercase();
        assert!(text.contains("~skald.sealed.1."), "{text}");
        assert!(SECRETS.iter().all(|secret| !text.contains(&secret.to_lowercase())), "{path}: {text}");
    }
    assert_eq!(server.get(&state).await.body["state"], server.get(&format!("/sagas/{}", saga.id())).await.body);
    let first = server.get(&format!("{state}?version=1")).await;
    assert_eq!((&first.body["version"], &first.body["state"]["input"]), (&json!(1), &input()), "{}", first.text);
    assert_eq!(erase(&server, "c-7").await.status, 200);
    for query in ["", "?version=1"] {
        let after = server.get(&format!("{state}{query}")).await;
        assert_eq!(after.body["state"]["input"]["email"], "[erased]", "{}", after.text);
    }
}

#[actix_web::test]
async fn what_a_stream_fills_in_is_sealed_as_what_was_given() {
    let server = TestServer::logged().await;
    prepare(&server).await;
    let event = json!({"event_id": "a", "type": "Known", "data": {"email": "jane@example.org", "contacts": []}});
    let body = json!({"expected_version": 0, "events": [event]});
    assert_eq!(server.post("/streams/profile-7/events", &body).await.status, 201);
    let given = json!({"customer_id": "c-7", "contacts": [{"name": "Jane Doe"}]});
    let saga = server.post("/sagas/welcome?from=profile-7", &given).await;
    assert_eq!((saga.status, &saga.body["input"]["email"]), (201, &json!("jane@example.org")), "{}", saga.text);
    let stored = server.get(&format!("/sagas/{}/events?limit=250", saga.id())).await.text;
    assert!(SECRETS.iter().all(|secret| !stored.contains(secret)), "{stored}");
}
