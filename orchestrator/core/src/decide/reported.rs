//! What the participants of a choreographed saga say they did.
//!
//! | the report says | legal while the step is | it becomes |
//! | --- | --- | --- |
//! | succeeded | `running` | `succeeded`; after the first failure, to be undone |
//! | output invalid | `running` | `succeeded`, and the saga fails; parked where it cannot fail (retriable, going forward) |
//! | rejected | `running`, and not retriable while the saga goes forward | `rejected`, and the saga fails |
//! | cancelled | `running`, after the first failure | `rejected` |
//! | skipped | `running`, and its condition is false | `skipped` |
//! | compensated | `compensating` | `compensated` |
//!
//! Parked or not makes no difference: whoever was silent may speak. A report of what the step came to already is
//! harmless, however often it comes. Any other is refused and changes nothing; a participant whose `succeeded` is refused
//! (the step was closed by an operator, or the saga has ended) must undo its effect by itself, and tell nobody.

use alloc::{borrow::ToOwned, format, string::String, sync::Arc, vec::Vec};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{IllegalInput, machine::Machine, render::condition_holds};
use crate::{
    definition::StepKind,
    event::{CallNote, Mode, StepCompensated, StepOutputInvalid, StepRejected, StepSkipped, StepSucceeded},
    ids::{Operation, call_key},
    shard::batch::Origin,
    state::{Outcome, Phase, StepStatus, Wait},
    time::{Millis, Timestamp},
};

/// Reports that are to be appended to a saga's stream together, or not at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reported {
    pub reports: Vec<Report>,
    /// Refuse unless the stream is at this version, or everything is known already.
    pub expected: Option<u64>,
}

/// How one operation ended, by its owner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The operation's key, [`call_key`]: an operation ends once, so its end has one name.
    pub event_id: Arc<str>,
    pub causation_id: Option<Arc<str>>,
    pub step: String,
    pub operation: Operation,
    pub outcome: ReportedOutcome,
    /// When the participant began, if it says so.
    pub started_at: Option<Timestamp>,
    pub duration: Option<Millis>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ReportedOutcome {
    Succeeded {
        #[serde(default)]
        output: Value,
    },
    /// It took effect, but its answer cannot be used.
    OutputInvalid {
        reason: String,
    },
    /// It had no effect.
    Rejected {
        code: String,
        reason: String,
    },
    /// It had no effect and never will: the saga failed first.
    Cancelled,
    Skipped,
    Compensated,
}

impl ReportedOutcome {
    const fn operation(&self) -> Operation {
        match self {
            Self::Succeeded { .. }
            | Self::OutputInvalid { .. }
            | Self::Rejected { .. }
            | Self::Cancelled
            | Self::Skipped => Operation::Action,
            Self::Compensated => Operation::Compensation,
        }
    }
}

