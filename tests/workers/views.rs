//! Views: read models are what the log says, whoever was killed, and verification finds what is not.

use std::collections::BTreeMap;

use rstest::rstest;
use serde_json::{Value, json};

use super::{CAUGHT_UP_MAX, MODES, fill_cart, log, some_sagas, text};
use crate::{
    choreography::{Bus, World},
    harness::{
        Backend, Folder, Postgres, Sqlite, eventually, met,
        participants::Service,
        process::{Ended, Process},
        skald::program,
    },
};

const PROJECTIONS: [&str; 4] = ["orders-by-customer", "sales-by-store-and-day", "sagas-by-state", "cart-contents"];

/// Waits until every projection has taken in all of these.
async fn caught_up(views: &Service, log: &[Value]) {
    let count = |category: &Value| log.iter().filter(|event| event["category"] == *category).count();
    eventually("the views have caught up", CAUGHT_UP_MAX, async || {
        let projections = views.client.get("/projections").await.expect(200);
        let done = |item: &Value| item["events"] == count(&item["category"]) && item["at_end"] == true;
        let items = projections["items"].as_array().expect("a list has items");
        met(items.len() == PROJECTIONS.len() && items.iter().all(done), || projections.to_string())
    })
    .await;
}

/// `skald projection WHAT NAME`
async fn projection(folder: &Folder, views: &Service, what: &str, name: &str) -> Ended {
    let mut command = program();
    command.args(["projection", what, name, "--views-url", views.url()]);
    Process::run("projection", &mut command, folder.path()).await
}

/// What the orders of each customer come to: how many, what was spent, how they ended.
fn orders_by_customer(log: &[Value]) -> BTreeMap<String, (usize, i64, BTreeMap<&'static str, i64>)> {
    let mut customers: BTreeMap<String, (usize, i64, BTreeMap<&'static str, i64>)> = BTreeMap::new();
    for started in log.iter().filter(|event| event["kind"] == "SagaStarted") {
        let (orders, spent, ends) =
            customers.entry(text(&started["data"]["input"], "customer_id").to_owned()).or_default();
        *orders += 1;
        let of_saga =
            |kind: &str| log.iter().find(|event| event["stream"] == started["stream"] && event["kind"] == kind);
        if let Some(completed) = of_saga("SagaCompleted") {
            *spent += completed["data"]["output"]["total"].as_i64().expect("an order has a total");
            *ends.entry("confirmed").or_default() += 1;
        }
        if of_saga("SagaCompensated").is_some() {
            *ends.entry("failed").or_default() += 1;
        }
    }
    customers
}

/// Orders, items and revenue by store and day.
fn sales(log: &[Value]) -> BTreeMap<String, (i64, i64, i64)> {
    let mut sales: BTreeMap<String, (i64, i64, i64)> = BTreeMap::new();
    for completed in log.iter().filter(|event| event["kind"] == "SagaCompleted") {
        let begins = |event: &&Value| event["stream"] == completed["stream"] && event["kind"] == "SagaStarted";
        let input = &log.iter().find(begins).expect("what ends has begun")["data"]["input"];
        let store = input["store_id"].as_str().unwrap_or("s-main");
        let (orders, items, revenue) = sales.entry(format!("{store}:{}", &text(completed, "time")[..10])).or_default();
        *orders += 1;
        let lines = input["items"].as_array().expect("an order has items").iter();
        *items += lines.map(|item| item["quantity"].as_i64().expect("of so many")).sum::<i64>();
        *revenue += completed["data"]["output"]["total"].as_i64().expect("an order has a total");
    }
    sales
}

async fn check(world: &World, views: &Service, log: &[Value]) {
    for (customer, (orders, spent, ends)) in orders_by_customer(log) {
        let shown = views.client.get(&format!("/read-models/orders-by-customer/{customer}")).await.expect(200);
        assert_eq!(shown["orders"].as_array().map(Vec::len), Some(orders), "{customer}: {shown}");
        assert_eq!((&shown["spent"], &shown["by_status"]), (&json!(spent), &json!(ends)), "{customer}: {shown}");
    }
    let shown = views.client.all("/read-models/sales-by-store-and-day").await;
    let number = |day: &Value, field: &str| day[field].as_i64().expect("it is a number");
    let shown = shown.iter().map(|day| {
        let sums = (number(day, "orders"), number(day, "items"), number(day, "revenue"));
        (text(day, "key").to_owned(), sums)
    });
    assert_eq!(shown.collect::<BTreeMap<_, _>>(), sales(log));

    let sagas = world.all.skald.sagas().await;
    for status in ["running", "compensating", "parked", "completed", "compensated", "abandoned"] {
        let there = sagas.iter().filter(|saga| saga["status"] == status).count();
        let shown = views.client.get(&format!("/read-models/sagas-by-state/{status}")).await.expect(200);
        assert_eq!(shown["count"], there, "{status}: {shown}");
        assert_eq!(shown["sagas"].as_array().map(Vec::len), Some(there), "{status}: {shown}");
    }
    for cart in ["cart-1", "cart-2"] {
        let state = world.all.skald.client.get(&format!("/streams/{cart}/state")).await.expect(200);
        let shown = views.client.get(&format!("/read-models/cart-contents/{cart}")).await.expect(200);
        assert_eq!(
            (&shown["items"], &shown["version"]),
            (&state["state"]["items"], &state["version"]),
            "{shown} {state}"
        );
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn read_models_are_what_the_log_says_though_the_worker_is_killed(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = World::start(backend, Bus::Skald).await;
    let mut views = world.worker("views", &[], backend).await;
    for round in 0..3 {
        some_sagas(&world, &format!("c-{}", round % 2)).await;
        fill_cart(&world, "cart-1", "c-cart", &["p-1", "p-2", "p-1"][..=round]).await;
        fill_cart(&world, "cart-2", "c-1", &["p-3"]).await;
        views.restart().await;
    }
    let payment = json!({"payment": {"method": "card", "token": "tok_ok"}});
    let cart = world.all.skald.client.get("/streams/cart-1/state").await.expect(200);
    for mode in MODES {
        let saga = world.run("checkout?from=cart-1", mode, &payment).await;
        assert_eq!(
            (&saga["status"], &saga["input"]["items"]),
            (&json!("completed"), &cart["state"]["items"]),
            "{saga}"
        );
    }
    let log = log(&world).await;
    caught_up(&views, &log).await;
    check(&world, &views, &log).await;

    let folder = Folder::new();
    for name in PROJECTIONS {
        let ended = projection(&folder, &views, "verify", name).await;
        assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    }
    views.kill();
    let wrong = "UPDATE view_rows SET value = '{\"count\":7}'
                 WHERE projection = 'sagas-by-state' AND key = 'completed' AND item = ''";
    views.database().tamper(wrong).await;
    views.restart().await;
    let ended = projection(&folder, &views, "verify", "sagas-by-state").await;
    assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
    assert!(ended.stdout.contains("completed") && ended.stdout.contains("{\"count\":7}"), "{ended:#?}");
    let ended = projection(&folder, &views, "rebuild", "sagas-by-state").await;
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    let ended = projection(&folder, &views, "verify", "sagas-by-state").await;
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    check(&world, &views, &log).await;
}
