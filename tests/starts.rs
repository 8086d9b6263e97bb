//! Starting sagas: keys, waiting, clients that leave.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Backend, Client, Deployment, Postgres, SOON, Sqlite, checker::Start, database::Database, eventually, met,
    order,
};

async fn start(client: &Client, key: &str, input: &Value, prefer: &str) -> Answer {
    let request = client.request(Method::POST, "/sagas/checkout").json(input);
    let request = request.header("Idempotency-Key", key).header("Prefer", prefer);
    client.send(request).await.expect("Skald answers")
}

#[rstest]
#[tokio::test]
async fn a_repeated_start_is_answered_with_the_saga_as_it_is_now_10(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    let client = &world.skald.client;
    let first = start(client, "k-1", &order("c-1"), "respond-async").await;
    let id = first.clone().expect(202)["id"].as_str().expect("a saga has an id").to_owned();
    assert!(first.header("location").ends_with(&format!("/sagas/{id}")));
    assert_eq!(first.header("idempotent-replayed"), "");
    world.skald.ended(&id).await;

    let again = start(client, "k-1", &order("c-1"), "wait=5").await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    let again = again.expect(201);
    assert_eq!((&again["id"], &again["status"]), (&json!(id), &json!("completed")));
    assert_eq!(start(client, "k-1", &order("c-2"), "wait=5").await.problem(422), "idempotency_key_reused");

    let other = start(client, "k-2", &order("c-1"), "wait=10").await.expect(201);
    assert_ne!(other["id"], json!(id));
    let starts = [("k-1", &json!(id)), ("k-2", &other["id"])]
        .map(|(key, saga)| Start { key: Some(key.to_owned()), saga: saga.as_str().expect("an id is text").to_owned() });
    world.checker().await.acknowledged(starts).check();
}

#[rstest]
#[tokio::test]
async fn fifty_starts_at_once_with_one_key_make_one_saga_10(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    let input = order("c-1");
    let answers = join_all((0..50).map(|_| start(&world.skald.client, "same", &input, "respond-async"))).await;
    let ids: BTreeSet<String> = answers
        .iter()
        .map(|answer| {
            assert!(matches!(answer.status, 201 | 202), "{}: {}", answer.status, answer.text);
            answer.body["id"].to_string()
        })
        .collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let first = answers.iter().filter(|answer| answer.header("idempotent-replayed") != "true").count();
    assert_eq!(first, 1, "one start made the saga, the others are replays");
    world.skald.all_settled(SOON).await;
    assert_eq!(world.skald.sagas().await.len(), 1);
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_start_waits_as_long_as_the_client_prefers(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    let ended = world.skald.client.post("/sagas/checkout", &order("c-1")).await;
    assert_eq!(ended.status, 201, "without a preference the answer waits for the end: {}", ended.text);
    assert_eq!(ended.body["status"], "completed");
    let generic = json!({"definition": "checkout", "version": 1, "input": order("c-1")});
    assert_eq!(world.skald.client.post("/sagas", &generic).await.expect(201)["status"], "completed");

    world.shop.sales.faults(json!({"payments": {"delay": {"rate": 1.0, "ms": 1500}}})).await;
    let running = start(&world.skald.client, "k", &order("c-1"), "wait=0").await;
    assert_eq!(running.clone().expect(202)["status"], "running");
    let ended = start(&world.skald.client, "k", &order("c-1"), "wait=20").await.expect(201);
    assert_eq!((&ended["id"], &ended["status"]), (&running.body["id"], &json!("completed")), "a repeat waits too");
    world.check().await;
    let mode = world.skald.client.post("/sagas/checkout?mode=choreographed", &order("c-1")).await.expect(202);
    assert_eq!(
        (&mode["status"], &mode["state"]),
        (&json!("running"), &json!("STOCK_VERIFYING")),
        "nobody waits for it"
    );
}

/// Clients that leave in the middle of a request must not cost a database connection each.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_that_leave_leak_no_connection(#[values(Sqlite, Postgres)] backend: Backend) {
    const CLIENTS: usize = 1_000;
    const CONNECTIONS_MAX: i64 = 12;
    let world = Deployment::start(backend).await;
    let known = world.skald.run("checkout", &order("c-1")).await["id"].as_str().expect("an id is text").to_owned();
    let client = &world.skald.client;
    stream::iter(0..CLIENTS)
        .for_each_concurrent(50, async |number| {
            let request = match number % 4 {
                0 => client.request(Method::POST, "/sagas/checkout").json(&order("c-1")),
                1 => client.request(Method::GET, &format!("/sagas/{known}")),
                2 => client.request(Method::GET, "/sagas?limit=250"),
                _ => client.request(Method::GET, &format!("/sagas/{known}/events")),
            };
            // From before the request is sent to after its answer, the client leaves at every point.
            let patience = Duration::from_micros(200 * (number as u64 % 40));
            let _ = tokio::time::timeout(patience, client.send(request)).await;
        })
        .await;
    eventually("Skald is ready and answers", SOON, async || {
        let answer = client.get("/readyz").await;
        met(answer.status == 200, || answer.text)
    })
    .await;
    world.skald.all_settled(Duration::from_secs(60)).await;
    if let Database::Postgres(database) = &world.database {
        let connections = database.connections().await;
        assert!(connections <= CONNECTIONS_MAX, "{connections} connections");
    }
    let saga = world.skald.run("checkout", &order("c-2")).await;
    assert_eq!(saga["status"], "completed");
    world.check().await;
}
