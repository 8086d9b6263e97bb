//! Through a replica that owns nothing, and past it: what is forwarded, what is refused, what is harmless to repeat.

mod appends;
mod reports;

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use skald_core::{
    classify::{Answer, Body, CallResult},
    decide::{OperatorAction, OperatorCommand},
    event::Mode,
    ids::SagaId,
    shard::{batch::CommitError, writer::StartRequest},
    time::{Millis, Timestamp},
};

use super::super::testing::{Reply, TestServer, WallClock, answered};
use crate::{
    clock::Clock as _,
    forward::{
        message::{InputMessage, STARTS, StartMessage, inputs_of},
        seal::{HEADER, Seals, Target},
    },
    storage::{Owner, Store as _, memory::Applied},
};

fn seal(secret: &[u8], path: &str, at: Timestamp, body: &[u8]) -> String {
    Seals::new(secret).seal(Target { method: "POST", path }, "another-replica", at, body)
}

/// As another replica sends it.
async fn tell(server: &TestServer, path: &str, body: Vec<u8>) -> Reply {
    let seal = seal(&[7; 32], path, WallClock.now(), &body);
    server.send(server.request(Method::POST, path).header(HEADER, seal).body(body)).await
}

fn start_message(server: &TestServer, key: &str) -> Vec<u8> {
    let request = StartRequest {
        definition: server.app.definitions().get("note", None).unwrap(),
        mode: Mode::Orchestrated,
        input: serde_json::json!({}).into(),
        key: Some((key.to_owned(), [1; 32])),
        correlation_id: "corr".to_owned(),
        traceparent: None,
        subject: None,
        entropy: rand::random(),
    };
    serde_json::to_vec(&StartMessage::of(&request, 0).unwrap()).unwrap()
}

fn abandon(request_id: &str) -> Vec<u8> {
    let command = OperatorCommand {
        actor: "jane".to_owned(),
        reason: "a test".to_owned(),
        request_id: Some(request_id.to_owned()),
        correlation_id: None,
        expected_revision: None,
        action: OperatorAction::Abandon,
    };
    serde_json::to_vec(&InputMessage::Operator(command)).unwrap()
}

/// Has sagas of `note` park, with `write` to be undone.
fn let_park(owner: &TestServer) {
    owner.participants.answer("publish:action", answered(422, json!({"code": "no", "reason": "no"})));
    owner.participants.answer("write:compensation", answered(410, json!({"code": "gone"})));
}

async fn events_of_kind(server: &TestServer, id: &str, kind: &str) -> Vec<Value> {
    let events = server.get(&format!("/sagas/{id}/events")).await;
    let events = events.body["items"].as_array().unwrap().clone();
    events.into_iter().filter(|event| event["kind"] == kind).collect()
}

