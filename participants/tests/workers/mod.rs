//! The workers, on a store in this process: what they make of the log, whatever the bus repeats and loses.

mod audit;
mod notification;
mod smtp_server;
mod views;

use std::{net::TcpListener, time::Duration};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use skald_participants::{SkaldOptions, Worker, WorkerKind, WorkerOptions};
use uuid::Uuid;

use crate::{
    redis_server::RedisServer,
    store::Store,
    support::{Answer, Backend, TestDatabase},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bus {
    Http,
    Redis,
}

/// A store, and a worker that lives on it.
struct Working {
    store: Store,
    worker: Worker,
    http: Client,
    database: TestDatabase,
    redis: Option<RedisServer>,
    smtp: Option<String>,
}

impl Working {
    async fn start(kind: WorkerKind, bus: Bus, backend: Backend, smtp: Option<String>) -> Self {
        let store = Store::start().await;
        let mut redis = None;
        if bus == Bus::Redis {
            let server = RedisServer::start().await;
            store.publish_to(&server.url()).await;
            redis = Some(server);
        }
        let database = TestDatabase::create(backend).await;
        let worker = begin(kind, &store, redis.as_ref(), &database, smtp.clone()).await;
        Self { store, worker, http: Client::new(), database, redis, smtp }
    }

    /// Ends the worker without grace and starts another one on the same database.
    async fn restart(self) -> Self {
        let Self { store, worker, http, database, redis, smtp } = self;
        let kind = worker.kind();
        drop(worker);
        let worker = begin(kind, &store, redis.as_ref(), &database, smtp.clone()).await;
        Self { store, worker, http, database, redis, smtp }
    }

    async fn send(&self, method: Method, path: &str) -> Answer {
        let url = format!("{}{path}", self.worker.base_url());
        Answer::read(self.http.request(method, url).send().await.unwrap()).await
    }

    async fn get(&self, path: &str) -> Value {
        self.send(Method::GET, path).await.assert_ok().clone()
    }

    /// The items of a list, of all its pages.
    async fn items(&self, path: &str) -> Vec<Value> {
        let join = if path.contains('?') { '&' } else { '?' };
        let mut items = Vec::new();
        let mut page = self.get(path).await;
        loop {
            items.extend(page["items"].as_array().unwrap().clone());
            let Some(cursor) = page["next_cursor"].as_str() else { return items };
            page = self.get(&format!("{path}{join}cursor={cursor}")).await;
        }
    }
}

async fn begin(
    kind: WorkerKind,
    store: &Store,
    redis: Option<&RedisServer>,
    database: &TestDatabase,
    smtp: Option<String>,
) -> Worker {
    // A workspace build gives the client TLS, which wants a provider also for plain HTTP.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let skald = SkaldOptions { lease: Duration::from_millis(500), ..SkaldOptions::new(&store.url) };
    let smtp = smtp.map(|url| skald_participants::SmtpOptions { url, from: "Shop <shop@example.org>".to_owned() });
    let options = WorkerOptions {
        listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        database_url: database.url.clone(),
        skald: SkaldOptions { bus: redis.map(RedisServer::url), ..skald },
        smtp,
        http_threads: 1,
    };
    Worker::start(kind, options).await.unwrap()
}

/// Puts the events of one saga into the log.
fn saga(store: &Store, definition: &str, events: &[(&str, &str, Value)]) -> Uuid {
    let saga = Uuid::now_v7();
    go_on(store, saga, definition, events);
    saga
}

fn go_on(store: &Store, saga: Uuid, definition: &str, events: &[(&str, &str, Value)]) {
    for (kind, type_name, data) in events {
        let stream = saga.to_string();
        let mut log = store.data();
        let version = log.streams.get(&stream).map_or(0, Vec::len) + 1;
        let event = json!({
            "id": format!("{stream}:{version}"), "kind": kind, "type": type_name, "definition": definition,
            "mode": "orchestrated", "correlationid": format!("corr-{stream}"), "data": data,
        });
        log.push(&stream, event);
    }
    store.inner.committed.send_modify(|commits| *commits += 1);
}

fn input(customer: &str, email: Option<&str>) -> Value {
    let mut input = json!({
        "customer_id": customer, "items": [{"product_id": "p-1", "quantity": 2}],
        "payment": {"method": "card", "token": "tok_ok"},
    });
    if let Some(email) = email {
        input["email"] = email.into();
    }
    json!({"input": input})
}

fn checkout(store: &Store, customer: &str, email: Option<&str>) -> Uuid {
    let output = json!({"step": "confirm_order", "output": null});
    let completed = json!({"output": {"total": 3998}});
    let events = [
        ("SagaStarted", "CheckoutInitiated", input(customer, email)),
        ("StepSucceeded", "OrderConfirmed", output),
        ("SagaCompleted", "CheckoutSucceeded", completed),
    ];
    saga(store, "checkout", &events)
}

fn failed_checkout(store: &Store, customer: &str, email: Option<&str>) -> Uuid {
    let failure = json!({"step": "confirm_order", "code": "customer_blocked", "reason": "c-9 may not order"});
    let events = [
        ("SagaStarted", "CheckoutInitiated", input(customer, email)),
        ("StepRejected", "OrderRejected", json!({"step": "confirm_order"})),
        ("SagaFailed", "SagaFailed", failure),
        ("StepCompensated", "PaymentRefunded", json!({"step": "process_payment"})),
        ("StepCompensated", "StockReleased", json!({"step": "reserve_stock"})),
        ("SagaCompensated", "CheckoutFailed", json!({})),
    ];
    saga(store, "checkout", &events)
}
