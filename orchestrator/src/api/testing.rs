//! A real server on a free port, with the real engine, a store in memory and participants that do as they are told.

mod guarded;

use std::{
    collections::HashMap,
    net::TcpListener,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use actix_web::dev::ServerHandle;
use futures_util::future::BoxFuture;
use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use skald_core::{
    classify::{Answer, Body, CallReport, CallResult},
    decide::Invoke,
    shard::writer::Limits,
    time::{Millis, Timestamp},
};
use tempfile::TempDir;
use tokio::sync::watch;

pub use self::guarded::{add_key, key_of};
use crate::{
    app::{App, AppParts, Gate, ParticipantHealth, ServeOptions, serve},
    clock::Clock,
    config::Access,
    dispatch::{CallbackTokens, Participants, Term},
    engine::{Engine, Parts, definitions::Definitions},
    metrics::Metrics,
    personal::{SealedCalls, Sealing},
    spans::Spans,
    storage::{Owner, SqliteStore, Store, StoreOptions, memory::MemoryStore},
    webhooks::{guard::Guard, registry::Registry},
};

const LEASE: Millis = Millis(5000);
pub const PATIENCE: Duration = Duration::from_secs(3);
const SERVICES: [&str; 3] = ["catalog", "orders", "sales"];

/// One step that can be undone; its input is any object.
const NOTE: &str = r#"
apiVersion: skald/v1
name: note
version: 1
input: { schema: { type: object } }
steps:
  - id: write
    call: { service: catalog, method: POST, path: /notes, body: "${input}" }
    retry: { max_attempts: 2, initial: 1ms, max: 1ms }
    compensate:
      call: { service: catalog, method: POST, path: /notes/erase, body: {} }
      retry: { max_attempts: 1, initial: 1ms, max: 1ms }
  - id: publish
    call: { service: sales, method: POST, path: /notes/publish, body: {} }
    retry: { max_attempts: 1, initial: 1ms, max: 1ms }
    compensate:
      call: { service: sales, method: POST, path: /notes/withdraw, body: {} }
      retry: { max_attempts: 1, initial: 1ms, max: 1ms }
output: { id: "${saga.id}" }
"#;

#[derive(Debug)]
pub struct WallClock;

impl Clock for WallClock {
    #[expect(clippy::disallowed_methods, reason = "the store in memory has no other clock")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap())
    }
}

/// Participants that answer every call with 200, unless told otherwise for a step and operation.
#[derive(Debug)]
pub struct Scripted {
    answers: Mutex<HashMap<String, CallResult>>,
    held: watch::Sender<Vec<String>>,
    paused: Mutex<Vec<String>>,
    pub calls: Mutex<Vec<Invoke>>,
}

impl Default for Scripted {
    fn default() -> Self {
        let held = watch::channel(Vec::new()).0;
        Self { answers: Mutex::default(), held, paused: Mutex::default(), calls: Mutex::default() }
    }
}

pub fn answered(status: u16, body: Value) -> CallResult {
    CallResult::Answered(Answer { status, retry_after: None, location: None, body: Body::Json(body) })
}

impl Scripted {
    /// `call` is `step:operation`.
    pub fn answer(&self, call: &str, result: CallResult) {
        self.answers.lock().unwrap().insert(call.to_owned(), result);
    }

    /// Calls do not return until [`Scripted::release`].
    pub fn hold(&self, call: &str) {
        self.held.send_modify(|held| held.push(call.to_owned()));
    }

    pub fn release(&self, call: &str) {
        self.held.send_modify(|held| held.retain(|other| other != call));
    }

    async fn make(&self, invoke: &Invoke) -> CallReport {
        let call = format!("{}:{}", invoke.step, invoke.operation);
        let started_at = WallClock.now();
        self.calls.lock().unwrap().push(invoke.clone());
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held.contains(&call)).await.unwrap();
        let scripted = self.answers.lock().unwrap().get(&call).cloned();
        let result = scripted.unwrap_or_else(|| answered(200, json!({"total": 100})));
        CallReport { started_at, duration: Millis(3), result }
    }
}

impl Participants for Scripted {
    fn call<'a>(&'a self, invoke: &'a Invoke, _: &'a Term) -> BoxFuture<'a, CallReport> {
        Box::pin(self.make(invoke))
    }
}

