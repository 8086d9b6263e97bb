//! What operators look at: readiness, metrics, the specification, correlation ids.

use std::fs;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Deployment, Postgres, Reply, Sqlite, Stub,
    deployment::Alone,
    order,
    sample::{definition, step},
    workspace,
};

const METRICS: [&str; 14] = [
    "saga_started_total",
    "saga_completed_total",
    "saga_failed_total",
    "saga_execution_duration_seconds",
    "saga_step_executions_total",
    "saga_compensations_total",
    "external_service_call_duration_seconds",
    "active_sagas",
    "http_request_duration_seconds",
    "events_published_total",
    "event_store_operations_total",
    "commit_batch_transitions",
    "commit_duration_seconds",
    "sagas_resident",
];

#[rstest]
#[tokio::test]
async fn metrics_count_sagas_and_never_name_one(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    let mut ids = Vec::new();
    let mut declined = order("c-1");
    declined["payment"]["token"] = json!("tok_declined");
    for input in [order("c-1"), order("c-2"), declined] {
        ids.push(world.skald.run("checkout", &input).await["id"].as_str().expect("an id is text").to_owned());
    }
    let text = world.skald.client.get("/metrics").await.text;
    for name in METRICS {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} is not in\n{text}");
    }
    for id in &ids {
        assert!(!text.contains(id), "the id of a saga is a label");
    }
    let count = async |name: &str, labels: &str| world.skald.metric(name, labels).await;
    assert_eq!(count("saga_started_total", "mode=\"orchestrated\"").await, 3.0);
    assert_eq!(count("saga_completed_total", "definition=\"checkout\"").await, 2.0);
    assert_eq!(count("saga_failed_total", "step=\"process_payment\"").await, 1.0);
    assert_eq!(count("active_sagas", "").await, 0.0);
    let sagas = world.skald.sagas().await;
    let events: u64 = sagas.iter().filter_map(|saga| saga["revision"].as_u64()).sum();
    assert_eq!(count("events_published_total", "mode=\"orchestrated\"").await, events as f64);
    let appended = "operation=\"append\",result=\"done\"";
    assert!(count("event_store_operations_total", appended).await >= 3.0, "each saga took some commits");
    assert_eq!(count("external_service_call_duration_seconds_count", "service=\"sales\"").await, 3.0);
}

#[rstest]
#[tokio::test]
async fn the_specification_that_is_served_is_the_committed_one(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start_as_shipped(backend).await;
    let served = world.skald.client.get("/openapi.json").await.expect(200);
    let committed = fs::read_to_string(workspace().join("openapi/skald.json")).expect("it is committed");
    let committed: Value = serde_json::from_str(&committed).expect("it is JSON");
    assert_eq!(served, committed, "run `cargo xtask openapi`");
    assert!(served["paths"]["/sagas/checkout"]["post"].is_object(), "each definition has a path of its own");
    let docs = world.skald.client.send(world.skald.client.request(Method::GET, "/docs")).await.expect("Skald answers");
    assert_eq!(docs.status, 200);
    assert!(!docs.text.contains("https://"), "the documentation needs nothing from elsewhere: {}", docs.text);
}

#[rstest]
#[tokio::test]
async fn readiness_tells_of_database_shards_and_participants(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    assert_eq!(world.skald.client.get("/livez").await.status, 200);
    let ready = world.skald.client.get("/readyz?verbose").await.expect(200).to_string();
    for word in ["database", "shards", "catalog", "sales", "orders"] {
        assert!(ready.contains(word), "`{word}` is not in {ready}");
    }
}

#[rstest]
#[tokio::test]
async fn a_correlation_id_goes_all_the_way(#[values(Sqlite, Postgres)] backend: Backend) {
    let stub = Stub::start(|_| Reply::ok());
    let skald = Alone::start(backend, &[("stub", &stub.url)]).await;
    skald.skald.register(&definition("job", [step("one")])).await;
    let client = &skald.skald.client;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let start = client.request(Method::POST, "/sagas/job").json(&json!({}));
    let answer = client.send(start.header("X-Correlation-Id", "corr-1").header("traceparent", trace)).await;
    let answer = answer.expect("Skald answers");
    assert_eq!(answer.header("x-correlation-id"), "corr-1");
    assert_eq!(answer.expect(201)["correlation_id"], "corr-1");
    let call = &stub.calls()[0];
    assert_eq!(call.header("x-correlation-id"), "corr-1");
    assert_eq!(call.header("traceparent").split('-').nth(1), trace.split('-').nth(1), "the trace goes on");
    assert_eq!(
        (call.header("saga-step"), call.header("saga-operation"), call.header("saga-attempt")),
        ("one", "action", "1")
    );
    assert!(!call.header("saga-deadline").is_empty());

    let made = client.post("/sagas/job", &json!({})).await;
    assert!(!made.header("x-correlation-id").is_empty(), "one is made when none is given");
    assert_eq!(client.all("/sagas?correlation_id=corr-1").await.len(), 1);
    assert_eq!(client.all("/sagas?status=completed,parked&definition=job").await.len(), 2);
    let page = client.get("/sagas?limit=1").await.expect(200);
    let next = page["next_cursor"].as_str().expect("there is another page").to_owned();
    let other = client.get(&format!("/sagas?limit=1&cursor={next}")).await.expect(200);
    assert_ne!(page["items"][0]["id"], other["items"][0]["id"]);
}
