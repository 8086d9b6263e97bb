//! What of a definition needs somebody who conducts, and so cannot run choreographed.

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};

use serde_json::Value;

use super::{Definition, Problem, Step, StepKind};

impl Definition {
    /// Why sagas of this definition cannot be choreographed; empty if they can.
    #[must_use]
    pub fn not_choreographable(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.deadline.is_none() {
            let reason =
                "a choreographed saga needs a deadline: nobody calls, so only time tells that a participant is gone";
            problems.push(Problem::new("deadline".to_owned(), reason));
        }
        if self.personal.is_some() {
            let reason = "is only opened for calls, and participants that act on events would read what is sealed";
            problems.push(Problem::new("personal".to_owned(), reason));
        }
        for step in &self.steps {
            let place = format!("steps[{}]", self.written_index(step));
            for (key, reason) in step.reasons() {
                problems.push(Problem::new(format!("{place}.{key}"), reason));
            }
        }
        problems
    }

    /// Where the step stands in the document.
    fn written_index(&self, step: &Step) -> usize {
        let written = self.document.get("steps").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        written.iter().position(|one| one.get("id").and_then(Value::as_str) == Some(&step.id)).unwrap_or_default()
    }
}

impl Step {
    fn reasons(&self) -> Vec<(&'static str, String)> {
        let mut reasons = Vec::new();
        let mut tell = |key, reason: &str| reasons.push((key, reason.to_owned()));
        if self.status_call.is_some() {
            tell("status", "is never asked: the participant itself says what became of the step");
        }
        if !self.classify.is_empty() {
            tell("classify", "has no meaning without calls: the participant itself says what became of the step");
        }
        if self.deadline.is_some() {
            tell("deadline", "is kept by who calls: choreographed, only the saga has a deadline");
        }
        if !self.call.headers.is_empty() {
            tell("call.headers", "are not sent: participants act on events, which have no such headers");
        }
        let Some(undo) = &self.compensation else {
            if self.kind == StepKind::Pivot && self.has_effect {
                let reason = "the pivot may succeed just after the deadline ended the saga, and must then be undone: add \
                              `compensate`";
                tell("compensate", reason);
            }
            return reasons;
        };
        if !undo.call.headers.is_empty() {
            tell("compensate.call.headers", "are not sent: participants act on events, which have no such headers");
        }
        if undo.call.service != self.call.service {
            let reason = "must be the service of the step's `call`: who acts also undoes, so that one participant knows \
                          which came first";
            tell("compensate.call.service", reason);
        }
        reasons
    }
}
