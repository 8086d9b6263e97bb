//! Latencies to look at, not to pass: `cargo xtask figures` runs these and prints a table. They say how it is on the
//! machine they run on.

mod events;

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Deployment, Postgres, Reply, Skald, Sqlite, Stub,
    deployment::Alone,
    order,
    raw::{Raw, hang},
    sample::{definition, step},
};

const RUNS: usize = 400;
const AT_ONCE: usize = 4;
const READERS: usize = 1_000;

/// Runs sagas to their end, a few at once, and prints how long the starts with waiting took.
async fn measure(what: &str, skald: &Skald, definition: &str, input: &Value) {
    let run = async |_| {
        let begun = Instant::now();
        let answer = skald.client.post(&format!("/sagas/{definition}"), input).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        begun.elapsed()
    };
    // The first ones open connections and fill caches.
    stream::iter(0..40).map(run).buffer_unordered(AT_ONCE).collect::<Vec<Duration>>().await;
    print_quantiles(what, stream::iter(0..RUNS).map(run).buffer_unordered(AT_ONCE).collect().await);
}

fn print_quantiles(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let last = took.len() - 1;
    let quantile = |per_mille: usize| took[(took.len() * per_mille / 1000).min(last)].as_secs_f64() * 1000.0;
    println!(
        "figure: {what:<64} p50 {:>7.1} ms   p99 {:>7.1} ms   max {:>7.1} ms",
        quantile(500),
        quantile(990),
        quantile(1000)
    );
}

#[rstest]
#[tokio::test]
#[ignore = "prints latencies; run by `cargo xtask figures`"]
async fn checkouts_beside_idle_readers(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    world.shop.catalog.stock_up("s-main", "p-1", 100_000).await;
    world.shop.sales.set_credit("c-1", 1_000_000_000).await;
    // A parked saga has a stream that is open and silent.
    world.shop.catalog.faults(json!({"commit": {"refuse": 1.0}})).await;
    let parked = world.skald.begun("checkout", &order("c-2")).await;
    world.skald.until_status(&parked, "parked").await;
    world.shop.heal().await;

    measure(&format!("{backend:?}: checkout"), &world.skald, "checkout", &order("c-1")).await;
    let path = format!("/sagas/{parked}/stream");
    let connect = async |_| {
        let request = world.skald.client.request(reqwest::Method::GET, &path).timeout(Duration::from_secs(600));
        request.send().await.expect("Skald answers")
    };
    let readers: Vec<_> = stream::iter(0..READERS).map(connect).buffer_unordered(50).collect().await;
    let what = format!("{backend:?}: checkout beside {} idle readers", readers.len());
    measure(&what, &world.skald, "checkout", &order("c-1")).await;
}

#[rstest]
#[tokio::test]
#[ignore = "prints latencies; run by `cargo xtask figures`"]
async fn others_beside_a_participant_that_never_answers(#[values(Sqlite, Postgres)] backend: Backend) {
    let mute = Raw::start(hang).await;
    // One for each measurement: a stub looks through all calls it has had, so it is slower the second time.
    let (before, beside) = (Stub::start(|_| Reply::ok()), Stub::start(|_| Reply::ok()));
    let participants = [("before", &*before.url), ("beside", &beside.url), ("mute", &mute.url())];
    let world = Alone::start(backend, &participants).await;
    for service in ["before", "beside"] {
        let steps = ["one", "two", "three", "four"].map(|id| step_at(service, id));
        world.skald.register(&definition(service, steps)).await;
    }
    let mut waits = step_at("mute", "waits");
    waits["timeout"] = json!("10m");
    world.skald.register(&definition("mute", [waits])).await;

    measure(&format!("{backend:?}: four steps"), &world.skald, "before", &json!({})).await;
    for _ in 0..200 {
        world.skald.begun("mute", &json!({})).await;
    }
    let what = format!("{backend:?}: four steps beside 200 sagas at a mute participant");
    measure(&what, &world.skald, "beside", &json!({})).await;
}

fn step_at(service: &str, id: &str) -> Value {
    let mut step = step(id);
    for call in ["/call", "/compensate/call"] {
        step.pointer_mut(call).expect("a step has calls")["service"] = json!(service);
    }
    step
}