impl Machine<'_> {
    pub(super) fn reported(&mut self, reported: Reported) -> Result<(), IllegalInput> {
        if self.state.mode != Mode::Choreographed {
            let reason = "the saga is orchestrated: its participants are called and answer, they do not report";
            return Err(IllegalInput::NotNow(reason.to_owned()));
        }
        let mut all_known = true;
        for report in &reported.reports {
            let index = self.index(&report.step)?;
            self.check_report(report)?;
            all_known &= self.is_known(index, &report.outcome);
        }
        if all_known {
            return Ok(());
        }
        if self.state.status.is_ended() {
            return Err(IllegalInput::Ended(self.state.status));
        }
        if let Some(expected) = reported.expected
            && expected != self.state.version
        {
            return Err(IllegalInput::RevisionMismatch { expected, actual: self.state.version });
        }
        self.time_out_if_late();
        for report in reported.reports {
            self.take_in(report)?;
        }
        Ok(())
    }

    /// What must be right in any state.
    fn check_report(&self, report: &Report) -> Result<(), IllegalInput> {
        let key = call_key(self.state.id, &report.step, report.operation);
        if *report.event_id != *key {
            let reason = format!("the event id must be the operation's idempotency key, {key}");
            return Err(IllegalInput::BadReport(reason));
        }
        if report.operation != report.outcome.operation() {
            let reason = format!("that is not how the {} of a step ends", report.operation);
            return Err(IllegalInput::BadReport(reason));
        }
        Ok(())
    }

    /// Whether the step came to this already.
    fn is_known(&self, index: usize, outcome: &ReportedOutcome) -> bool {
        let step = &self.state.steps[index];
        match outcome {
            ReportedOutcome::Succeeded { .. } => step.outcome == Some(Outcome::Succeeded),
            ReportedOutcome::OutputInvalid { .. } => {
                let parked_for_it = matches!(&step.work.wait, Wait::Parked { code, .. } if code == "output_invalid");
                step.outcome == Some(Outcome::Succeeded) || parked_for_it && self.state.phase == Phase::Forward
            }
            ReportedOutcome::Rejected { .. } | ReportedOutcome::Cancelled => step.outcome == Some(Outcome::Rejected),
            ReportedOutcome::Skipped => step.status == StepStatus::Skipped,
            ReportedOutcome::Compensated => step.status == StepStatus::Compensated,
        }
    }

    fn take_in(&mut self, report: Report) -> Result<(), IllegalInput> {
        let index = self.index(&report.step)?;
        if self.is_known(index, &report.outcome) {
            return Ok(());
        }
        let Report { event_id, causation_id, step, operation, outcome, started_at, duration } = report;
        let status = self.state.steps[index].status;
        if status.operation() != Some(operation) {
            return Err(IllegalInput::NotUnderWay { step, operation, status });
        }
        let step = self.id(index);
        let call = CallNote { called_at: started_at, duration_ms: duration.map(|span| span.0), ..CallNote::default() };
        let attempt = self.attempt_of(index, &call);
        let origin = Origin { event_id: Some(event_id), causation_id };
        let goes_forward = self.state.phase == Phase::Forward;
        let cannot_fail = self.definition.steps[index].kind == StepKind::Retriable && goes_forward;
        match outcome {
            ReportedOutcome::Succeeded { output } => {
                self.emit_from(origin, StepSucceeded { step, attempt, call, output: Arc::new(output) });
            }
            // Not its end yet, so not under its name.
            ReportedOutcome::OutputInvalid { reason } if cannot_fail => {
                self.park(index, call, "output_invalid", reason)
            }
            ReportedOutcome::OutputInvalid { reason } => {
                self.emit_from(origin, StepOutputInvalid { step, attempt, call, reason: reason.clone() });
                self.fail(Some(index), "output_invalid", &reason);
            }
            ReportedOutcome::Rejected { .. } if cannot_fail => {
                let reason = format!("step `{step}` comes after the pivot and cannot be refused: try it again");
                return Err(IllegalInput::NotNow(reason));
            }
            ReportedOutcome::Rejected { code, reason } => {
                let rejected = StepRejected { step, attempt, call, code: code.clone(), reason: reason.clone() };
                self.emit_from(origin, rejected);
                self.fail(Some(index), &code, &reason);
            }
            ReportedOutcome::Cancelled if goes_forward => {
                return Err(IllegalInput::NotNow("the saga has not failed: nothing is cancelled".to_owned()));
            }
            ReportedOutcome::Cancelled => {
                let reason = "the saga failed before it took effect".to_owned();
                self.emit_from(origin, StepRejected { step, attempt, call, code: "cancelled".to_owned(), reason });
            }
            ReportedOutcome::Skipped => {
                if condition_holds(&self.state, &self.definition.steps[index]) != Ok(false) {
                    let reason = format!("step `{step}` is not to be skipped: its `if` is not false");
                    return Err(IllegalInput::NotNow(reason));
                }
                self.emit_from(origin, StepSkipped { step, output: None, by_operator: false });
            }
            ReportedOutcome::Compensated => self.emit_from(origin, StepCompensated { step, attempt, call }),
        }
        Ok(())
    }
}
