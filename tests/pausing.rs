//! Pausing a definition (nothing starts) and a participant (its calls wait).

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{Answer, Backend, Deployment, Postgres, SOON, Skald, Sqlite, order};

/// `pause` or `resume`, of `definitions/NAME` or `participants/NAME`.
async fn tell(skald: &Skald, what: &str, command: &str) -> Answer {
    skald.client.post(&format!("/admin/{what}/{command}"), &json!({"actor": "tester", "reason": "maintenance"})).await
}

#[rstest]
#[tokio::test]
async fn a_paused_definition_starts_nothing_also_after_a_restart(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut world = Deployment::start(backend).await;
    world.shop.orders.faults(json!({"orders": {"delay": {"rate": 1.0, "ms": 800}}})).await;
    let running = world.skald.begun("checkout", &order("c-1")).await;
    assert!(tell(&world.skald, "definitions/checkout", "pause").await.status < 300);
    let refused = world.skald.begin("checkout", &order("c-1")).await;
    assert_eq!(refused.problem(503), "definition_paused");
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(world.skald.ended(&running).await["status"], "completed", "what has started goes on");
    world.skald.restart().await;
    assert_eq!(world.skald.begin("checkout", &order("c-1")).await.problem(503), "definition_paused");
    assert!(tell(&world.skald, "definitions/checkout", "resume").await.status < 300);
    assert_eq!(world.skald.run("checkout", &order("c-1")).await["status"], "completed");
    assert_eq!(tell(&world.skald, "definitions/none", "pause").await.problem(404), "definition_not_found");
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn calls_to_a_paused_participant_wait_and_use_no_attempt(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    assert!(tell(&world.skald, "participants/sales", "pause").await.status < 300);
    let id = world.skald.begun("checkout", &order("c-1")).await;
    let waits = |saga: &Value| saga["state"] == "PAYMENT_PROCESSING";
    world.skald.until(&id, "waiting for sales", SOON, waits).await;
    let deferred = world.skald.metric("participant_calls_deferred_total", "service=\"sales\"").await;
    assert!(world.shop.sales.ledger().await.is_empty());
    assert!(tell(&world.skald, "participants/sales", "resume").await.status < 300);
    let saga = world.skald.ended(&id).await;
    assert_eq!(saga["status"], "completed", "{saga}");
    assert_eq!(saga["steps"][2]["attempts"].as_array().map(Vec::len), Some(1), "deferred {deferred} times: {saga}");
    assert_eq!(tell(&world.skald, "participants/none", "pause").await.problem(404), "participant_not_found");
    world.check().await;
}
