//! Sagas, their steps and how they end, by mode.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use skald_core::event::Mode;

use super::register::{Levels, counters, gauges, seconds};

#[derive(Debug)]
pub struct SagaMetrics {
    started: IntCounterVec,
    completed: IntCounterVec,
    failed: IntCounterVec,
    duration: HistogramVec,
    steps: IntCounterVec,
    compensations: IntCounterVec,
    choreographed_completed: IntCounterVec,
    choreographed_failed: IntCounterVec,
    active: ByMode,
    parked: ByMode,
    /// Of the whole database, by mode, definition and status.
    pub unfinished: Levels<3>,
    /// Of the whole database, by mode and definition.
    pub overdue: Levels<2>,
}

/// Set so often that they are not looked up each time.
#[derive(Debug)]
struct ByMode {
    orchestrated: IntGauge,
    choreographed: IntGauge,
}

impl ByMode {
    fn of(gauges: &IntGaugeVec) -> Self {
        let gauge = |mode: Mode| gauges.with_label_values(&[mode.as_str()]);
        Self { orchestrated: gauge(Mode::Orchestrated), choreographed: gauge(Mode::Choreographed) }
    }

    const fn get(&self, mode: Mode) -> &IntGauge {
        match mode {
            Mode::Orchestrated => &self.orchestrated,
            Mode::Choreographed => &self.choreographed,
        }
    }
}

impl SagaMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let r = registry;
        Self {
            started: counters(r, "saga_started_total", "Sagas accepted", &["mode", "definition"]),
            completed: counters(r, "saga_completed_total", "Sagas that completed", &["mode", "definition"]),
            failed: counters(
                r,
                "saga_failed_total",
                "Sagas that began to fail, by the step that failed",
                &["mode", "definition", "reason", "step"],
            ),
            duration: seconds(
                r,
                "saga_execution_duration_seconds",
                "Time from a saga's start to its end",
                &["mode", "definition", "status"],
            ),
            steps: counters(
                r,
                "saga_step_executions_total",
                "Actions ended",
                &["mode", "definition", "step", "outcome"],
            ),
            compensations: counters(
                r,
                "saga_compensations_total",
                "Compensations ended",
                &["mode", "definition", "step", "outcome"],
            ),
            choreographed_completed: counters(
                r,
                "saga_choreo_success_total",
                "Choreographed sagas that completed",
                &["definition"],
            ),
            choreographed_failed: counters(
                r,
                "saga_choreo_failed_total",
                "Choreographed sagas that ended otherwise",
                &["definition"],
            ),
            active: ByMode::of(&gauges(r, "active_sagas", "Sagas not ended", &["mode"])),
            parked: ByMode::of(&gauges(r, "parked_sagas", "Sagas that need an operator", &["mode"])),
            unfinished: Levels::new(
                r,
                "sagas_unfinished",
                "Sagas not ended, in the whole database",
                ["mode", "definition", "status"],
            ),
            overdue: Levels::new(
                r,
                "sagas_overdue",
                "Sagas not ended, and not parked, though their deadline is over, in the whole database",
                ["mode", "definition"],
            ),
        }
    }

    pub fn started(&self, mode: Mode, definition: &str) {
        self.started.with_label_values(&[mode.as_str(), definition]).inc();
    }

    /// `status` is the saga's final status.
    pub fn ended(&self, mode: Mode, definition: &str, status: &'static str, took: Duration) {
        let completed = status == "completed";
        if completed {
            self.completed.with_label_values(&[mode.as_str(), definition]).inc();
        }
        match mode {
            Mode::Orchestrated => {}
            Mode::Choreographed if completed => self.choreographed_completed.with_label_values(&[definition]).inc(),
            Mode::Choreographed => self.choreographed_failed.with_label_values(&[definition]).inc(),
        }
        self.duration.with_label_values(&[mode.as_str(), definition, status]).observe(took.as_secs_f64());
    }

    /// `code` is the failure's code as the saga carries it; a participant's own codes are counted as one.
    pub fn failed(&self, mode: Mode, definition: &str, step: &str, code: &str) {
        self.failed.with_label_values(&[mode.as_str(), definition, failure_reason(code), step]).inc();
    }

    pub fn step_ended(&self, mode: Mode, definition: &str, step: &str, outcome: &'static str) {
        self.steps.with_label_values(&[mode.as_str(), definition, step, outcome]).inc();
    }

    pub fn compensation_ended(&self, mode: Mode, definition: &str, step: &str, outcome: &'static str) {
        self.compensations.with_label_values(&[mode.as_str(), definition, step, outcome]).inc();
    }

    #[must_use]
    pub const fn active(&self, mode: Mode) -> &IntGauge {
        self.active.get(mode)
    }

    #[must_use]
    pub const fn parked(&self, mode: Mode) -> &IntGauge {
        self.parked.get(mode)
    }
}

/// The engine's own failure codes; they are documented and few.
const ENGINE_CODES: [&str; 16] = [
    "attempts_exhausted",
    "cancelled",
    "compensation_exhausted",
    "deadline_exceeded",
    "expression_failed",
    "force_compensated",
    "in_flight",
    "interrupted",
    "misconfigured",
    "no_compensation",
    "outcome_unknown",
    "output_invalid",
    "rejected",
    "resolved_rejected",
    "step_timeout",
    "unreachable",
];

/// A failure's code as a label: the engine's own as they are, all those of participants as one.
fn failure_reason(code: &str) -> &'static str {
    ENGINE_CODES.into_iter().find(|known| *known == code).unwrap_or("participant")
}

/// Whether a failure's code is the engine's own, and not what a participant said.
#[must_use]
pub fn is_engine_code(code: &str) -> bool {
    ENGINE_CODES.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_participants_codes_do_not_become_labels() {
        assert_eq!(failure_reason("unreachable"), "unreachable");
        assert_eq!(failure_reason("card_declined_4711"), "participant");
    }
}
