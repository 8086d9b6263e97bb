//! Calls to participants.

use std::{sync::OnceLock, time::Duration};

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::{
    labels::label,
    register::{counters, gauges, seconds},
};

/// Of all participants; [`CallMetrics::of`] gives those of one.
#[derive(Debug)]
pub struct CallMetrics {
    duration: HistogramVec,
    in_flight: IntGaugeVec,
    waiting: IntGaugeVec,
    deferred: IntCounterVec,
    circuit: IntGaugeVec,
}

impl CallMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let r = registry;
        Self {
            duration: seconds(
                r,
                "external_service_call_duration_seconds",
                "Time of a request to a participant",
                &["service", "operation", "outcome"],
            ),
            in_flight: gauges(r, "participant_calls_in_flight", "Requests being made", &["service"]),
            waiting: gauges(
                r,
                "participant_calls_waiting",
                "Calls waiting in memory for a permit or the rate",
                &["service"],
            ),
            deferred: counters(r, "participant_calls_deferred_total", "Calls put off", &["service", "reason"]),
            circuit: gauges(r, "circuit_state", "0 closed, 1 half open, 2 open", &["service"]),
        }
    }

    /// The handles of one participant.
    #[must_use]
    pub fn of(&self, service: &str) -> ServiceMetrics {
        ServiceMetrics {
            service: service.to_owned(),
            in_flight: self.in_flight.with_label_values(&[service]),
            waiting: self.waiting.with_label_values(&[service]),
            circuit: self.circuit.with_label_values(&[service]),
            durations: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
            call_duration: self.duration.clone(),
            deferred: DeferReason::ALL.map(|reason| self.deferred.with_label_values(&[service, reason.as_str()])),
        }
    }
}

/// The metrics of calling one participant, looked up once.
#[derive(Debug)]
pub struct ServiceMetrics {
    service: String,
    pub in_flight: IntGauge,
    pub waiting: IntGauge,
    pub circuit: IntGauge,
    // Made at first use, so that combinations that never happen are not exposed.
    durations: [[OnceLock<Histogram>; CallOutcome::ALL.len()]; CallKind::ALL.len()],
    call_duration: HistogramVec,
    deferred: [IntCounter; DeferReason::ALL.len()],
}

impl ServiceMetrics {
    pub fn called(&self, kind: CallKind, outcome: CallOutcome, took: Duration) {
        self.durations[kind as usize][outcome as usize]
            .get_or_init(|| self.call_duration.with_label_values(&[&self.service, kind.as_str(), outcome.as_str()]))
            .observe(took.as_secs_f64());
    }

    pub fn deferred(&self, reason: DeferReason) {
        self.deferred[reason as usize].inc();
    }
}

label! {
    /// What a request to a participant is for.
    CallKind { Action = "action", Compensation = "compensation", Poll = "poll", Status = "status" }
}

label! {
    /// How a request to a participant ended.
    CallOutcome {
        Status1xx = "1xx",
        Status2xx = "2xx",
        Status3xx = "3xx",
        Status4xx = "4xx",
        Status5xx = "5xx",
        /// Nothing left this machine.
        NotSent = "not_sent",
        TimedOut = "timeout",
        /// The connection ended before a whole answer was here.
        Broken = "broken",
    }
}

label! {
    /// Why a call is put off.
    DeferReason {
        Paused = "paused",
        CircuitOpen = "circuit_open",
        QueueFull = "queue_full",
        NoPermit = "no_permit",
        RateSpent = "rate_spent",
    }
}

impl CallOutcome {
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        match status {
            ..200 => Self::Status1xx,
            200..300 => Self::Status2xx,
            300..400 => Self::Status3xx,
            400..500 => Self::Status4xx,
            500.. => Self::Status5xx,
        }
    }
}
