//! Webhooks: what there was to tell is told, whatever dies in between.

use rstest::rstest;
use serde_json::json;

use crate::harness::{
    Backend, Postgres, SOON, Sqlite, deployment, eventually, met,
    skald::participant,
    stub::{Reply, Stub},
};

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_saga_that_ended_before_a_kill_9_is_told_of_after_it(#[values(Sqlite, Postgres)] backend: Backend) {
    let participant_stub = Stub::start(|_| Reply::ok());
    let receiver = Stub::start(|call| if call.earlier == 0 { Reply::json(500, json!({})) } else { Reply::ok() });
    let config = format!("{}[webhooks]\nallow_private = true\n", participant("service", &participant_stub.url));
    let mut alone = deployment::Alone::start_with(backend, &config).await;
    let step =
        json!({"id": "only", "effect": "none", "call": {"service": "service", "method": "POST", "path": "/only"}});
    alone.skald.register(&json!({"apiVersion": "skald/v1", "name": "short", "version": 1, "steps": [step]})).await;
    let hook = json!({"url": format!("{}/hook", receiver.url), "definitions": ["short"]});
    let made = alone.skald.client.post("/webhooks", &hook).await;
    assert_eq!(made.status, 201, "{}", made.text);

    let saga = alone.skald.run("short", &json!({})).await;
    eventually("it was told in vain", SOON, async || met(!receiver.calls().is_empty(), || "not yet".to_owned())).await;
    let group = format!("/groups/webhook-{}", made.body["id"].as_str().expect("it has an id"));
    eventually("that is known", SOON, async || {
        let group = alone.skald.client.get(&group).await;
        met(group.body["lag"]["retrying"] == 1, || group.text)
    })
    .await;
    alone.skald.restart().await;
    eventually("it is told again", SOON, async || met(receiver.calls().len() > 1, || "not yet".to_owned())).await;
    let calls = receiver.calls();
    assert_eq!(calls[0].header("webhook-id"), calls[1].header("webhook-id"));
    assert!(calls[1].header("webhook-signature").starts_with("v1,"), "{calls:?}");
    assert_eq!((&calls[1].body["type"], &calls[1].body["data"]["saga_id"]), (&json!("saga.completed"), &saga["id"]));
}
