//! A demo service with a database of its own, and calls of sagas to it over HTTP.

#![expect(clippy::unwrap_used, reason = "test support fails by panicking")]

#[path = "../../kit/tests/support/mod.rs"]
mod database;

use std::{net::TcpListener, time::Duration};

use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use skald_participants::{Kind, Service, ServiceOptions};
use uuid::Uuid;

pub use database::{Backend, TestDatabase};

pub struct Running {
    pub service: Service,
    pub http: Client,
    kind: Kind,
    database: TestDatabase,
    adapt: Adapt,
}

/// What a test wants otherwise.
type Adapt = Box<dyn Fn(&mut ServiceOptions) + Send>;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub retry_after: Option<String>,
    pub body: Value,
}

impl Answer {
    pub async fn read(response: Response) -> Self {
        let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (status, retry_after) = (response.status().as_u16(), header("retry-after"));
        let content_type = header("content-type").unwrap_or_default();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self { status, content_type, retry_after, body }
    }

    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Asserts a refusal for a reason of business.
    pub fn assert_rejected(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code()), (status, code), "{self:?}");
        assert_eq!(self.body["outcome"], "rejected");
        assert_eq!(self.content_type, "application/problem+json");
    }

    pub fn assert_ok(&self) -> &Value {
        assert_eq!(self.status, 200, "{self:?}");
        &self.body
    }
}

impl Running {
    pub async fn start(kind: Kind, backend: Backend) -> Self {
        Self::start_with(kind, backend, |_| {}).await
    }

    pub async fn start_with(
        kind: Kind,
        backend: Backend,
        adapt: impl Fn(&mut ServiceOptions) + Send + 'static,
    ) -> Self {
        Self::start_on(kind, TestDatabase::create(backend).await, Box::new(adapt)).await
    }

    pub async fn start_on(kind: Kind, database: TestDatabase, adapt: Adapt) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut options = ServiceOptions::new(listener, database.url.clone());
        adapt(&mut options);
        let service = Service::start(kind, options).await.unwrap();
        // A workspace build gives the client TLS, which wants a provider also for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { service, http: Client::new(), kind, database, adapt }
    }

    /// Ends it without grace and starts another one on the same database.
    pub async fn restart(self) -> Self {
        let Self { service, kind, database, adapt, .. } = self;
        drop(service);
        Self::start_on(kind, database, adapt).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.service.base_url())
    }

    /// Calls the action of a saga's step; the connection may break.
    pub async fn try_act(&self, call: &Call) -> reqwest::Result<Answer> {
        let key = format!("\"{}:{}:action\"", call.saga, call.step);
        let request = self.http.request(call.method.clone(), self.url(&call.path)).header("Idempotency-Key", key);
        let request = match &call.deadline {
            Some(deadline) => request.header("Saga-Deadline", deadline),
            None => request,
        };
        Ok(Answer::read(request.json(&call.body).send().await?).await)
    }

    pub async fn act(&self, call: &Call) -> Answer {
        self.try_act(call).await.unwrap()
    }

    /// Calls the compensation of a saga's step.
    pub async fn undo(&self, call: &Call) -> Answer {
        let key = format!("\"{}:{}:compensation\"", call.saga, call.step);
        let action = format!("\"{}:{}:action\"", call.saga, call.step);
        let request = self.http.request(call.method.clone(), self.url(&call.path)).header("Idempotency-Key", key);
        let request = request.header("Saga-Compensates", action).header("Saga-Outcome", "succeeded");
        Answer::read(request.json(&call.body).send().await.unwrap()).await
    }

    /// A call that belongs to no saga.
    pub async fn send(&self, method: Method, path: &str, body: &str) -> Answer {
        let request = self.http.request(method, self.url(path)).body(body.to_owned());
        Answer::read(request.send().await.unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.send(Method::GET, path, "").await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }

    /// The effects of a saga, as "operation effect".
    pub async fn effects(&self, saga: Uuid) -> Vec<String> {
        let ledger = self.get(&format!("/ledger?saga_id={saga}")).await;
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
        let entries = ledger["items"].as_array().unwrap().iter();
        entries.map(|entry| format!("{} {}", text(entry, "operation"), text(entry, "effect"))).collect()
    }

    /// What a store has of a product: available, reserved, sold. Checks invariant 1 on all stock.
    pub async fn stock(&self, store: &str, product: &str) -> (i64, i64, i64) {
        let list = self.get("/stock?limit=250").await;
        let mut found = None;
        for shelf in list["items"].as_array().unwrap() {
            let count = |name: &str| shelf[name].as_i64().unwrap();
            let counts = (count("available"), count("reserved"), count("sold"));
            assert_eq!(count("initial"), counts.0 + counts.1 + counts.2, "invariant 1: {shelf}");
            assert!(counts.0 >= 0 && counts.1 >= 0 && counts.2 >= 0, "invariant 1: {shelf}");
            if shelf["store_id"] == store && shelf["product_id"] == product {
                found = Some(counts);
            }
        }
        found.unwrap()
    }

    pub async fn set_faults(&self, settings: Value) {
        let answer = self.send(Method::PUT, "/faults", &settings.to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// A call of a saga's step.
#[derive(Debug, Clone)]
pub struct Call {
    pub saga: Uuid,
    pub step: &'static str,
    pub method: Method,
    pub path: String,
    pub body: Value,
    pub deadline: Option<String>,
}

impl Call {
    pub fn new(saga: Uuid, step: &'static str, path: impl Into<String>, body: Value) -> Self {
        Self { saga, step, method: Method::POST, path: path.into(), body, deadline: None }
    }

    pub fn put(saga: Uuid, step: &'static str, path: impl Into<String>, body: Value) -> Self {
        Self { method: Method::PUT, ..Self::new(saga, step, path, body) }
    }

    /// A call whose body is the order alone.
    pub fn of_order(saga: Uuid, step: &'static str, path: &str) -> Self {
        Self::new(saga, step, path, json!({"order_id": saga}))
    }
}

/// Waits until `condition` gives something.
pub async fn eventually<T>(what: &str, condition: impl AsyncFn() -> Option<T>) -> T {
    let waiting = async {
        let mut look = tokio::time::interval(Duration::from_millis(10));
        loop {
            look.tick().await;
            if let Some(found) = condition().await {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never: {what}"))
}
