//! Forward: starting what is ready, and what an action's answer leads to.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    sync::Arc,
};

use serde_json::Value;

use super::{
    machine::{Machine, Setback},
    render::{condition_holds, evaluate, output_of},
};
use crate::{
    classify::Verdict,
    definition::StepKind,
    event::{
        CallNote, SagaCompleted, StepDoubted, StepOutputInvalid, StepRejected, StepSkipped, StepSucceeded, StepUnknown,
    },
    ids::Operation,
    state::{Phase, Status, StepState, StepStatus},
};

impl Machine<'_> {
    pub(super) fn advance_forward(&mut self) {
        for index in 0..self.definition.steps.len() {
            if self.state.status == Status::Parked || self.state.phase == Phase::Backward {
                return;
            }
            let step = &self.definition.steps[index];
            let ready = self.state.steps[index].status == StepStatus::Pending
                && step.needs.iter().all(|need| self.state.steps[*need].is_passed());
            if ready {
                self.start_step(index);
            }
        }
        if self.state.phase == Phase::Forward && self.state.steps.iter().all(StepState::is_passed) {
            self.complete();
        }
    }

    fn start_step(&mut self, index: usize) {
        let step = &self.definition.steps[index];
        let late = self.state.deadline_at.is_some_and(|deadline| deadline <= self.now);
        if step.kind == StepKind::Pivot && late {
            return self.fail(None, "deadline_exceeded", "the saga's deadline passed before its pivot");
        }
        match condition_holds(&self.state, step) {
            Ok(true) => match self.target(index) {
                Ok(target) => self.begin(index, Operation::Action, target),
                Err(error) => self.cannot_be_called(index, error.to_string()),
            },
            Ok(false) => self.emit(StepSkipped { step: self.id(index), output: None, by_operator: false }),
            Err(error) => self.cannot_be_called(index, error.to_string()),
        }
    }

    fn cannot_be_called(&mut self, index: usize, reason: String) {
        let code = "expression_failed";
        match self.definition.steps[index].kind {
            StepKind::Retriable => self.park(index, CallNote::default(), code, reason),
            StepKind::Compensable | StepKind::Pivot => self.rejected(index, CallNote::default(), code, reason),
        }
    }

    pub(super) fn complete(&mut self) {
        let output =
            self.definition.output.as_ref().map_or(Ok(Value::Null), |output| evaluate(&self.state, output, None));
        let (output, output_error) = match output {
            Ok(output) => (output, None),
            Err(error) => (Value::Null, Some(error.to_string())),
        };
        self.emit(SagaCompleted { output: Arc::new(output), output_error });
    }

    /// What the answer to an action, to its status call, or a callback leads to.
    pub(super) fn action_finished(&mut self, index: usize, note: CallNote, verdict: Verdict) {
        let never_refused =
            self.definition.steps[index].kind == StepKind::Retriable && self.state.phase == Phase::Forward;
        let setback = match verdict {
            Verdict::Done(body) => return self.succeeded(index, note, body),
            Verdict::Refused(refusal) if never_refused => Setback {
                note,
                code: "rejected",
                error: refusal.to_string(),
                reached: true,
                counted: true,
                misconfigured: false,
                retry_after: None,
            },
            Verdict::Refused(refusal) => return self.rejected(index, note, &refusal.code, refusal.reason),
            Verdict::Accepted { location, retry_after } => {
                return self.action_accepted(index, note, location, retry_after);
            }
            Verdict::InFlight { retry_after } => Setback {
                note,
                code: "in_flight",
                error: "the participant is still at it (409)".to_owned(),
                reached: true,
                counted: false,
                misconfigured: false,
                retry_after,
            },
            Verdict::Retry { error, reached, retry_after } => Setback {
                note,
                code: "attempts_exhausted",
                error,
                reached,
                counted: true,
                misconfigured: false,
                retry_after,
            },
            Verdict::Misconfigured { error } => Setback {
                note,
                code: "misconfigured",
                error,
                reached: true,
                counted: true,
                misconfigured: true,
                retry_after: None,
            },
            Verdict::Deferred { .. } => return,
        };
        if self.state.phase == Phase::Backward {
            self.state.steps[index].work.reached |= setback.reached;
            self.stop_waiting(index, CallNote { error: Some(setback.error), ..setback.note });
        } else if self.state.steps[index].is_parked() {
            let (code, reason) = (setback.code, setback.error);
            self.park(index, setback.note, code, reason);
        } else {
            self.set_back(index, setback);
        }
    }

    fn action_accepted(
        &mut self,
        index: usize,
        note: CallNote,
        location: Option<String>,
        retry_after: Option<crate::time::Millis>,
    ) {
        match (self.state.phase, self.state.steps[index].status) {
            (Phase::Backward, _) => {
                self.state.steps[index].work.reached = true;
                self.stop_waiting(index, note);
            }
            (Phase::Forward, StepStatus::Checking) => {
                self.status_unknown(index, note, "the participant is still at it (202)".to_owned());
            }
            (Phase::Forward, _) => self.accepted(index, note, location, retry_after),
        }
    }

    pub(super) fn succeeded(&mut self, index: usize, note: CallNote, body: Result<Value, String>) {
        let described = &self.definition.steps[index];
        let output = body.and_then(|body| output_of(&self.state, described, body, note.http_status));
        let step = self.id(index);
        let attempt = self.attempt_of(index, &note);
        match output {
            Ok(output) => self.emit(StepSucceeded { step, attempt, call: note, output: Arc::new(output) }),
            Err(reason) if self.state.phase == Phase::Backward => {
                self.emit(StepOutputInvalid { step, attempt, call: note, reason });
            }
            Err(reason) => self.output_invalid(index, note, reason),
        }
    }

    /// It took effect, but nobody can read its answer.
    fn output_invalid(&mut self, index: usize, note: CallNote, reason: String) {
        let code = "output_invalid";
        let step = &self.definition.steps[index];
        let undoable = step.compensation.is_some() || !step.has_effect;
        self.state.steps[index].work.reached = true;
        match step.kind {
            StepKind::Compensable => {}
            StepKind::Pivot if undoable => {}
            StepKind::Pivot | StepKind::Retriable => return self.park(index, note, code, reason),
        }
        let attempt = self.attempt_of(index, &note);
        self.emit(StepOutputInvalid { step: self.id(index), attempt, call: note, reason: reason.clone() });
        self.fail(Some(index), code, &reason);
    }

    pub(super) fn rejected(&mut self, index: usize, note: CallNote, code: &str, reason: String) {
        let attempt = self.attempt_of(index, &note);
        let step = self.id(index);
        self.emit(StepRejected { step, attempt, call: note, code: code.to_owned(), reason: reason.clone() });
        self.fail(Some(index), code, &reason);
    }

    pub(super) fn action_exhausted(&mut self, index: usize, note: CallNote, code: &str, reason: String) {
        let step = &self.definition.steps[index];
        if step.kind == StepKind::Retriable {
            return self.park(index, note, code, reason);
        }
        if !self.state.steps[index].work.reached {
            return self.rejected(index, note, "unreachable", reason);
        }
        if step.status_call.is_none() {
            return self.outcome_unknown(index, note, code, reason);
        }
        let attempt = self.attempt_of(index, &note);
        self.emit(StepDoubted { step: self.id(index), attempt, call: note, code: code.to_owned(), reason });
        match self.target(index) {
            Ok(target) => self.invoke(index, target),
            Err(error) => self.status_unknown(index, CallNote::default(), error.to_string()),
        }
    }

    /// The status call could not tell.
    pub(super) fn status_unknown(&mut self, index: usize, note: CallNote, why: String) {
        self.outcome_unknown(index, note, "outcome_unknown", format!("the status call could not tell: {why}"));
    }

    fn outcome_unknown(&mut self, index: usize, note: CallNote, code: &str, reason: String) {
        let step = &self.definition.steps[index];
        let undoable = step.compensation.is_some() || !step.has_effect;
        if self.state.phase == Phase::Backward {
            return self.stop_waiting(index, note);
        }
        if step.kind == StepKind::Pivot && !undoable {
            return self.park(index, note, "outcome_unknown", reason);
        }
        let attempt = self.attempt_of(index, &note);
        let step = self.id(index);
        self.emit(StepUnknown { step, attempt, call: note, code: code.to_owned(), reason: reason.clone() });
        self.fail(Some(index), code, &reason);
    }
}
