//! Audit: everything, once, and found.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use rstest::rstest;
use serde_json::{Value, json};

use super::{CAUGHT_UP_MAX, append, fill_cart, key, log, some_sagas, text};
use crate::{
    choreography::{Bus, World},
    harness::{Backend, Postgres, Sqlite, eventually, met},
};

#[rstest]
#[case(Sqlite, Bus::Skald)]
#[case(Postgres, Bus::Streams)]
#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_found_once_by_who_what_where_and_when_11(#[case] backend: Backend, #[case] bus: Bus) {
    let world = World::start(backend, bus).await;
    let mut audit = world.worker("audit", &[], backend).await;
    let mut sagas = Vec::new();
    for round in 0..3 {
        sagas.extend(some_sagas(&world, &format!("c-{round}")).await);
        fill_cart(&world, "cart-1", "c-1", &["p-1", "p-2"]).await;
        audit.restart().await;
    }
    let opened = json!({"event_id": "o-1", "type": "Opened", "actor": "ann@example.org", "data": {"total": 1}});
    append(&world, "complaint-1", &opened).await;

    let log = log(&world).await;
    let keys: BTreeSet<_> = log.iter().map(key).collect();
    let found = eventually("everything is in the audit", CAUGHT_UP_MAX, async || {
        let found = audit.client.all("/audit").await;
        met(found.len() >= log.len(), || format!("{} of {}", found.len(), log.len()))?;
        Ok(found)
    })
    .await;
    assert_eq!((found.len(), found.iter().map(key).collect::<BTreeSet<_>>()), (log.len(), keys));

    let search = async |query: &str, is_meant: &dyn Fn(&Value) -> bool| {
        let found: BTreeSet<_> = audit.client.all(&format!("/audit?{query}")).await.iter().map(key).collect();
        let meant: BTreeSet<_> = log.iter().filter(|event| is_meant(event)).map(key).collect();
        assert!(!meant.is_empty(), "{query} finds something");
        assert_eq!(found, meant, "{query}");
    };
    let saga = &sagas[sagas.len() / 2];
    let (id, correlation) = (text(saga, "id"), text(saga, "correlation_id"));
    search(&format!("stream={id}"), &|event| event["stream"] == id).await;
    search(&format!("correlation_id={correlation}"), &|event| event["correlationid"] == correlation).await;
    search("correlation_id=visit-of-cart-1", &|event| event["stream"] == "cart-1").await;
    search("actor=ann@example.org", &|event| event["stream"] == "complaint-1").await;
    search("type=PaymentFailed", &|event| event["type"] == "PaymentFailed").await;
    let time = |event: &Value| text(event, "time").parse::<DateTime<Utc>>().expect("times are RFC 3339");
    let (since, until) = (time(&log[log.len() / 3]), time(&log[2 * log.len() / 3]));
    let (since, until) = (since.min(until), since.max(until));
    let text = |at: DateTime<Utc>| at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let query = format!("since={}&until={}", text(since), text(until));
    search(&query, &|event| (since..until).contains(&time(event))).await;
}
