//! The metrics of a demo service, all of them.

use std::time::Duration;

use prometheus::{Encoder, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

/// One registry per service, so that several can live in one process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    calls: IntCounterVec,
    call_duration: HistogramVec,
    faults: IntCounterVec,
    expired_holds: IntCounterVec,
}

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
        let registry = Registry::new();
        registry.register(Box::new(calls.clone()))?;
        registry.register(Box::new(call_duration.clone()))?;
        registry.register(Box::new(faults.clone()))?;
        registry.register(Box::new(expired_holds.clone()))?;
        Ok(Self { registry, calls, call_duration, faults, expired_holds })
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
