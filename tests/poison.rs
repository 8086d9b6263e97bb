//! A saga that takes down every process that touches it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Postgres, Reply, SOON, Sqlite, Stub, deployment::Alone, eventually, met, skald::participant,
};

/// What the configuration says by default.
const TAKEOVERS_MAX: usize = 3;
const FOREVER: Duration = Duration::from_secs(3600);

fn definition(name: &str, path: &str) -> Value {
    json!({
        "apiVersion": "skald/v1",
        "name": name,
        "version": 1,
        "input": {"schema": {"type": "object"}},
        "defaults": {"timeout": "60s"},
        "steps": [{
            "id": "act",
            "call": {"service": "stub", "method": "POST", "path": path},
            "compensate": {"call": {"service": "stub", "method": "POST", "path": "/undo"}},
        }],
    })
}

async fn until_called(stub: &Stub, path: &str, times: usize) {
    eventually(&format!("{path} is called {times} times"), SOON, async || {
        let seen = stub.calls_to(path).len();
        met(seen >= times, || format!("{seen} calls"))
    })
    .await;
}

#[rstest]
#[tokio::test]
async fn a_saga_that_takes_processes_down_is_parked_and_no_other_is(#[values(Sqlite, Postgres)] backend: Backend) {
    let cured = Arc::new(AtomicBool::new(false));
    let is_cured = Arc::clone(&cured);
    let stub = Stub::start(move |call| match call.path.as_str() {
        "/poison" if !is_cured.load(Ordering::SeqCst) => Reply::ok().after(FOREVER),
        "/accepts" => Reply::json(202, Value::Null),
        _ => Reply::ok(),
    });
    let config = participant("stub", &stub.url) + "[database]\nlease = \"2s\"\n";
    let mut world = Alone::start_with(backend, &config).await;
    world.skald.register(&definition("poison", "/poison")).await;
    world.skald.register(&definition("innocent", "/accepts")).await;
    let innocent = world.skald.begun("innocent", &json!({})).await;
    world.skald.until(&innocent, "waiting", SOON, |saga| saga["revision"] == 3).await;
    let poison = world.skald.begun("poison", &json!({})).await;

    // Dying by its call is what is played here: the process is killed as soon as the call has left it.
    let mut calls = 0;
    for _ in 0..TAKEOVERS_MAX {
        until_called(&stub, "/poison", calls + 1).await;
        world.skald.kill();
        calls = stub.calls_to("/poison").len();
        world.skald.restart().await;
    }
    let saga = world.skald.until_status(&poison, "parked").await;
    assert_eq!(stub.calls_to("/poison").len(), calls, "not called again: {saga}");
    let events = world.skald.events(&poison).await;
    let takeovers = events.iter().filter(|event| event["kind"] == "SagaTakenOver").count();
    assert_eq!(takeovers, TAKEOVERS_MAX - 1);
    let parked = events.iter().find(|event| event["kind"] == "StepParked").expect("it is parked");
    assert_eq!(parked["data"]["code"], "process_died");
    let kinds = world.skald.event_types(&innocent).await;
    assert!(!kinds.iter().any(|kind| kind == "SagaTakenOver"), "it only waited: {kinds:?}");

    cured.store(true, Ordering::SeqCst);
    assert_eq!(world.skald.admin(&poison, "retry", json!({})).await.status, 200);
    assert_eq!(world.skald.ended(&poison).await["status"], "completed");
}
