//! Spans for OpenTelemetry: one per saga, per attempt of a call, and per commit.
//!
//! A saga's span is written when it ends, by whichever replica commits that; its id follows from the saga's, and so does that of
//! an attempt. So all that belongs to a saga hangs together through restarts and takeovers, with nothing to remember but the
//! `traceparent` that its first event holds. The trace is that of whoever started the saga, else one of its own whose id is the
//! saga's. Attempts are children of the saga; a compensation's are linked to the first attempt of what they undo; a commit is
//! linked to the sagas in it.
//!
//! Nothing waits for spans: what the collector does not take in time is dropped and counted.

mod export;

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{Link, SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use sha2::{Digest as _, Sha256};
use skald_core::{
    decide::{Invoke, Purpose},
    ids::{Operation, SagaId},
    state::{SagaRow, Status as SagaStatus},
    time::Timestamp,
};
use tokio::sync::mpsc;

pub use self::export::Exporting;
use crate::{config, dispatch::TraceParent, metrics::Metrics};

/// Sagas that a commit is linked to, at most.
pub const LINKS_MAX: usize = 64;

/// Where spans go, if anywhere. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Spans(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    sender: mpsc::Sender<SpanData>,
    metrics: Arc<Metrics>,
    /// Of the sagas that nobody's trace asks for.
    ratio: f64,
    scope: InstrumentationScope,
}

/// What a span says, beyond who it is.
struct Told {
    name: Cow<'static, str>,
    kind: SpanKind,
    begun: Timestamp,
    took: Duration,
    attributes: Vec<KeyValue>,
    links: Vec<SpanContext>,
    status: Status,
}

/// An attempt that ended.
#[derive(Debug)]
pub struct Attempted<'a> {
    pub invoke: &'a Invoke,
    pub trace: &'a TraceParent,
    pub begun: Timestamp,
    pub took: Duration,
    pub http_status: Option<u16>,
    pub error: Option<String>,
}

impl Spans {
    /// Sends to the collector that the configuration names; nowhere if it names none.
    ///
    /// # Errors
    ///
    /// When the collector's address cannot be used.
    pub fn open(config: &config::Traces, replica: &str, metrics: &Arc<Metrics>) -> anyhow::Result<(Self, Exporting)> {
        let Some(endpoint) = &config.endpoint else { return Ok((Self::default(), Exporting::default())) };
        let (sender, exporting) = export::start(endpoint, replica, Arc::clone(metrics))?;
        let scope = InstrumentationScope::builder("skald").with_version(env!("CARGO_PKG_VERSION")).build();
        let shared = Shared { sender, metrics: Arc::clone(metrics), ratio: config.sample_ratio, scope };
        Ok((Self(Some(Arc::new(shared))), exporting))
    }

    /// The trace context that a call carries.
    #[must_use]
    pub fn of_call(&self, invoke: &Invoke) -> TraceParent {
        let parent = invoke.traceparent.as_deref();
        let Some(shared) = &self.0 else { return TraceParent::child(parent, invoke.saga, rand::random()) };
        let span = match invoke.purpose {
            Purpose::Attempt => attempt_id(invoke.saga, &invoke.step, invoke.operation, invoke.attempt),
            Purpose::Poll | Purpose::Status => rand::random(),
        };
        shared.context(parent, invoke.saga, span)
    }

