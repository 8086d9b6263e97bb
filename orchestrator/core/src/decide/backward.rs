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
            if self.state.is_to_be_undone(self.definition, index) {
                self.start_compensation(index);
            }
        }
        self.end_if_undone();
    }

    /// Ends the saga when nothing stands and nothing is under way any more.
    pub(super) fn end_if_undone(&mut self) {
        if (0..self.definition.steps.len()).all(|index| self.state.is_settled(self.definition, index)) {
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
