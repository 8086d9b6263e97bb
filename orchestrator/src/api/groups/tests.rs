//! Consumer groups over HTTP, with a real log.

use serde_json::{Value, json};

use super::super::testing::{Reply, TestServer};
use crate::storage::SqliteStore;

type Server = TestServer<SqliteStore>;

async fn append(server: &Server, stream: &str, ids: &[&str]) {
    let events: Vec<Value> =
        ids.iter().map(|id| json!({"event_id": id, "type": "Noted", "data": {"id": id}})).collect();
    let body = json!({"expected_version": "any", "events": events});
    let reply = server.post(&format!("/streams/{stream}/events"), &body).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
}

async fn put(server: &Server, body: Value) -> Reply {
    server.send(server.request(reqwest::Method::PUT, "/groups/notes").json(&body)).await
}

async fn poll(server: &Server, body: Value) -> Vec<Value> {
    let mut whole = json!({"consumer": "worker-1"});
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let reply = server.post("/groups/notes/poll", &whole).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.body["refused"], json!([]), "{}", reply.text);
    reply.body["deliveries"].as_array().unwrap().clone()
}

fn ids(deliveries: &[Value]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery["event"]["id"].as_str().unwrap()).collect()
}

fn settled(delivery: &Value, outcome: &str) -> Value {
    let mut settlement = json!({"outcome": outcome, "error": "it broke"});
    for field in ["shard", "position", "token"] {
        settlement[field] = delivery[field].clone();
    }
    settlement
}

