//! The workers that live on Skald's events, as processes: killed in the middle, they have every event once all the same.

mod audit;
mod notification;
mod views;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    choreography::{World, declined},
    harness::{met, order},
};

const CAUGHT_UP_MAX: Duration = Duration::from_secs(60);
const MODES: [&str; 2] = ["orchestrated", "choreographed"];

/// One that goes through and one that does not, in each mode; gives them when they have ended.
async fn some_sagas(world: &World, customer: &str) -> Vec<Value> {
    let mut sagas = Vec::new();
    for mode in MODES {
        for input in [order(customer), declined(customer)] {
            sagas.push(world.begin("checkout", mode, &input).await);
        }
    }
    let mut ended = Vec::new();
    for saga in sagas {
        ended.push(world.all.skald.ended(&saga).await);
    }
    ended
}

/// Puts products into a cart, as the shop does.
async fn fill_cart(world: &World, cart: &str, customer: &str, products: &[&str]) {
    for product in products {
        let event = json!({
            "event_id": uuid::Uuid::new_v4(), "type": "CartItemAdded",
            "data": {"product_id": product, "quantity": 2, "customer_id": customer},
        });
        append(world, cart, &event).await;
    }
}

async fn append(world: &World, stream: &str, event: &Value) {
    let client = &world.all.skald.client;
    let request = client.request(Method::POST, &format!("/streams/{stream}/events"));
    let request = request.header("X-Correlation-Id", format!("visit-of-{stream}"));
    let answer = client.send(request.json(&json!({"expected_version": "any", "events": [event]}))).await;
    answer.expect("Skald answers").expect(201);
}

/// Every event there is.
async fn log(world: &World) -> Vec<Value> {
    let mut events = Vec::new();
    let mut after = String::new();
    loop {
        let page = world.all.skald.client.get(&format!("/events?limit=250{after}")).await.expect(200);
        let items = page["items"].as_array().expect("a page has items");
        if items.is_empty() {
            return events;
        }
        events.extend(items.iter().cloned());
        after = format!("&after={}", page["next_cursor"].as_str().expect("a page says where to go on"));
    }
}

/// What an event is known by.
fn key(event: &Value) -> (String, u64) {
    (text(event, "stream").to_owned(), event["version"].as_u64().expect("an event has a version"))
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} of {value}"))
}

/// The group has handled every event that it was given.
async fn settled(world: &World, group: &str) -> Result<(), String> {
    let group = world.all.skald.client.get(&format!("/groups/{group}")).await.expect(200);
    let open = ["ahead", "in_hand", "retrying", "waiting", "parked"];
    met(open.iter().all(|count| group["lag"][*count] == 0), || group.to_string())
}
