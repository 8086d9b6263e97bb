//! A service that takes calls and never answers.

use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::json;

use crate::harness::{Backend, Deployment, Postgres, SOON, Sqlite, eventually, met, order};

/// What the design promises for the checkout's own timings.
const COMPENSATION_BEGINS_MAX: Duration = Duration::from_secs(30);

#[rstest]
#[tokio::test]
async fn the_compensation_of_a_checkout_begins_within_30_s_of_a_hang(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start_as_shipped(backend).await;
    world.shop.sales.faults(json!({"payments": {"hang": 1.0}})).await;
    let begun = Instant::now();
    let id = world.skald.begun("checkout", &order("c-1")).await;
    let reserved = || async { world.shop.catalog.shelf("s-main", "p-1").await };
    eventually("the stock is reserved", SOON, async || {
        let shelf = reserved().await;
        met(shelf == (999, 1, 0), || format!("{shelf:?}"))
    })
    .await;
    let compensating = world.skald.until(&id, "compensated for", COMPENSATION_BEGINS_MAX, |saga| {
        matches!(saga["status"].as_str(), Some("compensating" | "compensated"))
    });
    compensating.await;
    let compensation_began = begun.elapsed();
    eventually("the stock is released", SOON, async || {
        let shelf = reserved().await;
        met(shelf == (1_000, 0, 0), || format!("{shelf:?}"))
    })
    .await;
    let stock_was_released = begun.elapsed();
    println!(
        "{backend:?}: compensation began after {compensation_began:.1?}, stock back after {stock_was_released:.1?}"
    );
    assert!(compensation_began < COMPENSATION_BEGINS_MAX);

    let saga = world.skald.ended(&id).await;
    assert_eq!(saga["status"], "compensated");
    assert_eq!(saga["failure"]["step"], "process_payment");
    let payment = &saga["steps"][2];
    assert_eq!(payment["outcome"], "unknown", "a call that was sent and not answered may have taken effect: {payment}");
    assert!(world.shop.sales.effects_of(&id).await.is_empty());
    world.check().await;
}
