//! The orchestrator dies, is stopped, is doubled.

use std::time::Duration;

use futures_util::{StreamExt, future::join_all, stream};
use reqwest::Method;
use rstest::rstest;
use serde_json::json;

use crate::harness::{
    Backend, Client, Deployment, Postgres, SOON, Skald, Sqlite, checker::Start, database::Database, deployment,
    eventually, met, order,
};

const SAGAS: usize = 500;
const STARTS_AT_ONCE: usize = 32;
const KILLS: usize = 2;
const SETTLED_MAX: Duration = Duration::from_secs(120);
/// A lease is 5 s by default; its holder is gone.
const TAKEOVER_MAX: Duration = Duration::from_secs(15);

/// Starts a checkout under a key, again and again until a start is acknowledged.
async fn start_until_acknowledged(client: &Client, number: usize) -> Start {
    let key = format!("order-{number}");
    let mut input = order(&format!("c-{}", number % 20));
    if number.is_multiple_of(7) {
        input["payment"]["token"] = json!("tok_declined");
    }
    eventually(&format!("the start of {key} is acknowledged"), SETTLED_MAX, async || {
        let request = client.request(Method::POST, "/sagas/checkout").json(&input);
        let request = request.header("Idempotency-Key", &key).header("Prefer", "respond-async");
        let answer = client.send(request).await.map_err(|error| error.to_string())?;
        match answer.status {
            200..300 => {
                let saga = answer.body["id"].as_str().expect("a saga has an id").to_owned();
                Ok(Start { key: Some(key.clone()), saga })
            }
            503 => Err(answer.text),
            _ => panic!("{}: {}", answer.status, answer.text),
        }
    })
    .await
}

/// Starts many checkouts, some at once.
async fn start_many(client: Client) -> Vec<Start> {
    stream::iter(0..SAGAS)
        .map(|number| start_until_acknowledged(&client, number))
        .buffer_unordered(STARTS_AT_ONCE)
        .collect()
        .await
}

/// Waits until so many sagas have been started.
async fn until_started(database: &Database, count: usize) {
    eventually(&format!("{count} sagas have been started"), SETTLED_MAX, async || {
        let sql = "SELECT CAST(count(*) AS TEXT) FROM sagas";
        let [[seen]] = database.texts(sql.to_owned()).await.try_into().expect("a count is one row");
        let seen: usize = seen.expect("a count is never NULL").parse().expect("a count is a number");
        met(seen >= count, || seen.to_string())
    })
    .await;
}

/// That all ends well, whatever happened before.
async fn settle_and_check(world: &Deployment, starts: Vec<Start>) {
    world.skald.all_settled(SETTLED_MAX).await;
    let checker = world.checker().await.acknowledged(starts);
    checker.check();
    let ends = checker.ends();
    println!("{ends:?}");
    assert_eq!(ends.values().sum::<usize>(), SAGAS);
    assert_eq!(ends.get("completed").copied().unwrap_or(0) + ends.get("compensated").copied().unwrap_or(0), SAGAS);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_start_is_lost_by_kill_9_among_500_checkouts_1_to_10(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut world = Deployment::start(backend).await;
    let starting = start_many(world.skald.client.clone());
    let killing = async {
        for kill in 1..=KILLS {
            until_started(&world.database, SAGAS * kill / (KILLS + 1)).await;
            world.skald.restart().await;
        }
    };
    let (starts, ()) = tokio::join!(starting, killing);
    settle_and_check(&world, starts).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_among_running_checkouts_exits_0_and_loses_nothing_10(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut world = Deployment::start(backend).await;
    world.shop.sales.faults(json!({"payments": {"delay": {"rate": 0.5, "ms": 200}}})).await;
    let starting = start_many(world.skald.client.clone());
    let stopping = async {
        until_started(&world.database, SAGAS / 4).await;
        let status = world.skald.process.terminate(Duration::from_secs(40)).await;
        assert_eq!(status.code(), Some(0), "{}", world.skald.process.log());
        world.skald.restart().await;
    };
    let (starts, ()) = tokio::join!(starting, stopping);
    settle_and_check(&world, starts).await;
}

#[rstest]
#[tokio::test]
async fn a_second_process_takes_over_when_the_first_dies_9(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut world = Deployment::start(backend).await;
    world.shop.sales.faults(json!({"payments": {"delay": {"rate": 1.0, "ms": 1000}}})).await;
    let setup = world.skald.setup().clone();
    let second = Skald::start_waiting(setup).await;
    second.ready().await;
    if backend == Sqlite {
        // There is one shard, and it stays with who came first.
        assert_eq!(second.client.get("/readyz").await.expect(200)["role"], "standby");
    }

    let id = world.skald.begun("checkout", &order("c-1")).await;
    world.skald.kill();
    let begun = std::time::Instant::now();
    eventually("the second one owns all", TAKEOVER_MAX, async || {
        let sql = "SELECT CAST(count(*) AS TEXT) FROM shards";
        let [[shards]] = world.database.texts(sql.to_owned()).await.try_into().expect("a count is one row");
        let owned = second.metric("shards_owned", "").await;
        met(shards == Some(owned.to_string()), || format!("{owned} of {shards:?}"))
    })
    .await;
    println!("{backend:?}: taken over {:.1?} after the kill", begun.elapsed());
    let saga = second.ended(&id).await;
    assert_eq!(saga["status"], "completed", "{saga}");
    let other = second.run("checkout", &order("c-2")).await;
    assert_eq!(other["status"], "completed");
    world.skald = second;
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_restart_carries_on_each_saga_where_it_was_8(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut world = Deployment::start(backend).await;
    world.shop.orders.faults(json!({"orders": {"unavailable": {"rate": 1.0, "retry_after_s": 2}}})).await;
    let ids = join_all((0..10).map(|number| {
        let (skald, input) = (&world.skald, order(&format!("c-{number}")));
        async move { skald.begun("checkout", &input).await }
    }))
    .await;
    let waits = |saga: &serde_json::Value| !saga["steps"][3]["attempts"][0].is_null();
    for id in &ids {
        world.skald.until(id, "waiting for orders", SOON, waits).await;
    }
    world.skald.kill();
    world.shop.heal().await;
    world.skald.restart().await;
    for id in &ids {
        assert_eq!(world.skald.ended(id).await["status"], "completed");
        assert_eq!(world.shop.catalog.effects_of(id).await, ["reserve_stock:action", "commit_stock:action"]);
    }
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_successor_on_the_same_machine_waits_for_no_lease(#[values(Sqlite, Postgres)] backend: Backend) {
    // Longer than a restart may take here.
    let mut alone = deployment::Alone::start_with(backend, "[database]\nlease = \"60s\"\n").await;
    alone.skald.restart().await;
    assert_eq!(alone.skald.metric("shard_takeovers_total", "").await, alone.skald.metric("shards_owned", "").await);
}

#[tokio::test]
async fn the_harness_ends_with_nothing_running() {
    // Guards the guard: the end-to-end tests must not leave servers behind.
    let world = deployment::Alone::start(Sqlite, &[]).await;
    let pid = world.skald.process.pid();
    drop(world);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}
