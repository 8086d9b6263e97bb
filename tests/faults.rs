//! What goes wrong at participants: each fault alone, replies lost everywhere, a service that is down.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{Backend, Deployment, Postgres, SOON, Sqlite, order};

const CHECKOUTS: usize = 40;
const AT_ONCE: usize = 20;
/// Retries with back-off, twelve for a compensation.
const SETTLED_MAX: Duration = Duration::from_secs(90);

/// Runs checkouts, some of them declined, until all have ended or are parked.
async fn run_checkouts(world: &Deployment) {
    let inputs = (0..CHECKOUTS).map(|number| {
        let mut input = order(&format!("c-{}", number % 5));
        if number % 4 == 3 {
            input["payment"]["token"] = json!("tok_declined");
        }
        input
    });
    stream::iter(inputs)
        .for_each_concurrent(AT_ONCE, async |input| {
            world.skald.begun("checkout", &input).await;
        })
        .await;
    world.skald.all_settled(SETTLED_MAX).await;
}

/// Ends the faults, has the parked sagas retried, checks, and gives the number of sagas per end.
async fn heal_and_check(world: &Deployment) -> std::collections::BTreeMap<String, usize> {
    world.check().await;
    world.shop.heal().await;
    let parked = json!({"reason": "healed", "actor": "tester", "filter": {"status": ["parked"]}, "dry_run": false});
    // A refusal is for good: what it parked after the pivot cannot go forward any more.
    for command in ["retry", "compensate"] {
        world.skald.client.post(&format!("/admin/sagas/{command}"), &parked).await.expect(200);
        world.skald.all_settled(SETTLED_MAX).await;
    }
    let checker = world.checker().await;
    checker.check();
    checker.ends()
}

#[rstest]
#[case::delay(json!({"delay": {"rate": 0.5, "ms": 300}}))]
#[case::error_500(json!({"error_500": 0.3}))]
#[case::unavailable(json!({"unavailable": {"rate": 0.2, "retry_after_s": 1}}))]
#[case::lose_reply(json!({"lose_reply": 0.3}))]
#[case::duplicate(json!({"duplicate": 0.5}))]
#[case::refuse(json!({"refuse": 0.2}))]
#[tokio::test]
async fn under_each_fault_no_effect_is_lost_or_doubled_1_to_8(
    #[case] fault: Value,
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = Deployment::start(backend).await;
    for service in world.shop.services() {
        service.faults(json!({"*": fault})).await;
    }
    run_checkouts(&world).await;
    let ends = heal_and_check(&world).await;
    println!("{fault} on {backend:?}: {ends:?}");
    let ended = ends.get("completed").unwrap_or(&0) + ends.get("compensated").unwrap_or(&0);
    assert_eq!(ended, CHECKOUTS, "{ends:?}");
}

#[rstest]
#[tokio::test]
async fn a_reply_lost_after_any_effect_is_made_good_1_to_8(
    #[values(Sqlite, Postgres)] backend: Backend,
    #[values("verify", "reserve", "release", "payments", "refund", "orders", "cancel", "commit")] operation: &str,
) {
    let world = Deployment::start(backend).await;
    let service = match operation {
        "payments" | "refund" => &world.shop.sales,
        "orders" | "cancel" => &world.shop.orders,
        _ => &world.shop.catalog,
    };
    service.faults(json!({operation: {"lose_reply": 0.5}})).await;
    let mut blocked = order("blocked");
    blocked["items"][0]["quantity"] = json!(2);
    let inputs = [order("c-1"), blocked, order("c-2"), order("blocked")];
    let runs = inputs.iter().map(|input| world.skald.begun("checkout", input));
    futures_util::future::join_all(runs).await;
    world.skald.all_settled(SETTLED_MAX).await;
    heal_and_check(&world).await;
}

#[rstest]
#[tokio::test]
async fn a_checkout_waits_out_a_participant_that_is_down(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut world = Deployment::start(backend).await;
    world.shop.orders.kill();
    let id = world.skald.begun("checkout", &order("c-1")).await;
    let tried = |saga: &Value| saga["steps"][3]["attempts"].as_array().is_some_and(|attempts| attempts.len() >= 2);
    world.skald.until(&id, "tried twice at orders", SOON, tried).await;
    // The retry is durable: it is not this process that must remember it.
    world.skald.restart().await;
    world.shop.orders.restart().await;
    let saga = world.skald.ended(&id).await;
    assert!(matches!(saga["status"].as_str(), Some("completed" | "compensated")), "{saga}");
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_participant_that_stays_down_ends_as_unreachable_4(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut world = Deployment::start(backend).await;
    world.shop.sales.kill();
    let saga = world.skald.run("checkout", &order("c-1")).await;
    assert_eq!(saga["status"], "compensated", "{saga}");
    assert_eq!(
        (&saga["failure"]["step"], &saga["failure"]["code"]),
        (&json!("process_payment"), &json!("unreachable"))
    );
    assert_eq!(saga["steps"][2]["outcome"], "rejected", "nothing was ever sent");
    world.shop.sales.restart().await;
    world.check().await;
}
