//! What an operator can do to a saga, and when.
//!
//! | action | allowed | effect |
//! | --- | --- | --- |
//! | `retry` | an operation is parked or waits for its next attempt | same key, fresh policy, called at once |
//! | `resolve` | an operation is parked or waits | its outcome is what the operator says |
//! | `skip` | an operation is parked or waits | left out; a skipped compensation ends the saga as `abandoned` |
//! | `compensate` | going forward, also past the pivot and while parked | the saga fails and is undone |
//! | `abandon` | parked | ended as it stands |
//!
//! A command that was carried out already, as its request id tells, is answered with the saga as it is by then: also when
//! it was this very command that ended the saga, or moved it past the revision that it expects.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{IllegalInput, machine::Machine};
use crate::{
    event::{
        CallNote, CompensationSkipped, OperatorActed, SagaAbandoned, StepCompensated, StepRetried, StepSkipped,
        StepSucceeded,
    },
    ids::Operation,
    state::{Flight, Phase, Status, Wait},
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatorCommand {
    pub actor: String,
    pub reason: String,
    /// Names this command among its saga's, so that it can be repeated without harm. Without one, every repetition is
    /// a command of its own.
    pub request_id: Option<String>,
    /// Of the HTTP request that brought it.
    pub correlation_id: Option<String>,
    /// Refuse unless the saga is at this revision.
    pub expected_revision: Option<u64>,
    pub action: OperatorAction,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorAction {
    /// Of one step, or of every one that is parked (if none is, of every one that waits for an attempt).
    Retry {
        step: Option<String>,
    },
    Resolve {
        step: String,
        resolution: Resolution,
    },
    Skip {
        step: String,
        #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
        output: Option<Value>,
    },
    Compensate,
    Abandon,
}

/// What an operator found out about an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// The action took effect; or the compensation did.
    Succeeded {
        #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
        output: Option<Value>,
    },
    /// The action had no effect.
    Rejected,
}

/// An output that is there is an output, also when it is null.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl OperatorAction {
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Retry { .. } => "retry",
            Self::Resolve { .. } => "resolve",
            Self::Skip { .. } => "skip",
            Self::Compensate => "compensate",
            Self::Abandon => "abandon",
        }
    }

    fn step(&self) -> Option<&str> {
        match self {
            Self::Retry { step } => step.as_deref(),
            Self::Resolve { step, .. } | Self::Skip { step, .. } => Some(step),
            Self::Compensate | Self::Abandon => None,
        }
    }
}

