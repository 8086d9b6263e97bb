//! Backward: undoing, in reverse dependency order, everything that took effect or may have.

use alloc::string::{String, ToString};

use super::machine::{Machine, Setback};
use crate::{
    classify::Verdict,
    event::{CallNote, SagaAbandoned, SagaCompensated, StepCompensated},
    ids::Operation,
    state::{Status, StepStatus},
};

impl Machine<'_> {
    pub(super) fn advance_backward(&mut self) {
        for index in (0..self.definition.steps.len()).rev() {
            if self.state.status == Status::Parked {
                return;
            }
            if self.needs_undoing(index) && self.dependents_are_settled(index) {
                self.start_compensation(index);
            }
        }
        if (0..self.definition.steps.len()).all(|index| self.is_settled(index)) {
            let skipped = |step: &crate::state::StepState| step.status == StepStatus::CompensationSkipped;
            if self.state.steps.iter().any(skipped) {
                self.emit(SagaAbandoned {});
            } else {
                self.emit(SagaCompensated {});
            }
        }
    }

    fn start_compensation(&mut self, index: usize) {
        let target = self.compensation_target(index);
        match target {
            Ok(target) => self.begin(index, Operation::Compensation, target),
            Err(unready) => self.park(index, CallNote::default(), unready.code(), unready.to_string()),
        }
    }

    fn dependents_are_settled(&self, index: usize) -> bool {
        #[cfg(feature = "mutants")]
        if crate::mutants::UNDO_IN_ANY_ORDER.is_on() {
            return true;
        }
        self.downstream(index).iter().all(|later| self.is_settled(*later))
    }

    /// Whether the step had, or may have had, an effect that still stands and no compensation has begun.
    fn needs_undoing(&self, index: usize) -> bool {
        let ended = matches!(self.state.steps[index].status, StepStatus::Succeeded | StepStatus::Unknown);
        ended && self.definition.steps[index].has_effect
    }

    /// Whether nothing of the step stands or is under way.
    fn is_settled(&self, index: usize) -> bool {
        match self.state.steps[index].status {
            StepStatus::Pending
            | StepStatus::Rejected
            | StepStatus::Skipped
            | StepStatus::Compensated
            | StepStatus::CompensationSkipped => true,
            StepStatus::Succeeded | StepStatus::Unknown => !self.definition.steps[index].has_effect,
            StepStatus::Running | StepStatus::Checking | StepStatus::Compensating => false,
        }
    }

    pub(super) fn compensation_finished(&mut self, index: usize, note: CallNote, verdict: Verdict) {
        let (code, error, reached, counted, misconfigured, retry_after) = match verdict {
            Verdict::Done(_) => {
                let attempt = self.attempt_of(index, &note);
                return self.emit(StepCompensated { step: self.id(index), attempt, call: note });
            }
            Verdict::Accepted { location, retry_after } => return self.accepted(index, note, location, retry_after),
            Verdict::Refused(refusal) => {
                let note = CallNote { error: Some(refusal.to_string()), ..note };
                return self.park(index, note, &refusal.code, refusal.reason);
            }
            Verdict::InFlight { retry_after } => {
                ("in_flight", String::from("the participant is still at it (409)"), true, false, false, retry_after)
            }
            Verdict::Retry { error, reached, retry_after } => {
                ("compensation_exhausted", error, reached, true, false, retry_after)
            }
            Verdict::Misconfigured { error } => ("misconfigured", error, true, true, true, None),
            Verdict::Deferred { .. } => return,
        };
        if self.state.steps[index].is_parked() {
            return self.park(index, note, code, error);
        }
        self.set_back(index, Setback { note, code, error, reached, counted, misconfigured, retry_after });
    }
}
