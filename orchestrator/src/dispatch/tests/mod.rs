//! The dispatcher against real sockets.

mod answers;
mod arbitrary;
mod failures;
mod limits;
mod requests;
mod server;

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use skald_core::{
    classify::{CallReport, CallResult},
    decide::{Invoke, Purpose, Target},
    definition::Method,
    ids::Operation,
    time::{Millis, Timestamp},
};

use self::server::Server;
use super::{CallbackTokens, Context, HttpParticipants, Lease, Participants, Term};
use crate::{clock::Clock, config, metrics::Metrics, spans::Spans};

const SAGA: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_123_456);

/// Always the same time.
#[derive(Debug)]
struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        NOW
    }
}

/// Long enough that a slow machine does not reach it.
const LONG: Millis = Millis(60_000);
/// For tests that wait until it has passed.
const SHORT: Millis = Millis(150);

fn settings(base_url: impl Into<String>) -> config::Participant {
    config::Participant { base_url: Some(base_url.into()), timeout: LONG, max_wait: LONG, ..Default::default() }
}

fn dispatcher(settings: config::Participant) -> HttpParticipants {
    dispatcher_with(settings, &Metrics::new())
}

fn dispatcher_with(settings: config::Participant, metrics: &Metrics) -> HttpParticipants {
    let participants = BTreeMap::from([("sales".to_owned(), settings)]);
    let (tokens, spans) = (CallbackTokens::new(b"secret"), Spans::default());
    let context = Context { clock: Arc::new(StoppedClock), tokens, spans };
    HttpParticipants::new(&participants, context, metrics).unwrap()
}

fn post(path: &str) -> Invoke {
    Invoke {
        saga: SAGA.parse().unwrap(),
        definition: "checkout".into(),
        step: "pay".into(),
        operation: Operation::Action,
        purpose: Purpose::Attempt,
        call: 7,
        attempt: 2,
        key: format!("{SAGA}:pay:action"),
        service: "sales".to_owned(),
        target: Target {
            method: Method::Post,
            path: path.to_owned(),
            headers: Vec::new(),
            body: Some(r#"{"amount":5}"#.to_owned()),
        },
        timeout: LONG,
        deadline_at: None,
        compensates: None,
        correlation_id: "corr-1".into(),
        traceparent: None,
        sealed: None,
    }
}

fn get(path: &str) -> Invoke {
    Invoke {
        target: Target { method: Method::Get, path: path.to_owned(), headers: Vec::new(), body: None },
        ..post(path)
    }
}

/// A term that outlasts the test.
fn term() -> Term {
    static LEASE: LazyLock<Lease> = LazyLock::new(|| Lease::until(Instant::now() + Duration::from_secs(24 * 3600)));
    LEASE.term()
}

/// One call to a server.
async fn call(server: &Server, invoke: &Invoke) -> CallReport {
    dispatcher(settings(server.url())).call(invoke, &term()).await
}

fn maybe_sent(report: &CallReport) -> &str {
    match &report.result {
        CallResult::MaybeSent { error } => error,
        other => panic!("{other:?}"),
    }
}

fn not_sent(report: &CallReport) -> &str {
    match &report.result {
        CallResult::NotSent { error } => error,
        other => panic!("{other:?}"),
    }
}

/// Why, and for how long from now.
fn deferred(report: &CallReport) -> (&str, Millis) {
    match &report.result {
        CallResult::Deferred { until, why } => (why, NOW.until(*until)),
        other => panic!("{other:?}"),
    }
}
