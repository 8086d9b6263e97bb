//! The metrics of a demo service, all of them.

use std::time::Duration;

use chrono::Utc;
use prometheus::{Encoder, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};
use skald_kit::{Observer, bus::Settled, events::Event, outbox::Outgoing};

/// One registry per service, so that several can live in one process. Cloning gives another handle on the same metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    calls: IntCounterVec,
    call_duration: HistogramVec,
    faults: IntCounterVec,
    expired_holds: IntCounterVec,
    published: IntCounterVec,
    consumed: IntCounterVec,
    latency: HistogramVec,
}

/// From a commit at the store to the end of its handling; a choreographed step should take a few milliseconds.
const LATENCY_BUCKETS_S: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

impl Metrics {
    pub(crate) fn new(service: &'static str) -> Result<Self, prometheus::Error> {
        let labelled = |name: &str, help: &str| Opts::new(name, help).const_label("service", service);
        let calls = IntCounterVec::new(
            labelled("participant_calls_total", "Calls of sagas, by operation and HTTP status"),
            &["operation", "status"],
        )?;
        let duration = labelled("participant_call_duration_seconds", "From a call's last byte to its answer");
        let call_duration = HistogramVec::new(HistogramOpts::from(duration), &["operation"])?;
        let faults = IntCounterVec::new(
            labelled("participant_faults_total", "Faults made on purpose"),
            &["operation", "fault"],
        )?;
        let expired_holds = IntCounterVec::new(
            labelled("participant_expired_holds_total", "Holds of stock freed because they expired"),
            &[],
        )?;
        let published = IntCounterVec::new(
            labelled("events_published_total", "Events that the event store has from this service's outbox"),
            &["mode", "replayed"],
        )?;
        let consumed = IntCounterVec::new(
            labelled("events_consumed_total", "Events that a consumer of this service is through with"),
            &["consumer", "mode", "result"],
        )?;
        let latency = labelled("event_latency_seconds", "From an event's commit until it was handled here");
        let latency = HistogramOpts::from(latency).buckets(LATENCY_BUCKETS_S.to_vec());
        let latency = HistogramVec::new(latency, &["consumer", "mode"])?;
        let registry = Registry::new();
        registry.register(Box::new(published.clone()))?;
        registry.register(Box::new(consumed.clone()))?;
        registry.register(Box::new(latency.clone()))?;
        registry.register(Box::new(calls.clone()))?;
        registry.register(Box::new(call_duration.clone()))?;
        registry.register(Box::new(faults.clone()))?;
        registry.register(Box::new(expired_holds.clone()))?;
        Ok(Self { registry, calls, call_duration, faults, expired_holds, published, consumed, latency })
    }

    pub(crate) fn called(&self, operation: &str, status: u16, took: Duration) {
        self.calls.with_label_values(&[operation, &status.to_string()]).inc();
        self.call_duration.with_label_values(&[operation]).observe(took.as_secs_f64());
    }

    pub(crate) fn fault(&self, operation: &str, fault: &str) {
        self.faults.with_label_values(&[operation, fault]).inc();
    }

    pub(crate) fn holds_expired(&self, count: u64) {
        self.expired_holds.with_label_values::<&str>(&[]).inc_by(count);
    }

    pub(crate) fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl Observer for Metrics {
    fn published(&self, _: &Outgoing, replayed: bool) {
        // Only what the reactor reports leaves by the outbox.
        self.published.with_label_values(&["choreographed", if replayed { "true" } else { "false" }]).inc();
    }

    fn consumed(&self, consumer: &str, event: &Event, settled: &Settled) {
        let mode = event.mode.as_deref().unwrap_or("none");
        let result = match settled {
            Settled::Done => "done",
            Settled::Failed(_) => "failed",
            Settled::Poison(_) => "poison",
        };
        self.consumed.with_label_values(&[consumer, mode, result]).inc();
        if let Ok(latency) = (Utc::now() - event.time).to_std() {
            self.latency.with_label_values(&[consumer, mode]).observe(latency.as_secs_f64());
        }
    }
}