impl Gate for Scripted {
    fn pause(&self, name: &str) -> bool {
        let mut paused = self.paused.lock().unwrap();
        if !paused.iter().any(|other| other == name) {
            paused.push(name.to_owned());
        }
        SERVICES.contains(&name)
    }

    fn resume(&self, name: &str) -> bool {
        self.paused.lock().unwrap().retain(|other| other != name);
        SERVICES.contains(&name)
    }

    fn health(&self) -> Vec<ParticipantHealth> {
        let paused = self.paused.lock().unwrap().clone();
        let health = |name: &str| ParticipantHealth {
            name: name.to_owned(),
            circuit: "closed",
            paused: paused.iter().any(|other| other == name),
            in_flight: 0,
            waiting: 0,
        };
        SERVICES.map(health).to_vec()
    }
}

/// An answer of the server.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// Null when the text is not JSON.
    pub body: Value,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn id(&self) -> &str {
        self.body["id"].as_str().unwrap()
    }

    /// Asserts that this is a whole problem with this code, and returns its text.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> &str {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["correlation_id"].as_str(), Some(self.header("x-correlation-id")));
        for name in ["type", "title", "detail"] {
            assert!(self.body[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {}", self.text);
        }
        &self.text
    }
}

/// `S` is where sagas are kept.
pub struct TestServer<S = MemoryStore> {
    pub base: String,
    pub app: Arc<App>,
    pub store: Arc<S>,
    pub participants: Arc<Scripted>,
    pub tokens: CallbackTokens,
    client: reqwest::Client,
    handle: ServerHandle,
    _folder: TempDir,
}

impl TestServer<SqliteStore> {
    /// With a database that has a log to read and consumer groups.
    pub async fn logged() -> Self {
        let (log, folder) = sqlite().await;
        Self::over(Arc::clone(&log), log, folder, (1000, 1000), Access::default()).await
    }
}

/// An embedded database of its own.
async fn sqlite() -> (Arc<SqliteStore>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("skald.db").display());
    let store = SqliteStore::open(&url, &StoreOptions { readers: 2, shards: 1, lease: LEASE }).await.unwrap();
    store.migrate().await.unwrap();
    (Arc::new(store), folder)
}

impl TestServer {
    pub async fn start() -> Self {
        Self::with_limits(1000, 1000).await
    }

    pub async fn with_limits(resident_max: usize, queue_max: usize) -> Self {
        let store = Arc::new(MemoryStore::new(Arc::new(WallClock), 2));
        Self::on(store, resident_max, queue_max).await
    }

    /// With one shard only, so that a second replica on its store has none.
    pub async fn with_one_shard() -> Self {
        Self::on(Arc::new(MemoryStore::new(Arc::new(WallClock), 1)), 1000, 1000).await
    }

    /// Two replicas on one store with one shard: the first owns it, the second owns nothing.
    pub async fn pair() -> (Self, Self) {
        let owner = Self::with_one_shard().await;
        let other = Self::on(Arc::clone(&owner.store), 1000, 1000).await;
        (owner, other)
    }

    /// A replica on this store. The log that it reads is another's, and empty.
    pub async fn on(store: Arc<MemoryStore>, resident_max: usize, queue_max: usize) -> Self {
        let (log, folder) = sqlite().await;
        Self::over(store, log, folder, (resident_max, queue_max), Access::default()).await
    }
}