async fn forwarded(server: &TestServer, kind: &str) -> u64 {
    let metrics = server.get("/metrics").await.text;
    let of_kind = format!("forwarded_requests_total{{kind=\"{kind}\"");
    let lines = metrics.lines().filter(|line| line.starts_with(&of_kind));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[actix_web::test]
async fn only_a_replica_of_the_same_database_is_heard() {
    let server = TestServer::start().await;
    let now = WallClock.now();
    let body = start_message(&server, "k");
    let long_ago = Timestamp::from_micros(now.as_micros() - 31_000_000);
    for header in [
        None,
        Some("guessed".to_owned()),
        Some(seal(b"another database's", STARTS, now, &body)),
        Some(seal(&[7; 32], STARTS, long_ago, &body)),
        Some(seal(&[7; 32], "/internal/sagas/x/inputs", now, &body)),
        Some(seal(&[7; 32], STARTS, now, b"another body")),
    ] {
        let request = server.request(Method::POST, STARTS).body(body.clone());
        let request = header.iter().fold(request, |request, seal| request.header(HEADER, seal));
        server.send(request).await.problem(403, "not_a_replica");
    }
    assert_eq!(server.get("/sagas").await.body["items"], json!([]));
    server.get(STARTS).await.problem(405, "method_not_allowed");
    let unreadable = tell(&server, STARTS, b"{}".to_vec()).await;
    unreadable.problem(400, "invalid_body");
    let large = vec![b' '; 5 * 1024 * 1024];
    tell(&server, STARTS, large).await.problem(413, "body_too_large");
}

#[actix_web::test]
async fn what_was_forwarded_is_not_forwarded_again() {
    let (_owner, other) = TestServer::pair().await;
    let id: SagaId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
    assert_eq!(tell(&other, STARTS, start_message(&other, "k")).await.body, json!({"Err": "not_owner"}));
    assert_eq!(tell(&other, &inputs_of(id), abandon("r")).await.body, json!({"Err": "not_owner"}));
    assert_eq!((forwarded(&other, "start").await, forwarded(&other, "operator").await), (0, 0));
}

#[actix_web::test]
async fn a_message_that_comes_twice_has_one_effect() {
    let (owner, _other) = TestServer::pair().await;
    let_park(&owner);
    let first = tell(&owner, STARTS, start_message(&owner, "k")).await;
    assert!(first.body["Ok"]["id"].is_string(), "{}", first.text);
    assert_eq!(tell(&owner, STARTS, start_message(&owner, "k")).await.body, json!({"Err": "key_exists"}));
    let id = first.body["Ok"]["id"].as_str().unwrap().to_owned();
    owner.until(&id, "parked").await;
    let path = inputs_of(id.parse().unwrap());
    for _ in 0..2 {
        assert_eq!(tell(&owner, &path, abandon("r-1")).await.body["Ok"]["status"], "abandoned");
    }
    let other = tell(&owner, &path, abandon("r-2")).await;
    assert_eq!(other.body, json!({"Err": {"illegal": {"ended": "abandoned"}}}));
    assert_eq!(events_of_kind(&owner, &id, "OperatorActed").await.len(), 1);
}

#[actix_web::test]
async fn sagas_start_through_a_replica_that_owns_nothing_10() {
    let (owner, other) = TestServer::pair().await;
    let unkeyed = other.post("/sagas/note", &json!({"n": 1.0})).await;
    assert_eq!((unkeyed.status, &unkeyed.body["status"]), (201, &json!("completed")), "{}", unkeyed.text);
    assert_eq!(unkeyed.header("idempotent-replayed"), "");
    assert_eq!(unkeyed.body["input"].to_string(), r#"{"n":1.0}"#);
    let keyed = |server: &TestServer| {
        let request = server.request(Method::POST, "/sagas/note").header("X-Correlation-Id", "corr-7");
        request.header("Idempotency-Key", "k").json(&json!({}))
    };
    let first = other.send(keyed(&other)).await;
    assert_eq!((first.status, &first.body["correlation_id"]), (201, &json!("corr-7")), "{}", first.text);
    for server in [&owner, &other] {
        let again = server.send(keyed(server)).await;
        assert_eq!((again.id(), again.header("idempotent-replayed")), (first.id(), "true"));
    }
    let reused = other.request(Method::POST, "/sagas/note").header("Idempotency-Key", "k").json(&json!({"n": 2}));
    other.send(reused).await.problem(422, "idempotency_key_reused");
    assert_eq!(owner.get("/sagas").await.body["items"].as_array().unwrap().len(), 2);
    assert_eq!(forwarded(&other, "start").await, 2);
    assert!(other.participants.calls.lock().unwrap().is_empty(), "the owner drives them");
}

#[actix_web::test]
async fn operators_act_through_a_replica_that_owns_nothing() {
    let (owner, other) = TestServer::pair().await;
    let_park(&owner);
    for (command, body, status) in [
        ("abandon", json!({}), "abandoned"),
        ("steps/write/skip", json!({}), "abandoned"),
        ("steps/write/resolve", json!({"outcome": "succeeded"}), "compensated"),
        ("retry", json!({}), "parked"),
        ("steps/write/retry", json!({}), "parked"),
    ] {
        let id = owner.start_note().await;
        owner.until(&id, "parked").await;
        other.act(&format!("/admin/sagas/{id}/compensate"), json!({})).await.problem(409, "not_possible");
        other.act(&format!("/admin/sagas/{id}/steps/nope/skip"), json!({})).await.problem(404, "step_not_found");
        let reply = other.act(&format!("/admin/sagas/{id}/{command}"), body).await;
        assert_eq!(reply.status, 200, "{command}: {}", reply.text);
        owner.until(&id, status).await;
        let acted = events_of_kind(&owner, &id, "OperatorActed").await;
        assert_eq!((acted.len(), &acted[0]["actor"]), (1, &json!("tester")), "{command}");
        assert_eq!(acted[0]["data"]["correlation_id"].as_str(), Some(reply.header("x-correlation-id")));
    }
    other
        .act("/admin/sagas/01890a5d-ac96-774b-bcce-b302099a8057/retry", json!({}))
        .await
        .problem(404, "saga_not_found");
    let bulk = other.act("/admin/sagas/abandon", json!({"filter": {}, "dry_run": false})).await;
    assert_eq!((&bulk.body["matched"], &bulk.body["applied"]), (&json!(2), &json!(2)), "{}", bulk.text);
}

#[actix_web::test]
async fn an_operators_key_makes_a_repetition_harmless_through_any_replica() {
    let (owner, other) = TestServer::pair().await;
    let_park(&owner);
    let id = owner.start_note().await;
    let parked = owner.until(&id, "parked").await;
    let keyed = |server: &TestServer, command: &str| {
        let request = server.request(Method::POST, &format!("/admin/sagas/{id}/{command}"));
        let request = request.header("Idempotency-Key", "ticket-1").header("If-Match", parked.header("etag"));
        request.json(&json!({"actor": "jane", "reason": "a test"}))
    };
    for server in [&other, &owner, &other] {
        let reply = server.send(keyed(server, "abandon")).await;
        assert_eq!((reply.status, &reply.body["status"]), (200, &json!("abandoned")), "{}", reply.text);
    }
    let reused = other.send(keyed(&other, "retry")).await;
    reused.problem(422, "idempotency_key_reused");
    assert_eq!(reused.body["errors"][0]["place"], "Idempotency-Key");
    let acted = events_of_kind(&owner, &id, "OperatorActed").await;
    assert_eq!((acted.len(), &acted[0]["data"]["request_id"]), (1, &json!("ticket-1")));
}

#[actix_web::test]
async fn a_command_whose_commit_is_in_doubt_is_carried_out_once() {
    for applied in [Applied::Yes, Applied::No] {
        let (owner, other) = TestServer::pair().await;
        let_park(&owner);
        let id = owner.start_note().await;
        owner.until(&id, "parked").await;
        owner.store.fail_commit(CommitError::InDoubt("the connection broke".to_owned()), applied);
        let reply = other.act(&format!("/admin/sagas/{id}/abandon"), json!({})).await;
        assert_eq!((reply.status, &reply.body["status"]), (200, &json!("abandoned")), "{applied:?}: {}", reply.text);
        assert_eq!(events_of_kind(&owner, &id, "OperatorActed").await.len(), 1, "{applied:?}");
    }
}

#[actix_web::test]
async fn a_participant_calls_back_through_a_replica_that_owns_nothing() {
    let (owner, other) = TestServer::pair().await;
    let accepted = Answer { status: 202, retry_after: None, location: None, body: Body::Empty };
    owner.participants.answer("publish:action", CallResult::Answered(accepted));
    let id = owner.start_note().await;
    while owner.get(&format!("/sagas/{id}")).await.body["steps"][1]["attempts"][0].is_null() {}
    let token = String::from_utf8(other.tokens.issue(&format!("{id}:publish:action")).to_vec()).unwrap();
    for _ in 0..2 {
        let request = other.request(Method::POST, &format!("/sagas/{id}/steps/publish/complete"));
        let request = request.header("Saga-Callback-Token", &token);
        let done = json!({"operation": "action", "outcome": "succeeded", "output": {"n": 7}});
        assert_eq!(other.send(request.json(&done)).await.status, 200);
    }
    let saga = owner.until(&id, "completed").await;
    assert_eq!(saga.body["steps"][1]["output"], json!({"n": 7}));
    assert_eq!(forwarded(&other, "callback").await, 2);
}

#[actix_web::test]
async fn a_start_waits_for_its_end_through_a_replica_that_owns_nothing() {
    let (owner, other) = TestServer::pair().await;
    owner.participants.hold("publish:action");
    let start = |wait: &str| other.request(Method::POST, "/sagas/note").header("Prefer", wait).json(&json!({}));
    assert_eq!(other.send(start("wait=1")).await.status, 202);
    let releasing = async {
        while owner.participants.calls.lock().unwrap().len() < 4 {
            tokio::task::yield_now().await;
        }
        owner.participants.release("publish:action");
    };
    let (reply, ()) = tokio::join!(other.send(start("wait=60")), releasing);
    assert_eq!((reply.status, &reply.body["status"]), (201, &json!("completed")), "{}", reply.text);
}

#[actix_web::test]
async fn a_successor_carries_out_what_its_predecessor_refused() {
    let (owner, other) = TestServer::pair().await;
    let_park(&owner);
    let id = owner.start_note().await;
    owner.until(&id, "parked").await;
    owner.stop().await;
    let path = format!("/admin/sagas/{id}/abandon");
    let empty = json!({});
    let (acted, started) = tokio::join!(other.act(&path, json!({})), other.post("/sagas/note", &empty));
    assert_eq!(acted.status, 200, "{}", acted.text);
    assert_eq!(started.status, 201, "{}", started.text);
}

#[actix_web::test]
async fn without_an_owner_nothing_is_done_and_the_client_is_told_when_to_come_again() {
    let (owner, other) = TestServer::pair().await;
    let_park(&owner);
    let id = owner.start_note().await;
    owner.until(&id, "parked").await;
    let store = Arc::clone(&owner.store);
    tokio::join!(owner.stop(), other.stop());
    // Where nobody listens, with a lease that does not end soon.
    let stranger = Owner { id: "stranger".to_owned(), url: Some("http://127.0.0.1:1".to_owned()) };
    store.take_shards(&stranger, None, Millis(60_000)).await.unwrap();
    let third = TestServer::on(store, 10, 10).await;
    let path = format!("/admin/sagas/{id}/abandon");
    let empty = json!({});
    let (acted, started) = tokio::join!(third.act(&path, json!({})), third.post("/sagas/note", &empty));
    for reply in [&acted, &started] {
        reply.problem(503, "no_owner");
        assert!(!reply.header("retry-after").is_empty());
    }
    assert_eq!(third.get(&format!("/sagas/{id}")).await.body["status"], "parked");
    assert_eq!(third.get("/sagas").await.body["items"].as_array().unwrap().len(), 1);
}
