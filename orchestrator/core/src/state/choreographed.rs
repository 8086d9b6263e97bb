//! What nobody announces when the participants act on their own: which operations the stream's order has enabled.

use super::{Phase, SagaState, StepState, StepStatus, Work, step::in_operation};
use crate::{
    definition::Definition,
    event::{Event, Mode},
    ids::Operation,
    time::Timestamp,
};

impl SagaState {
    /// The first failure ends forward progress where it stands in the stream, before the `SagaFailed` that tells it: a
    /// reader that has seen only a part of the commit enables nothing either.
    pub(super) fn turn_back(&mut self, event: &Event, at: Timestamp) {
        let fails = matches!(
            event,
            Event::StepRejected(_) | Event::StepOutputInvalid(_) | Event::SagaTimedOut(_) | Event::SagaFailed(_)
        );
        let already = self.phase == Phase::Backward && !matches!(event, Event::SagaFailed(_));
        if !fails || already {
            return;
        }
        self.phase = Phase::Backward;
        // From now on their owners owe an end of what was enabled, and have as long for it as for anything else.
        for step in self.steps.iter_mut().filter(|step| step.status == StepStatus::Running) {
            step.work.started_at = at;
        }
    }

    /// Lets every operation begin that nothing in the stream holds back any more.
    pub(super) fn enable(&mut self, definition: &Definition, at: Timestamp) {
        if self.mode != Mode::Choreographed || self.status.is_ended() {
            return;
        }
        match self.phase {
            Phase::Forward => self.enable_actions(definition, at),
            #[cfg(feature = "mutants")]
            Phase::Backward if crate::mutants::ENABLE_AFTER_FAILURE.is_on() => {
                self.enable_actions(definition, at);
                self.enable_compensations(definition, at);
            }
            // A compensation may speak of the failure, so it waits until that is known.
            Phase::Backward if self.failure.is_some() => self.enable_compensations(definition, at),
            Phase::Backward => {}
        }
    }

    fn enable_actions(&mut self, definition: &Definition, at: Timestamp) {
        for (index, step) in definition.steps.iter().enumerate() {
            let ready = self.steps[index].status == StepStatus::Pending
                && step.needs.iter().all(|need| self.steps[*need].is_passed());
            if ready {
                self.steps[index].begin(Operation::Action, at);
            }
        }
    }

    fn enable_compensations(&mut self, definition: &Definition, at: Timestamp) {
        for index in (0..self.steps.len()).rev() {
            if self.is_to_be_undone(definition, index) {
                self.steps[index].begin(Operation::Compensation, at);
            }
        }
    }
}

impl StepState {
    fn begin(&mut self, operation: Operation, at: Timestamp) {
        self.work = Work { started_at: at, ..Work::default() };
        self.status = in_operation(operation);
    }
}
