//! What the writer of a choreographed saga decides by itself: that time ran out, that an operation cannot be carried out
//! by anybody, that the saga has ended. It calls nobody.

use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
};

use super::{
    machine::Machine,
    render::{condition_holds, render},
    wake::{can_time_out, silence_limit},
};
use crate::{
    definition::StepKind,
    event::{CallNote, SagaTimedOut},
    state::{Phase, StepState, StepStatus},
};

impl Machine<'_> {
    pub(super) fn tick_choreographed(&mut self) {
        self.time_out_if_late();
        for index in 0..self.state.steps.len() {
            if silence_limit(self.definition, &self.state, index).is_some_and(|limit| limit <= self.now) {
                let reason = "its participant did not tell in time how it ended".to_owned();
                self.park(index, CallNote::default(), "participant_silent", reason);
            }
        }
    }

    /// The deadline is looked at before anything that a participant says: nothing is enabled past it.
    pub(super) fn time_out_if_late(&mut self) {
        let late = self.state.deadline_at.is_some_and(|deadline| deadline <= self.now);
        if late && can_time_out(self.definition, &self.state) {
            self.emit(SagaTimedOut {});
            self.fail(None, "deadline_exceeded", "the saga's deadline passed");
        }
    }

    pub(super) fn advance_choreographed(&mut self) {
        if self.state.status.is_ended() {
            return;
        }
        for index in 0..self.state.steps.len() {
            if !self.state.steps[index].is_parked()
                && let Some((code, reason)) = self.hindrance(index)
            {
                self.park(index, CallNote::default(), code, reason);
            }
        }
        match self.state.phase {
            Phase::Forward if self.state.steps.iter().all(StepState::is_passed) => self.complete(),
            Phase::Forward => {}
            Phase::Backward => self.end_if_undone(),
        }
    }

    /// Why the operation under way can neither be carried out nor refused by its owner.
    fn hindrance(&self, index: usize) -> Option<(&'static str, String)> {
        let step = &self.definition.steps[index];
        match (self.state.steps[index].status, self.state.phase) {
            (StepStatus::Compensating, _) => {
                self.compensation_target(index).err().map(|unready| (unready.code(), unready.to_string()))
            }
            (StepStatus::Running, Phase::Forward) if step.kind == StepKind::Retriable => {
                let rendered = match condition_holds(&self.state, step) {
                    Ok(true) => render(&self.state, &step.call).map(drop),
                    other => other.map(drop),
                };
                rendered.err().map(|error| ("expression_failed", error.to_string()))
            }
            _ => None,
        }
    }
}
