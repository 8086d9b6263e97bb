//! The metrics of a demo service, all of them.

use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
};
use skald_kit::{Handled, Observer, events::Event, outbox::Outgoing};

use crate::event_metrics::EventMetrics;

/// One registry per service, so that several can live in one process. Cloning gives another handle on the same metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    calls: IntCounterVec,
    call_duration: HistogramVec,
    faults: IntCounterVec,
    expired_holds: IntCounterVec,
    published: IntCounterVec,
    publish_duration: Histogram,
    publish_errors: IntCounter,
    events: EventMetrics,
}

/// What its outbox's relay posts to.
const PUBLISH_TARGET: &str = "skald";

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
        let help = "From a request to post events until Skald had them in its log";
        let publish_duration = labelled("event_publish_duration_seconds", help);
        let publish_duration = HistogramVec::new(HistogramOpts::from(publish_duration), &["target"])?;
        let help = "Events that Skald did not take from this service's outbox at that time";
        let publish_errors = IntCounterVec::new(labelled("event_publish_errors_total", help), &["target"])?;
        let registry = Registry::new();
        registry.register(Box::new(published.clone()))?;
        registry.register(Box::new(publish_duration.clone()))?;
        registry.register(Box::new(publish_errors.clone()))?;
        registry.register(Box::new(calls.clone()))?;
        registry.register(Box::new(call_duration.clone()))?;
        registry.register(Box::new(faults.clone()))?;
        registry.register(Box::new(expired_holds.clone()))?;
        let events = EventMetrics::new(service, &registry)?;
        let publish_duration = publish_duration.with_label_values(&[PUBLISH_TARGET]);
        let publish_errors = publish_errors.with_label_values(&[PUBLISH_TARGET]);
        Ok(Self {
            registry,
            calls,
            call_duration,
            faults,
            expired_holds,
            published,
            publish_duration,
            publish_errors,
            events,
        })
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

    fn posted(&self, took: Duration) {
        self.publish_duration.observe(took.as_secs_f64());
    }

    fn not_posted(&self, events: usize) {
        self.publish_errors.inc_by(events as u64);
    }

    fn not_polled(&self, consumer: &str) {
        self.events.not_polled(consumer);
    }

    fn put_off(&self, consumer: &str) {
        self.events.put_off(consumer);
    }

    fn consumed(&self, consumer: &str, event: &Event, handled: &Handled<'_>) {
        self.events.consumed(consumer, event, handled);
    }
}
