//! Sagas that nobody conducts: the services react to each other's events. Judged like the others, by ledgers and log.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Deployment, Folder, Postgres, Sqlite, eventually, met, order,
    participants::{Part, Service},
    redis::Redis,
};

const SETTLED_MAX: Duration = Duration::from_secs(120);

/// Where the services hear of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    Skald,
    Streams,
}

/// Skald, services that take part, and what carries the events.
pub struct World {
    pub all: Deployment,
    redis: Option<Redis>,
    folder: Folder,
}

impl World {
    pub async fn start(backend: Backend, bus: Bus) -> Self {
        let folder = Folder::new();
        let redis = match bus {
            Bus::Skald => None,
            Bus::Streams => Some(Redis::start(folder.path()).await),
        };
        let all = Deployment::choreographed(backend, redis.as_ref().map(|redis| &*redis.url)).await;
        Self { all, redis, folder }
    }

    /// A worker that lives on the same events.
    pub async fn worker(&self, name: &'static str, flags: &[String], backend: Backend) -> Service {
        let part = Part {
            skald_url: Some(self.all.skald.client.url.clone()),
            bus: self.redis.as_ref().map(|redis| redis.url.clone()),
        };
        Service::worker(&part, name, flags, backend, self.folder.path()).await
    }

    /// `definition` may have further parameters: `checkout?from=cart-1`.
    pub async fn begin(&self, definition: &str, mode: &str, input: &Value) -> String {
        eventually("a start is acknowledged", SETTLED_MAX, async || {
            let joint = if definition.contains('?') { '&' } else { '?' };
            let path = format!("/sagas/{definition}{joint}mode={mode}");
            let request = self.all.skald.client.request(Method::POST, &path).json(input);
            let request = request.header("Prefer", "respond-async");
            let answer = self.all.skald.client.send(request).await.map_err(|error| error.to_string())?;
            met(answer.status < 300, || answer.text.clone())?;
            Ok(answer.body["id"].as_str().expect("a saga has an id").to_owned())
        })
        .await
    }

    pub async fn run(&self, definition: &str, mode: &str, input: &Value) -> Value {
        let id = self.begin(definition, mode, input).await;
        self.all.skald.ended(&id).await
    }
}

pub fn declined(customer: &str) -> Value {
    let mut input = order(customer);
    input["payment"]["token"] = json!("tok_declined");
    input
}

