//! Webhooks over HTTP, with a real log and a real receiver.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{App as ActixApp, HttpRequest, HttpResponse, HttpServer, http::StatusCode, web};
use reqwest::Method;
use serde_json::{Value, json};

use super::super::testing::{Reply, TestServer};
use crate::{
    signature::{self, Signer},
    storage::SqliteStore,
    webhooks::{self, registry::Wanted},
};

type Server = TestServer<SqliteStore>;

/// What the receiver got, and what it is to answer; 204 when nothing is left to answer.
#[derive(Clone, Default)]
struct Receiver {
    got: Arc<Mutex<Vec<(http::HeaderMap, bytes::Bytes)>>>,
    answers: Arc<Mutex<VecDeque<u16>>>,
    url: String,
}

impl Receiver {
    fn start(answers: &[u16]) -> Self {
        let mut receiver = Self { answers: Arc::new(Mutex::new(answers.iter().copied().collect())), ..Self::default() };
        let shared = receiver.clone();
        let handle = move |req: HttpRequest, body: web::Bytes| {
            let headers: http::HeaderMap = req
                .headers()
                .iter()
                .map(|(name, value)| {
                    let name = http::HeaderName::from_bytes(name.as_str().as_bytes()).unwrap();
                    (name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap())
                })
                .collect();
            shared.got.lock().unwrap().push((headers, body));
            let status = shared.answers.lock().unwrap().pop_front().unwrap_or(204);
            let response = HttpResponse::build(StatusCode::from_u16(status).unwrap()).finish();
            std::future::ready(response)
        };
        let server = HttpServer::new(move || ActixApp::new().default_service(web::to(handle.clone())))
            .workers(1)
            .disable_signals()
            .bind("127.0.0.1:0")
            .unwrap();
        receiver.url = format!("http://{}/hook?key=7", server.addrs()[0]);
        tokio::spawn(server.run());
        receiver
    }

