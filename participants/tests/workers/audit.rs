//! Audit: everything, once, and found.

use std::collections::BTreeSet;

use rstest::rstest;
use serde_json::{Value, json};
use skald_participants::WorkerKind;

use super::{Bus, Working, checkout, failed_checkout};
use crate::support::{Backend, eventually};

async fn holds(audit: &Working, count: usize) {
    eventually(&format!("{count} events are in"), async || {
        (audit.items("/audit?limit=250").await.len() >= count).then_some(())
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_there_once_whatever_is_lost_and_repeated(
    #[values(Bus::Http, Bus::Redis)] bus: Bus,
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let mut audit = Working::start(WorkerKind::Audit, bus, backend, None).await;
    for number in 0..30 {
        checkout(&audit.store, "c-1", None);
        audit.store.append("cart-1", "CartItemAdded", json!({"product_id": "p-1", "price": 1.50}));
        match number {
            5 => audit.store.lose_next_answers(2),
            15 => audit.store.fail_next(2),
            20 => audit = audit.restart().await,
            _ => {}
        }
    }
    holds(&audit, 120).await;
    let items = audit.items("/audit?limit=50").await;
    let key = |event: &Value| (event["stream"].to_string(), event["version"].as_u64().unwrap());
    let distinct: BTreeSet<_> = items.iter().map(key).collect();
    assert_eq!((items.len(), distinct.len()), (120, 120), "invariant 11");
    let times: Vec<&str> = items.iter().map(|event| event["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|one, next| one >= next), "newest first");
    let cart = audit.items("/audit?stream=cart-1").await;
    assert_eq!((cart.len(), &cart[0]["version"], &cart[29]["version"]), (30, &json!(30), &json!(1)));
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_found_by_who_what_where_and_when(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let audit = Working::start(WorkerKind::Audit, Bus::Http, backend, None).await;
    let good = checkout(&audit.store, "c-1", None);
    let bad = failed_checkout(&audit.store, "c-2", None);
    let acted = json!({
        "event_id": "a-1", "type": "Opened", "actor": "ann@example.org", "correlationid": "corr-x",
        "time": "2020-01-01T00:00:00Z", "data": {"total": 12345678901234567890123.50},
    });
    audit.store.inner.append("complaint-1", &json!("any"), &[acted]).unwrap();
    holds(&audit, 10).await;
    let count = async |query: &str| audit.items(&format!("/audit?{query}")).await.len();
    assert_eq!(count(&format!("stream={good}")).await, 3);
    assert_eq!(count(&format!("correlation_id=corr-{bad}")).await, 6);
    assert_eq!(count("type=CheckoutInitiated").await, 2);
    assert_eq!(count(&format!("type=CheckoutInitiated&stream={bad}")).await, 1);
    assert_eq!(count("actor=ann@example.org").await, 1);
    assert_eq!(count("actor=bob").await, 0);
    assert_eq!(count("until=2020-01-01T00:00:00Z").await, 0);
    assert_eq!(count("since=2020-01-01T00:00:00Z&until=2021-01-01T00:00:00Z").await, 1);
    assert_eq!(count("since=2021-01-01T00:00:00Z").await, 9);
    assert_eq!(audit.get(&format!("/audit?stream={bad}&limit=4")).await["items"].as_array().unwrap().len(), 4);
    for (query, field) in [("actor=", "actor"), ("limit=0", "limit"), ("cursor=zz", "cursor"), ("who=x", "who")] {
        let answer = audit.send(reqwest::Method::GET, &format!("/audit?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        assert!(answer.body["detail"].as_str().unwrap().contains(field), "{query}: {answer:?}");
    }
}