fn too_many(customer: &str) -> Value {
    let mut input = order(customer);
    input["items"][0]["quantity"] = json!(1_000_000);
    input
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn both_modes_end_alike_and_their_streams_tell_the_same_13(
    #[values(Sqlite, Postgres)] backend: Backend,
    #[values(Bus::Skald, Bus::Streams)] bus: Bus,
) {
    let world = World::start(backend, bus).await;
    for definition in ["checkout", "order-first"] {
        for (input, status) in
            [(order("c-1"), "completed"), (declined("c-1"), "compensated"), (too_many("c-1"), "compensated")]
        {
            let one = world.run(definition, "orchestrated", &input).await;
            let other = world.run(definition, "choreographed", &input).await;
            assert_eq!((&one["status"], &other["status"]), (&json!(status), &json!(status)), "{other}");
            for field in ["state", "failure"] {
                assert_eq!(one[field], other[field], "{definition}: {other}");
            }
            let ends = |saga: &Value| -> Vec<(Value, Value)> {
                let steps = saga["steps"].as_array().expect("a saga has steps").iter();
                steps.map(|step| (step["id"].clone(), step["status"].clone())).collect()
            };
            assert_eq!(ends(&one), ends(&other), "{definition}");
            let told = async |saga: &Value| -> Vec<String> {
                let types = world.all.skald.event_types(saga["id"].as_str().expect("it has an id")).await;
                types.into_iter().filter(|name| name != "StepStarted").collect()
            };
            assert_eq!(told(&one).await, told(&other).await, "{definition}: the same events in the same order");
        }
    }
    world.all.check().await;
    if bus == Bus::Streams {
        let skald = &world.all.skald;
        let published = skald.metric("events_published_total", "").await;
        eventually("everything is relayed", SETTLED_MAX, async || {
            let relayed = skald.metric("events_relayed_total", "").await;
            let lag = skald.metric("relay_lag_events", "").await;
            met(relayed >= published && lag == 0.0, || format!("{relayed} of {published}, {lag} behind"))
        })
        .await;
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_done_twice_whoever_is_killed_1_to_8(
    #[values(Sqlite, Postgres)] backend: Backend,
    #[values(Bus::Skald, Bus::Streams)] bus: Bus,
) {
    const SAGAS: usize = 60;
    let mut world = World::start(backend, bus).await;
    for service in world.all.shop.services() {
        service.faults(json!({"*": {"delay": {"rate": 0.3, "ms": 20}}})).await;
    }
    let mut begun = Vec::new();
    for round in 0..4 {
        let some: Vec<String> = stream::iter(0..SAGAS / 4)
            .map(|number| {
                let customer = format!("c-{number}");
                let input = if number % 5 == 0 { declined(&customer) } else { order(&customer) };
                let world = &world;
                async move { world.begin("checkout", "choreographed", &input).await }
            })
            .buffer_unordered(8)
            .collect()
            .await;
        begun.extend(some);
        match round {
            0 => world.all.shop.catalog.restart().await,
            1 => world.all.shop.sales.restart().await,
            2 => world.all.skald.restart().await,
            _ => {
                if let Some(redis) = &mut world.redis {
                    redis.replace(world.folder.path()).await;
                }
                world.all.shop.orders.restart().await;
            }
        }
    }
    world.all.skald.all_settled(SETTLED_MAX).await;
    let checker = world.all.checker().await;
    checker.check();
    let ends = checker.ends();
    assert_eq!(ends.keys().map(String::as_str).collect::<Vec<_>>(), ["compensated", "completed"], "{ends:?}");
    assert_eq!(ends["compensated"], SAGAS / 5, "{ends:?}");
    assert_eq!(ends.values().sum::<usize>(), begun.len());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_participant_times_the_saga_out_then_parks_it_and_may_still_come_back(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut world = World::start(backend, Bus::Skald).await;
    let hasty = json!({
        "apiVersion": "skald/v1", "name": "hasty", "version": 1, "deadline": "2s",
        "steps": [
            {
                "id": "reserve",
                "call": {"service": "catalog", "method": "POST", "path": "/stock/reserve",
                         "body": {"order_id": "${saga.id}", "items": "${input.items}"}},
                "compensate": {"call": {"service": "catalog", "method": "POST", "path": "/stock/release",
                                        "body": {"order_id": "${saga.id}"}}},
            },
            {
                "id": "pay",
                "call": {"service": "sales", "method": "POST", "path": "/payments",
                         "body": {"order_id": "${saga.id}", "customer_id": "c-1", "amount": 1,
                                  "payment": {"method": "card", "token": "tok_ok"}}},
                "compensate": {"call": {"service": "sales", "method": "POST", "path": "/payments/refund",
                                        "body": {"order_id": "${saga.id}"}}},
            },
        ],
    });
    world.all.skald.register(&hasty).await;
    world.all.shop.sales.kill();
    let id = world.begin("hasty", "choreographed", &json!({"items": [{"product_id": "p-1", "quantity": 1}]})).await;
    let parked = world.all.skald.until_status(&id, "parked").await;
    assert_eq!(parked["failure"]["code"], "deadline_exceeded", "{parked}");
    let types = world.all.skald.event_types(&id).await;
    assert!(types.contains(&"SagaTimedOut".to_owned()), "{types:?}");
    world.all.shop.sales.restart().await;
    assert_eq!(world.all.skald.ended(&id).await["status"], "compensated");
    world.all.check().await;
}
