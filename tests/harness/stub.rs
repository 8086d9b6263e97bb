//! A participant whose answers a test writes: a function from the call to the reply. It remembers the calls.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::ServerHandle,
    http::StatusCode,
    web::{self, Bytes},
};
use serde_json::{Value, json};

/// A call as it arrived.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    pub path: String,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Value,
    /// How many calls with the same method and path came before it.
    pub earlier: usize,
}

/// What to answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Value,
    pub delay: Duration,
}

type Script = dyn Fn(&Call) -> Reply + Send + Sync;

/// Stops when dropped.
#[derive(Debug)]
pub struct Stub {
    pub url: String,
    calls: Arc<Mutex<Vec<Call>>>,
    server: ServerHandle,
}

struct Shared {
    calls: Arc<Mutex<Vec<Call>>>,
    script: Box<Script>,
}

impl Call {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

impl Reply {
    pub fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body, delay: Duration::ZERO }
    }

    pub fn ok() -> Self {
        Self::json(200, json!({}))
    }

    pub fn rejected(code: &str) -> Self {
        let body = json!({"status": 422, "title": "Refused", "code": code, "detail": "the script says so"});
        Self::json(422, body).header("content-type", "application/problem+json")
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

impl Stub {
    pub fn start(script: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there are free ports");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let calls = Arc::new(Mutex::new(Vec::new()));
        let shared = web::Data::new(Shared { calls: Arc::clone(&calls), script: Box::new(script) });
        let app = move || App::new().app_data(shared.clone()).default_service(web::to(answer));
        let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).expect("it is bound").run();
        let handle = server.handle();
        tokio::spawn(server);
        Self { url, calls, server: handle }
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("nothing panics while it holds this lock").clone()
    }

    /// Calls to a path, in the order they came.
    pub fn calls_to(&self, path: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.path == path).collect()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        // The command is sent by the call; its end need not be awaited.
        drop(self.server.stop(false));
    }
}

async fn answer(request: HttpRequest, body: Bytes, shared: web::Data<Shared>) -> HttpResponse {
    let text = |(name, value): (&actix_web::http::header::HeaderName, &actix_web::http::header::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let call = {
        let mut calls = shared.calls.lock().expect("nothing panics while it holds this lock");
        let (method, path) = (request.method().as_str(), request.path());
        let earlier = calls.iter().filter(|call| call.method == method && call.path == path).count();
        let call = Call {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: request.headers().iter().map(text).collect(),
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
            earlier,
        };
        calls.push(call.clone());
        call
    };
    let reply = (shared.script)(&call);
    tokio::time::sleep(reply.delay).await;
    let mut response = HttpResponse::build(StatusCode::from_u16(reply.status).expect("the script knows HTTP"));
    if !reply.headers.iter().any(|(name, _)| *name == "content-type") {
        response.content_type("application/json");
    }
    for (name, value) in reply.headers {
        response.insert_header((name, value));
    }
    if reply.body.is_null() { response.finish() } else { response.body(reply.body.to_string()) }
}
