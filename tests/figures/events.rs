//! The event store: how many events it takes, how fast it gives them out, how soon a consumer hears of one.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Backend, Client, Postgres, Sqlite, deployment::Alone};

const CLIENTS: usize = 16;
const LASTS: Duration = Duration::from_secs(4);
const EVENTS_TO_READ: usize = 200_000;
const LONG_STREAM: usize = 1_000;
const HEARD: usize = 500;

fn event(number: usize) -> Value {
    json!({
        "event_id": Uuid::new_v4(),
        "type": "CartItemAdded",
        "data": {"product_id": format!("p-{number}"), "quantity": 2, "store": "s-main"},
    })
}

fn body(events: usize) -> Value {
    json!({"expected_version": "any", "events": (0..events).map(event).collect::<Vec<_>>()})
}

async fn append(client: &Client, stream: &str, body: &Value) {
    client.post(&format!("/streams/{stream}/events"), body).await.expect(201);
}

/// Appends from several clients, each to a stream of its own, until `enough`; gives how many events were appended.
async fn append_until(client: &Client, per_append: usize, enough: impl Fn(usize) -> bool) -> usize {
    let appended = Cell::new(0);
    let one = async |number: usize| {
        let stream = format!("cart-{per_append}-{number}");
        while !enough(appended.get()) {
            append(client, &stream, &body(per_append)).await;
            appended.set(appended.get() + per_append);
        }
    };
    join_all((0..CLIENTS).map(one)).await;
    appended.get()
}

fn print_figure(what: &str, value: f64, unit: &str) {
    println!("figure: {what:<64} {value:>9.0} {unit}");
}

#[rstest]
#[tokio::test]
#[ignore = "prints rates; run by `cargo xtask figures`"]
async fn appends(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Alone::start(backend, &[]).await;
    for per_append in [1, 100] {
        let begun = Instant::now();
        let events = append_until(&world.skald.client, per_append, |_| begun.elapsed() > LASTS).await;
        let rate = events as f64 / begun.elapsed().as_secs_f64();
        let what = format!("{backend:?}: {CLIENTS} clients append, {per_append} at once");
        print_figure(&what, rate, "events/s");
    }
}

#[rstest]
#[tokio::test]
#[ignore = "prints rates; run by `cargo xtask figures`"]
async fn reading_on_and_states(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Alone::start(backend, &[]).await;
    let client = &world.skald.client;
    append_until(client, 1_000, |appended| appended >= EVENTS_TO_READ).await;
    let begun = Instant::now();
    let (mut read, mut after) = (0, String::new());
    while read < EVENTS_TO_READ {
        let request = client.request(Method::GET, &format!("/events?limit=250{after}"));
        let page = client.send(request).await.expect("Skald answers").expect(200);
        read += page["items"].as_array().map_or(0, Vec::len);
        after = format!("&after={}", page["next_cursor"].as_str().expect("there is always one"));
    }
    let rate = read as f64 / begun.elapsed().as_secs_f64();
    print_figure(&format!("{backend:?}: one client reads all events over HTTP"), rate, "events/s");

    append(client, "cart-long", &body(LONG_STREAM)).await;
    let begun = Instant::now();
    client.get("/streams/cart-long/state").await.expect(200);
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    print_figure(&format!("{backend:?}: the state of a stream of {LONG_STREAM} events"), took, "ms");
}

/// From the append's answer until a consumer that waits has the event; nothing else goes on.
#[rstest]
#[tokio::test]
#[ignore = "prints latencies; run by `cargo xtask figures`"]
async fn hearing(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Alone::start(backend, &[]).await;
    let client = &world.skald.client;
    client.put("/groups/ears", &json!({"start": "beginning"})).await.expect(201);
    let mut took = Vec::new();
    let mut settle = json!([]);
    for number in 0..HEARD {
        let poll = json!({"consumer": "c", "wait": "5s", "settle": settle});
        let stream = format!("cart-{number}");
        let appending = async {
            // The consumer waits by now: what it settles takes a commit.
            tokio::time::sleep(Duration::from_millis(20)).await;
            append(client, &stream, &body(1)).await;
            Instant::now()
        };
        let hearing = async { (client.post("/groups/ears/poll", &poll).await.expect(200), Instant::now()) };
        let (appended, (heard, at)) = tokio::join!(appending, hearing);
        let delivery = &heard["deliveries"][0];
        assert_eq!(delivery["event"]["stream"], stream.as_str(), "{heard}");
        settle = json!([{"shard": delivery["shard"], "position": delivery["position"], "token": delivery["token"], "outcome": "done"}]);
        took.push(at.saturating_duration_since(appended));
    }
    super::print_quantiles(&format!("{backend:?}: from the append's answer to a waiting consumer"), took);
}