impl Machine<'_> {
    pub(super) fn operate(&mut self, command: OperatorCommand) -> Result<(), IllegalInput> {
        if self.is_repeated(&command)? {
            return Ok(());
        }
        if let Some(expected) = command.expected_revision
            && expected != self.state.version
        {
            return Err(IllegalInput::RevisionMismatch { expected, actual: self.state.version });
        }
        if self.state.status.is_ended() {
            return Err(IllegalInput::Ended(self.state.status));
        }
        self.act_as(&command.actor);
        let acted = OperatorActed {
            action: command.action.name().to_owned(),
            step: command.action.step().map(str::to_owned),
            reason: command.reason.clone(),
            request_id: command.request_id,
            correlation_id: command.correlation_id,
        };
        match command.action {
            OperatorAction::Retry { step } => self.retry(acted, step.as_deref()),
            OperatorAction::Resolve { step, resolution } => self.resolve(acted, &step, resolution),
            OperatorAction::Skip { step, output } => self.skip(acted, &step, output),
            OperatorAction::Compensate => self.force_compensate(acted, &command.reason),
            OperatorAction::Abandon => self.abandon(acted),
        }
    }

    /// Whether the command was carried out already.
    fn is_repeated(&self, command: &OperatorCommand) -> Result<bool, IllegalInput> {
        let Some(request_id) = command.request_id.as_deref() else { return Ok(false) };
        let Some(earlier) = self.state.carried_out(request_id) else { return Ok(false) };
        let same = earlier.action == command.action.name()
            && earlier.step.as_deref() == command.action.step()
            && earlier.reason == command.reason;
        if same { Ok(true) } else { Err(IllegalInput::RequestIdTaken(earlier.action.clone())) }
    }

    fn retry(&mut self, acted: OperatorActed, step: Option<&str>) -> Result<(), IllegalInput> {
        let indices = match step {
            Some(step) => {
                let index = self.index(step)?;
                self.waiting_operation(index)?;
                alloc::vec![index]
            }
            None => self.all_retryable()?,
        };
        self.emit(acted);
        for index in indices {
            let operation = self.waiting_operation(index)?;
            self.emit(StepRetried { step: self.id(index), operation });
        }
        self.tick();
        Ok(())
    }

    fn all_retryable(&self) -> Result<Vec<usize>, IllegalInput> {
        let steps = || self.state.steps.iter().enumerate();
        let parked: Vec<usize> = steps().filter(|(_, step)| step.is_parked()).map(|(index, _)| index).collect();
        if !parked.is_empty() {
            return Ok(parked);
        }
        let waiting: Vec<usize> = steps()
            .filter(|(_, step)| step.status.operation().is_some() && !matches!(step.flight, Flight::Airborne(_)))
            .filter(|(_, step)| matches!(step.work.wait, Wait::Until(_)) || matches!(step.flight, Flight::Deferred(_)))
            .map(|(index, _)| index)
            .collect();
        if waiting.is_empty() {
            return Err(IllegalInput::NotNow("nothing is parked or waits for its next attempt".to_owned()));
        }
        Ok(waiting)
    }

    /// The operation of a step that is under way but not in flight.
    fn waiting_operation(&self, index: usize) -> Result<Operation, IllegalInput> {
        let step = &self.state.steps[index];
        let Some(operation) = step.status.operation() else {
            return Err(IllegalInput::NotNow(format!(
                "step `{}` is {}: nothing of it is parked or waits",
                step.id,
                step.status.as_str()
            )));
        };
        if matches!(step.flight, Flight::Airborne(_)) {
            return Err(IllegalInput::NotNow(format!(
                "the {operation} of step `{}` is being called right now: wait for it to end",
                step.id
            )));
        }
        Ok(operation)
    }

    fn resolve(&mut self, acted: OperatorActed, step: &str, resolution: Resolution) -> Result<(), IllegalInput> {
        let index = self.index(step)?;
        let operation = self.waiting_operation(index)?;
        let attempt = self.state.steps[index].work.attempts;
        let step = self.id(index);
        match (operation, resolution) {
            (Operation::Action, Resolution::Succeeded { output }) => {
                self.check_output(index, output.is_some())?;
                self.emit(acted);
                let output = Arc::new(output.unwrap_or(Value::Null));
                self.emit(StepSucceeded { step, attempt, call: CallNote::default(), output });
            }
            (Operation::Action, Resolution::Rejected) => {
                let reason = acted.reason.clone();
                self.emit(acted);
                self.rejected(index, CallNote::default(), "resolved_rejected", reason);
            }
            (Operation::Compensation, Resolution::Succeeded { .. }) => {
                self.emit(acted);
                self.emit(StepCompensated { step, attempt, call: CallNote::default() });
            }
            (Operation::Compensation, Resolution::Rejected) => {
                return Err(IllegalInput::NotNow(
                    "a compensation cannot be resolved as rejected: retry it, resolve it as succeeded, or skip it"
                        .to_owned(),
                ));
            }
        }
        Ok(())
    }

    fn skip(&mut self, acted: OperatorActed, step: &str, output: Option<Value>) -> Result<(), IllegalInput> {
        let index = self.index(step)?;
        match self.waiting_operation(index)? {
            Operation::Action => {
                self.check_output(index, output.is_some())?;
                self.emit(acted);
                self.emit(StepSkipped { step: self.id(index), output: output.map(Arc::new), by_operator: true });
            }
            Operation::Compensation => {
                self.emit(acted);
                self.emit(CompensationSkipped { step: self.id(index) });
            }
        }
        Ok(())
    }

    fn check_output(&self, index: usize, given: bool) -> Result<(), IllegalInput> {
        let step = &self.definition.steps[index];
        if step.output_is_referenced && !given {
            return Err(IllegalInput::MissingOutput(format!(
                "other steps refer to the output of step `{}`: give an `output`",
                step.id
            )));
        }
        Ok(())
    }

    fn force_compensate(&mut self, acted: OperatorActed, reason: &str) -> Result<(), IllegalInput> {
        if self.state.phase == Phase::Backward {
            return Err(IllegalInput::NotNow(
                "the saga is being compensated already: retry, resolve or skip the step that is parked".to_owned(),
            ));
        }
        let reason = reason.to_string();
        self.emit(acted);
        self.fail(None, "force_compensated", &reason);
        Ok(())
    }

    fn abandon(&mut self, acted: OperatorActed) -> Result<(), IllegalInput> {
        if self.state.status != Status::Parked {
            return Err(IllegalInput::NotNow(format!(
                "only a parked saga can be abandoned; this one is {}",
                self.state.status
            )));
        }
        self.emit(acted);
        self.maybe_called_ahead().into_iter().for_each(|index| self.doubt(index));
        self.emit(SagaAbandoned {});
        Ok(())
    }
}