    async fn until_got(&self, count: usize) -> Vec<Value> {
        until(&format!("{count} messages"), async || self.got.lock().unwrap().len() >= count).await;
        let got = self.got.lock().unwrap();
        got.iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect()
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

async fn telling() -> Server {
    let server = TestServer::logged().await;
    webhooks::follow(Arc::clone(&server.app), Duration::from_secs(5)).unwrap();
    server
}

async fn create(server: &Server, body: &Value) -> Reply {
    let reply = server.post("/webhooks", body).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply
}

async fn completed(server: &Server) -> String {
    let reply = server.post("/sagas/note", &json!({})).await;
    assert_eq!((reply.status, &reply.body["status"]), (201, &json!("completed")), "{}", reply.text);
    reply.id().to_owned()
}

#[actix_web::test]
async fn who_asked_is_told_when_a_saga_ends_and_can_tell_by_whom() {
    let (server, receiver) = (telling().await, Receiver::start(&[]));
    completed(&server).await;
    let hook = create(&server, &json!({"url": receiver.url})).await;
    let id = completed(&server).await;
    let told = receiver.until_got(1).await;
    assert_eq!(told.len(), 1, "what ended before is no news: {told:?}");
    assert_eq!((&told[0]["type"], &told[0]["data"]["saga_id"]), (&json!("saga.completed"), &json!(id)));
    assert_eq!(told[0]["data"]["status"], "completed");

    let (headers, body) = receiver.got.lock().unwrap()[0].clone();
    let secret = hook.body["secret"].as_str().unwrap();
    let sent_at: i64 = headers[&signature::TIMESTAMP].to_str().unwrap().parse().unwrap();
    let (mut expected, message) = (http::HeaderMap::new(), headers[&signature::ID].to_str().unwrap());
    let sent_at = skald_core::time::Timestamp::from_micros(sent_at * 1_000_000);
    Signer::new([secret]).unwrap().sign(&mut expected, message, sent_at, &body);
    assert_eq!(headers[&signature::SIGNATURE], expected[&signature::SIGNATURE]);

    let path = hook.header("location");
    let shown = server.get(path).await;
    assert_eq!((&shown.body["url"], &shown.body["secret"]), (&json!(receiver.url), &Value::Null));
    until("the attempt is noted", async || {
        let attempts = server.get(&format!("{path}/attempts")).await;
        attempts.body["items"][0]["http_status"] == 204 && attempts.body["items"][0]["message"] == message
    })
    .await;
}

#[actix_web::test]
async fn what_was_not_taken_is_sent_again_under_the_same_id() {
    let (server, receiver) = (telling().await, Receiver::start(&[500]));
    let hook = create(&server, &json!({"url": receiver.url, "events": ["completed"]})).await;
    completed(&server).await;
    receiver.until_got(2).await;
    let ids: Vec<_> = receiver.got.lock().unwrap().iter().map(|(headers, _)| headers[&signature::ID].clone()).collect();
    assert_eq!(ids[0], ids[1]);
    let attempts = format!("{}/attempts", hook.header("location"));
    until("both are noted", async || server.get(&attempts).await.body["items"].as_array().unwrap().len() == 2).await;
    let first = server.get(&format!("{attempts}?limit=1")).await.body;
    assert_eq!((&first["items"][0]["number"], &first["items"][0]["error"]), (&json!(2), &Value::Null));
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = server.get(&format!("{attempts}?limit=1&cursor={cursor}")).await.body;
    assert_eq!((&second["items"][0]["error"], &second["next_cursor"]), (&json!("answered 500"), &Value::Null));
}

#[actix_web::test]
async fn who_is_gone_is_told_no_more_until_enabled() {
    let (server, receiver) = (telling().await, Receiver::start(&[410]));
    let hook = create(&server, &json!({"url": receiver.url})).await;
    let path = hook.header("location");
    let first = completed(&server).await;
    until("it is disabled", async || !server.get(path).await.body["disabled"].is_null()).await;
    let second = completed(&server).await;
    let enabled = server.post(&format!("{path}/enable"), &json!({})).await;
    assert_eq!((enabled.status, &enabled.body["disabled"]), (200, &Value::Null), "{}", enabled.text);
    let told = receiver.until_got(2).await;
    assert_eq!(told[1]["data"]["saga_id"], json!(second), "{told:?} {first}");
}

#[actix_web::test]
async fn for_a_day_a_message_is_signed_with_the_secret_before_too() {
    let (server, receiver) = (telling().await, Receiver::start(&[]));
    let hook = create(&server, &json!({"url": receiver.url, "definitions": ["note"]})).await;
    let rotated = server.post(&format!("{}/rotate", hook.header("location")), &json!({})).await;
    assert_eq!(rotated.status, 200, "{}", rotated.text);
    assert_ne!(rotated.body["secret"], hook.body["secret"]);
    completed(&server).await;
    receiver.until_got(1).await;
    let (headers, _) = receiver.got.lock().unwrap()[0].clone();
    assert_eq!(headers[&signature::SIGNATURE].to_str().unwrap().split(' ').count(), 2);
}

/// One that was made while the configuration allowed more.
#[actix_web::test]
async fn nothing_is_sent_to_a_url_that_is_allowed_no_more() {
    let (server, receiver) = (telling().await, Receiver::start(&[]));
    let url = receiver.url.replace("http://", "http://user:secret@");
    let wanted = Wanted { url, events: Vec::new(), definitions: Vec::new() };
    let hook = server.app.webhook_registry().add(wanted, server.app.clock().now()).await.unwrap().unwrap();
    completed(&server).await;
    let attempts = format!("/webhooks/{}/attempts", hook.id);
    until("it failed", async || {
        server.get(&attempts).await.body["items"].as_array().is_some_and(|all| !all.is_empty())
    })
    .await;
    let error = server.get(&attempts).await.body["items"][0]["error"].to_string();
    assert!(error.contains("must not hold a user or password") && !error.contains("secret"), "{error}");
    assert_eq!(receiver.got.lock().unwrap().len(), 0);
}

#[actix_web::test]
async fn webhooks_are_listed_and_deleted_and_bad_ones_refused() {
    let server = TestServer::logged().await;
    for body in [
        json!({}),
        json!({"url": "ftp://example.com"}),
        json!({"url": "https://u:p@example.com"}),
        json!({"url": format!("https://example.com/{}", "x".repeat(3000))}),
        json!({"url": "https://example.com", "events": ["started"]}),
        json!({"url": "https://example.com", "definitions": ["nobody"]}),
        json!({"url": "https://example.com", "secret": "mine"}),
    ] {
        server.post("/webhooks", &body).await.problem(400, "invalid_body");
    }
    let hook = create(&server, &json!({"url": "https://example.com", "events": ["parked"]})).await;
    let path = hook.header("location");
    let listed = server.get("/webhooks").await.body;
    assert_eq!((&listed["items"][0]["id"], &listed["items"][0]["events"]), (&hook.body["id"], &json!(["parked"])));
    let group = format!("/groups/webhook-{}", hook.body["id"].as_str().unwrap());
    assert_eq!(server.get(&group).await.status, 200);
    server.send(server.request(Method::DELETE, &group)).await.problem(400, "invalid_parameter");
    server.send(server.request(Method::PUT, &group).json(&json!({}))).await.problem(400, "invalid_parameter");
    assert_eq!(server.send(server.request(Method::DELETE, path)).await.status, 204);
    server.send(server.request(Method::DELETE, path)).await.problem(404, "webhook_not_found");
    server.get(&group).await.problem(404, "group_not_found");
    for (method, path) in
        [(Method::GET, ""), (Method::GET, "/attempts"), (Method::POST, "/enable"), (Method::POST, "/rotate")]
    {
        let request = server.request(method, &format!("/webhooks/none{path}")).json(&json!({}));
        server.send(request).await.problem(404, "webhook_not_found");
    }
}