#[actix_web::test]
async fn a_group_handles_each_event_and_a_failure_holds_back_its_stream_only() {
    let server = TestServer::logged().await;
    let retry = json!({"initial": "1ms", "max": "1ms", "attempts": 2});
    let made = put(&server, json!({"filter": {"categories": ["note"]}, "retry": retry})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(put(&server, json!({"filter": {"categories": ["note"]}, "retry": retry})).await.status, 200);
    append(&server, "note-a", &["a1", "a2"]).await;
    append(&server, "other-x", &["x1"]).await;
    append(&server, "note-b", &["b1"]).await;

    let first = poll(&server, json!({"wait": "10s"})).await;
    assert_eq!((ids(&first), &first[0]["try"]), (vec!["a1", "a2", "b1"], &json!(1)));
    let settle = json!([settled(&first[0], "failed"), settled(&first[2], "done")]);
    let second = poll(&server, json!({"wait": "10s", "settle": settle})).await;
    assert_eq!((ids(&second), &second[0]["try"]), (vec!["a1"], &json!(2)));
    let settle = json!([settled(&second[0], "failed")]);
    assert!(poll(&server, json!({"settle": settle})).await.is_empty());

    let group = server.get("/groups/notes").await.body;
    assert_eq!((&group["lag"]["parked"], &group["lag"]["waiting"]), (&json!(1), &json!(1)), "{group}");
    let parked = server.get("/groups/notes/parked").await.body;
    let (item, place) = (&parked["items"][0], "/groups/notes/parked/0/1");
    assert_eq!((&item["event"]["id"], &item["error"], &item["try"]), (&json!("a1"), &json!("it broke"), &json!(2)));
    assert_eq!(server.post(&format!("{place}/replay"), &json!({})).await.status, 204);
    server.post(&format!("{place}/replay"), &json!({})).await.problem(404, "parked_event_not_found");

    let third = poll(&server, json!({"wait": "10s"})).await;
    let settle = json!([settled(&third[0], "poison")]);
    assert_eq!(ids(&third), ["a1"]);
    poll(&server, json!({"settle": settle})).await;
    let dropped = server.send(server.request(reqwest::Method::DELETE, place)).await;
    assert_eq!(dropped.status, 204, "{}", dropped.text);
    assert_eq!(ids(&poll(&server, json!({"wait": "10s"})).await), ["a2"]);
}

#[actix_web::test]
async fn what_was_handled_is_handled_again_by_a_replay() {
    let server = TestServer::logged().await;
    append(&server, "note-a", &["a1", "a2"]).await;
    put(&server, json!({"start": "end"})).await;
    append(&server, "note-a", &["a3"]).await;
    let first = poll(&server, json!({"wait": "10s"})).await;
    assert_eq!(ids(&first), ["a3"]);
    assert!(poll(&server, json!({"settle": [settled(&first[0], "done")]})).await.is_empty());
    let replayed = server.post("/events/replay", &json!({"group": "notes"})).await;
    assert_eq!((&replayed.body["events"], &replayed.body["ended"]), (&json!(3), &json!(true)), "{}", replayed.text);
    let again = poll(&server, json!({"wait": "10s"})).await;
    assert!(ids(&again).starts_with(&["a1"]), "{:?}", ids(&again));
    server.post("/events/replay", &json!({"group": "nobody"})).await.problem(404, "group_not_found");
    server.post("/events/replay", &json!({"group": "notes", "after": "x"})).await.problem(400, "invalid_body");
}

#[actix_web::test]
async fn a_settlement_under_a_past_lease_is_refused() {
    let server = TestServer::logged().await;
    put(&server, json!({})).await;
    append(&server, "note-a", &["a1"]).await;
    let first = poll(&server, json!({"wait": "10s"})).await;
    let mut stale = settled(&first[0], "done");
    stale["token"] = json!(first[0]["token"].as_i64().unwrap() + 1);
    let reply = server.post("/groups/notes/settle", &json!({"settle": [stale]})).await;
    assert_eq!(reply.body["refused"], json!([{"shard": 0, "position": 1}]), "{}", reply.text);
    let reply = server.post("/groups/notes/settle", &json!({"settle": [settled(&first[0], "done")]})).await;
    assert_eq!(reply.body["refused"], json!([]), "{}", reply.text);
}

#[actix_web::test]
async fn who_polls_and_waits_is_woken_by_an_append() {
    let server = TestServer::logged().await;
    put(&server, json!({})).await;
    let (polled, ()) = tokio::join!(poll(&server, json!({"wait": "30s"})), append(&server, "note-a", &["a1"]));
    assert_eq!(ids(&polled), ["a1"]);
}

#[actix_web::test]
async fn groups_are_made_listed_and_forgotten_and_bad_ones_refused() {
    let server = TestServer::logged().await;
    server.get("/groups/notes").await.problem(404, "group_not_found");
    server.post("/groups/notes/poll", &json!({"consumer": "w"})).await.problem(404, "group_not_found");
    put(&server, json!({"retry": {"initial": "0s"}})).await.problem(400, "invalid_body");
    put(&server, json!({"retry": {"attempts": 0}})).await.problem(400, "invalid_body");
    put(&server, json!({"filter": {"types": [""]}})).await.problem(400, "invalid_body");
    put(&server, json!({"filter": {"type": ["X"]}})).await.problem(400, "invalid_body");
    put(&server, json!({})).await;
    let listed = server.get("/groups").await.body;
    assert_eq!((&listed["items"][0]["name"], &listed["items"][0]["lag"]["ahead"]), (&json!("notes"), &json!(0)));
    for body in [
        json!({}),
        json!({"consumer": ""}),
        json!({"consumer": "w", "limit": 0}),
        json!({"consumer": "w", "lease": "1ms"}),
    ] {
        server.post("/groups/notes/poll", &body).await.problem(400, "invalid_body");
    }
    server.get("/groups/notes/stream").await.problem(400, "invalid_parameter");
    server.get("/groups/No").await.problem(400, "invalid_parameter");
    let gone = server.send(server.request(reqwest::Method::DELETE, "/groups/notes")).await;
    assert_eq!(gone.status, 204);
    server.send(server.request(reqwest::Method::DELETE, "/groups/notes")).await.problem(404, "group_not_found");
}
