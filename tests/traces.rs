//! Spans, as a collector gets them: a saga's hang together, also through a kill of the process that ran it.

use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
};

use actix_web::{App, HttpResponse, HttpServer, web};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{Span, status::StatusCode},
};
use prost::Message as _;
use reqwest::Method;
use serde_json::json;

use crate::harness::{
    SOON, Sqlite, deployment, eventually, met,
    skald::participant,
    stub::{Reply, Stub},
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Takes OTLP over HTTP.
#[derive(Clone, Default)]
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there are free ports");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let collector = Self { url, ..Self::default() };
        let shared = collector.clone();
        let take = move |body: web::Bytes| {
            let request = ExportTraceServiceRequest::decode(body).expect("it is what OTLP says");
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            shared.spans.lock().expect("no test panics here").extend(scopes.flat_map(|scope| scope.spans));
            std::future::ready(HttpResponse::Ok().content_type("application/x-protobuf").finish())
        };
        let app = move || App::new().route("/v1/traces", web::post().to(take.clone()));
        tokio::spawn(HttpServer::new(app).workers(1).disable_signals().listen(listener).expect("it is bound").run());
        collector
    }

    fn named(&self, name: &str) -> Vec<Span> {
        let spans = self.spans.lock().expect("no test panics here");
        spans.iter().filter(|span| span.name == name).cloned().collect()
    }

    async fn until_named(&self, name: &str, count: usize) -> Vec<Span> {
        eventually(&format!("{count} spans `{name}`"), SOON, async || {
            met(self.named(name).len() >= count, || self.named(name).len().to_string())
        })
        .await;
        self.named(name)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sagas_spans_hang_together_through_a_kill_9() {
    let collector = Collector::start();
    // `second` refuses, but only after the process that called it first is gone.
    let service = Stub::start(|call| match (&*call.path, call.earlier) {
        ("/second", 0) => Reply::json(503, json!({})).header("retry-after", "2"),
        ("/second", _) => Reply::rejected("no_more"),
        _ => Reply::ok(),
    });
    let config = format!("{}[traces]\nendpoint = \"{}\"\n", participant("service", &service.url), collector.url);
    let mut alone = deployment::Alone::start_with(Sqlite, &config).await;
    let call = |path: &str| json!({"service": "service", "method": "POST", "path": path});
    alone
        .skald
        .register(&json!({
            "apiVersion": "skald/v1", "name": "pair", "version": 1,
            "steps": [
                {"id": "first", "call": call("/first"), "compensate": {"call": call("/undo")}},
                {"id": "second", "call": call("/second"), "effect": "none"},
            ],
        }))
        .await;
    let request = alone.skald.client.request(Method::POST, "/sagas/pair").json(&json!({}));
    let request = request.header("traceparent", PARENT).header("Prefer", "respond-async");
    let saga = alone.skald.client.send(request).await.expect("Skald answers").body;
    let id = saga["id"].as_str().expect("it has an id").to_owned();
    // Exported before the kill: spans of the last half second are lost with the process.
    let first = collector.until_named("first action", 1).await.remove(0);
    collector.until_named("second action", 1).await;
    alone.skald.restart().await;
    assert_eq!(alone.skald.ended(&id).await["status"], "compensated");

    let whole = collector.until_named("saga pair", 1).await.remove(0);
    let undone = collector.until_named("first compensation", 1).await.remove(0);
    let second = collector.until_named("second action", 2).await;
    assert_eq!(hex(&whole.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(hex(&whole.parent_span_id), "00f067aa0ba902b7");
    for span in [&first, &undone].into_iter().chain(&second) {
        assert_eq!((&span.trace_id, &span.parent_span_id), (&whole.trace_id, &whole.span_id), "{span:?}");
        assert!(whole.start_time_unix_nano <= span.start_time_unix_nano, "{span:?}");
        assert!(span.end_time_unix_nano <= whole.end_time_unix_nano, "{span:?}");
    }
    assert_eq!(undone.links.iter().map(|link| &link.span_id).collect::<Vec<_>>(), [&first.span_id]);
    let failed = |span: &Span| span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32);
    assert!(failed(&whole) && second.iter().all(failed) && !failed(&first));
    assert_ne!(second[0].span_id, second[1].span_id);

    // What the participant was told of is what the collector has.
    let told: Vec<String> =
        service.calls_to("/undo").iter().map(|call| call.header("traceparent").to_owned()).collect();
    assert_eq!(told, [format!("00-{}-{}-01", hex(&undone.trace_id), hex(&undone.span_id))]);
    let commits = collector.until_named("commit", 1).await;
    assert!(commits.iter().any(|commit| commit.links.iter().any(|link| link.span_id == whole.span_id)), "{commits:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_that_nobody_traces_has_none_at_ratio_0_and_one_of_its_own_at_1() {
    for (ratio, flag) in [("0.0", "00"), ("1.0", "01")] {
        let (collector, service) = (Collector::start(), Stub::start(|_| Reply::ok()));
        let traces = format!("[traces]\nendpoint = \"{}\"\nsample_ratio = {ratio}\n", collector.url);
        let config = participant("service", &service.url) + &traces;
        let alone = deployment::Alone::start_with(Sqlite, &config).await;
        let step =
            json!({"id": "only", "effect": "none", "call": {"service": "service", "method": "POST", "path": "/only"}});
        alone.skald.register(&json!({"apiVersion": "skald/v1", "name": "short", "version": 1, "steps": [step]})).await;
        let saga = alone.skald.run("short", &json!({})).await;
        let trace = saga["id"].as_str().expect("it has an id").replace('-', "");
        let told = service.calls()[0].header("traceparent").to_owned();
        assert!(told.starts_with(&format!("00-{trace}-")) && told.ends_with(flag), "{told}");
        let request = alone.skald.client.request(Method::POST, "/sagas/short").json(&json!({}));
        let traced = alone.skald.client.send(request.header("traceparent", PARENT)).await.expect("Skald answers");
        assert_eq!(traced.body["status"], "completed");
        collector.until_named("saga short", if ratio == "0.0" { 1 } else { 2 }).await;
        let own = collector.named("saga short").into_iter().filter(|span| hex(&span.trace_id) == trace).count();
        assert_eq!(own, usize::from(ratio == "1.0"));
    }
}