    pub fn attempted(&self, attempted: Attempted<'_>) {
        let Some(shared) = self.0.as_ref().filter(|_| attempted.trace.is_sampled()) else { return };
        let Attempted { invoke, trace, begun, took, http_status, error } = attempted;
        let purpose = match invoke.purpose {
            Purpose::Attempt => invoke.operation.as_str(),
            Purpose::Poll => "poll",
            Purpose::Status => "status",
        };
        let mut attributes = vec![
            KeyValue::new("saga.id", invoke.saga.to_string()),
            KeyValue::new("saga.definition", Arc::clone(&invoke.definition)),
            KeyValue::new("saga.step", Arc::clone(&invoke.step)),
            KeyValue::new("saga.operation", invoke.operation.as_str()),
            KeyValue::new("saga.attempt", i64::from(invoke.attempt)),
            KeyValue::new("saga.correlation_id", Arc::clone(&invoke.correlation_id)),
            KeyValue::new("service.peer.name", invoke.service.clone()),
        ];
        attributes.extend(http_status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
        let undone = (invoke.operation == Operation::Compensation).then(|| {
            let action = attempt_id(invoke.saga, &invoke.step, Operation::Action, 1);
            shared.context(invoke.traceparent.as_deref(), invoke.saga, action).into()
        });
        let told = Told {
            name: format!("{} {purpose}", invoke.step).into(),
            kind: SpanKind::Client,
            begun,
            took,
            attributes,
            links: undone.into_iter().collect(),
            status: error.map_or(Status::Unset, Status::error),
        };
        shared.send(trace.into(), SpanId::from(saga_span(invoke.saga)), false, told);
    }

    /// A saga ended. `parent`: the `traceparent` of whoever started it.
    pub fn ended(&self, row: &SagaRow, parent: Option<&str>) {
        let Some(shared) = &self.0 else { return };
        let context = shared.context(parent, row.id, saga_span(row.id));
        if !context.is_sampled() {
            return;
        }
        let attributes = vec![
            KeyValue::new("saga.id", row.id.to_string()),
            KeyValue::new("saga.definition", Arc::clone(&row.definition)),
            KeyValue::new("saga.definition.version", i64::from(row.definition_version)),
            KeyValue::new("saga.mode", row.mode.as_str()),
            KeyValue::new("saga.status", row.status.as_str()),
            KeyValue::new("saga.correlation_id", Arc::clone(&row.correlation_id)),
        ];
        let status = match (row.status, &row.failure) {
            (SagaStatus::Completed, _) => Status::Ok,
            (_, Some(failure)) => Status::error(failure.code.clone()),
            (_, None) => Status::error(row.status.as_str()),
        };
        let told = Told {
            name: format!("saga {}", row.definition).into(),
            kind: SpanKind::Server,
            begun: row.created_at,
            took: between(row.created_at, row.ended_at.unwrap_or(row.updated_at)),
            attributes,
            links: Vec::new(),
            status,
        };
        let caller = parent.and_then(TraceParent::span_of).map_or(SpanId::INVALID, SpanId::from);
        shared.send(context.into(), caller, true, told);
    }

    /// The context of a saga, for the commit that it is in.
    #[must_use]
    pub fn of_saga(&self, saga: SagaId, parent: Option<&str>) -> Option<SpanContext> {
        let shared = self.0.as_ref()?;
        let context = shared.context(parent, saga, saga_span(saga));
        context.is_sampled().then(|| (&context).into())
    }

    /// A commit of so many transitions ended well; with at least one of these sagas somebody follows the trace.
    pub fn committed(&self, begun: Timestamp, took: Duration, transitions: usize, links: Vec<SpanContext>) {
        let Some(shared) = self.0.as_ref().filter(|_| !links.is_empty()) else { return };
        let context = SpanContext::new(
            TraceId::from(rand::random::<u128>().max(1)),
            SpanId::from(rand::random::<u64>().max(1)),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        );
        let attributes =
            vec![KeyValue::new("skald.commit.transitions", i64::try_from(transitions).unwrap_or(i64::MAX))];
        let (kind, status) = (SpanKind::Internal, Status::Unset);
        let told = Told { name: "commit".into(), kind, begun, took, attributes, links, status };
        shared.send(context, SpanId::INVALID, false, told);
    }
}

impl Shared {
    fn context(&self, parent: Option<&str>, saga: SagaId, span: u64) -> TraceParent {
        let context = TraceParent::child(parent, saga, span);
        match parent.and_then(TraceParent::span_of) {
            Some(_) => context,
            None => context.sampled(self.takes(saga)),
        }
    }

    /// The same on every replica.
    fn takes(&self, saga: SagaId) -> bool {
        let random = u64::from_be_bytes(digest(&[saga.as_uuid().as_bytes(), b"sample"]));
        (random as f64) < self.ratio * (u64::MAX as f64)
    }

    fn send(&self, span_context: SpanContext, parent_span_id: SpanId, parent_span_is_remote: bool, told: Told) {
        let Told { name, kind, begun, took, attributes, links, status } = told;
        let start_time = system_time(begun);
        let mut span_links = SpanLinks::default();
        span_links.links = links.into_iter().map(Link::with_context).collect();
        let span = SpanData {
            span_context,
            parent_span_id,
            parent_span_is_remote,
            span_kind: kind,
            name,
            start_time,
            end_time: start_time + took,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: span_links,
            status,
            instrumentation_scope: self.scope.clone(),
        };
        if self.sender.try_send(span).is_err() {
            self.metrics.spans.dropped(1);
        }
    }
}

impl From<&TraceParent> for SpanContext {
    fn from(context: &TraceParent) -> Self {
        let flags = if context.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        let trace = TraceId::from_hex(context.trace_id()).unwrap_or(TraceId::INVALID);
        let span = TraceParent::span_of(context.as_str()).map_or(SpanId::INVALID, SpanId::from);
        Self::new(trace, span, flags, false, TraceState::NONE)
    }
}

impl From<TraceParent> for SpanContext {
    fn from(context: TraceParent) -> Self {
        (&context).into()
    }
}

/// How long it was from one moment to the next.
#[must_use]
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(to.as_micros() - from.as_micros()).unwrap_or(0))
}

fn system_time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(at.as_micros()).unwrap_or(0))
}

fn saga_span(saga: SagaId) -> u64 {
    u64::from_be_bytes(digest(&[saga.as_uuid().as_bytes()])).max(1)
}

fn attempt_id(saga: SagaId, step: &str, operation: Operation, attempt: u32) -> u64 {
    let (saga, attempt) = (saga.as_uuid(), attempt.to_be_bytes());
    let parts = [saga.as_bytes(), step.as_bytes(), operation.as_str().as_bytes(), &attempt];
    u64::from_be_bytes(digest(&parts)).max(1)
}

fn digest(parts: &[&[u8]]) -> [u8; 8] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
        digest.update([0]);
    }
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest.finalize()[..8]);
    bytes
}
