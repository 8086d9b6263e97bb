//! The metrics of handling events, which the services and the workers count alike.

use std::time::Duration;

use chrono::Utc;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use skald_kit::{Handled, bus::Settled, events::Event};

/// From a commit at the store to the end of its handling; a choreographed step should take a few milliseconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Cloning gives another handle on the same metrics.
#[derive(Debug, Clone)]
pub(crate) struct EventMetrics {
    consumed: IntCounterVec,
    latency: HistogramVec,
    consume_errors: IntCounterVec,
    processing: HistogramVec,
    processing_errors: IntCounterVec,
}

impl EventMetrics {
    pub(crate) fn new(service: &'static str, registry: &Registry) -> Result<Self, prometheus::Error> {
        let labelled = |name: &str, help: &str| Opts::new(name, help).const_label("service", service);
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let counters = IntCounterVec::new(labelled(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let seconds = |name: &str, help: &str, labels: &[&str]| -> Result<HistogramVec, prometheus::Error> {
            let buckets = HistogramOpts::from(labelled(name, help)).buckets(SECONDS.to_vec());
            let histograms = HistogramVec::new(buckets, labels)?;
            registry.register(Box::new(histograms.clone()))?;
            Ok(histograms)
        };
        Ok(Self {
            consumed: counters(
                "events_consumed_total",
                "Events that a consumer of this service is through with",
                &["consumer", "mode", "result"],
            )?,
            latency: seconds(
                "event_latency_seconds",
                "From an event's commit until it was handled here",
                &["consumer", "mode"],
            )?,
            consume_errors: counters("event_consume_errors_total", "Requests for events that failed", &["consumer"])?,
            processing: seconds(
                "event_processing_duration_seconds",
                "Handling an event, without waiting for it",
                &["consumer"],
            )?,
            processing_errors: counters(
                "event_processing_errors_total",
                "Events that could not be handled at that time, or not at all",
                &["consumer"],
            )?,
        })
    }

    pub(crate) fn consumed(&self, consumer: &str, event: &Event, handled: &Handled<'_>) {
        let mode = event.mode.as_deref().unwrap_or("none");
        let result = match handled.settled {
            Settled::Done => "done",
            Settled::Failed(_) => "failed",
            Settled::Poison(_) => "poison",
        };
        self.consumed.with_label_values(&[consumer, mode, result]).inc();
        match handled.settled {
            Settled::Done => self.processing.with_label_values(&[consumer]).observe(handled.took.as_secs_f64()),
            Settled::Failed(_) | Settled::Poison(_) => self.put_off(consumer),
        }
        if let Ok(latency) = (Utc::now() - event.time).to_std() {
            self.latency.with_label_values(&[consumer, mode]).observe(latency.as_secs_f64());
        }
    }

    /// Events that were handled together, in so much time.
    pub(crate) fn consumed_together(&self, consumer: &str, events: &[Event], took: Duration) {
        for event in events {
            self.consumed(consumer, event, &Handled { settled: &Settled::Done, took });
        }
    }

    pub(crate) fn not_polled(&self, consumer: &str) {
        self.consume_errors.with_label_values(&[consumer]).inc();
    }

    pub(crate) fn put_off(&self, consumer: &str) {
        self.processing_errors.with_label_values(&[consumer]).inc();
    }
}