impl<S: Store> TestServer<S> {
    async fn over(
        store: Arc<S>,
        log: Arc<SqliteStore>,
        folder: TempDir,
        (resident_max, queue_max): (usize, usize),
        access: Access,
    ) -> Self {
        let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_test_writer().try_init();
        let clock: Arc<dyn Clock> = Arc::new(WallClock);
        let participants = Arc::new(Scripted::default());
        let services = SERVICES.map(str::to_owned).to_vec();
        let definitions =
            Arc::new(Definitions::new(Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&clock), services));
        definitions.register(include_str!("../../../definitions/checkout.yaml")).await.unwrap();
        definitions.register(NOTE).await.unwrap();
        let metrics = Arc::new(Metrics::new());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let owner = Owner { id: uuid::Uuid::new_v4().to_string(), url: Some(base.clone()) };
        let shards = u16::try_from(store.shards().await.unwrap().len()).unwrap();
        let limits = Limits {
            shards,
            resident_max,
            batch_max: 100,
            queue_max,
            load_max: 10,
            idle_max: Millis(1000),
            recovery_ramp: Millis(0),
            takeovers_max: 3,
        };
        let sealing = Arc::new(Sealing::new(Arc::clone(&store) as Arc<dyn Store>, &[7; 32]));
        let calls: Arc<dyn Participants> = Arc::clone(&participants) as Arc<dyn Participants>;
        let calls = SealedCalls::new(calls, Arc::clone(&sealing), Arc::clone(&clock));
        let engine = Engine::run(Parts {
            store: Arc::clone(&store) as Arc<dyn Store>,
            participants: Arc::new(calls),
            clock: Arc::clone(&clock),
            definitions: Arc::clone(&definitions),
            metrics: Arc::clone(&metrics),
            owner: owner.clone(),
            spans: Spans::default(),
            limits,
            lease: LEASE,
            grace: Millis(5000),
            requests_max: 1000,
        });
        let tokens = CallbackTokens::new(b"secret");
        let app = App::open(AppParts {
            engine,
            store: Arc::clone(&store) as Arc<dyn Store>,
            log: Arc::clone(&log) as _,
            groups: Arc::clone(&log) as _,
            webhooks: Arc::new(Registry::new(
                Arc::clone(&log) as _,
                Arc::clone(&log) as _,
                [7; 32],
                Guard { private: true },
            )),
            retention: log,
            bus: None,
            definitions,
            metrics,
            clock,
            tokens: tokens.clone(),
            sealing,
            gate: Arc::clone(&participants) as Arc<dyn Gate>,
            owner,
            lease: LEASE,
            patience: PATIENCE,
            shards,
            secret: [7; 32],
            access: access.clone(),
            body_bytes_max: 1024 * 1024,
            wait: Duration::from_secs(10),
        })
        .await
        .unwrap();
        let options = ServeOptions {
            workers: 1,
            connections_max: 2000,
            stop_grace: Duration::from_secs(1),
            tls: None,
            cors_origins: access.cors_origins.clone(),
        };
        let server = serve(listener, Arc::clone(&app), options).unwrap();
        let handle = server.handle();
        tokio::spawn(server);
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let server = Self { base, app, store, participants, tokens, client, handle, _folder: folder };
        server.until_it_owns_shards().await;
        server
    }

    async fn until_it_owns_shards(&self) {
        let free = self.store.shards().await.unwrap().iter().any(|row| row.owner.is_none());
        let owns = || self.app.engine().health().load.shards > 0;
        while free && !owns() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub async fn send(&self, request: RequestBuilder) -> Reply {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Reply { status, headers, text, body }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// As an operator.
    pub async fn act(&self, path: &str, mut body: Value) -> Reply {
        let fields = body.as_object_mut().unwrap();
        fields.entry("reason").or_insert_with(|| json!("a test"));
        fields.entry("actor").or_insert_with(|| json!("tester"));
        self.post(path, &body).await
    }

    /// Starts a saga of `note` without waiting for it.
    pub async fn start_note(&self) -> String {
        let request = self.request(Method::POST, "/sagas/note").header("Prefer", "respond-async").json(&json!({}));
        let reply = self.send(request).await;
        assert!(matches!(reply.status, 201 | 202), "{}", reply.text);
        reply.id().to_owned()
    }

    /// The saga, once it has this status.
    pub async fn until(&self, id: &str, status: &str) -> Reply {
        for _ in 0..2000 {
            let reply = self.get(&format!("/sagas/{id}")).await;
            if reply.body["status"] == status {
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("{id} never became {status}: {}", self.get(&format!("/sagas/{id}")).await.text);
    }

    /// As the service stops.
    pub async fn stop(&self) {
        self.app.close();
        tokio::join!(self.handle.stop(true), self.app.engine().stop(Duration::from_millis(100)));
    }
}

impl<S> Drop for TestServer<S> {
    fn drop(&mut self) {
        self.app.close();
        // Not awaited: the runtime of the test ends it.
        drop(self.handle.stop(false));
    }
}
