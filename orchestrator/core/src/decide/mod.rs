//! The machine: from a committed state and an input to the events to commit and the commands to carry out after.
//!
//! | input | forward | backward |
//! | --- | --- | --- |
//! | call done | step succeeds, what it enabled starts | step succeeds, to be undone; or is undone |
//! | call refused | step is rejected, the saga fails (retriable: another attempt, then parked) | action: no effect; compensation: parked |
//! | call to be retried | another attempt, or out of attempts | action: unknown, or rejected if nothing was sent; compensation: another attempt, then parked |
//! | accepted | waits for callback or poll | action: unknown; compensation: waits |
//! | out of attempts or time | nothing sent: rejected; else status call, then unknown (pivot that cannot be undone, or retriable: parked) | compensation: parked |
//! | taken over from a process that died | recorded, before anything is called again; parked when too many died | likewise |
//! | tick past the saga's deadline | the saga fails, unless the pivot was called | |
//! | operator | see [`OperatorAction`] | see [`OperatorAction`] |
//!
//! A choreographed saga is told by its participants what they did, and nobody is called:
//!
//! | input | forward | backward |
//! | --- | --- | --- |
//! | report of an enabled operation | the step ends; the first failure fails the saga; all ended well: completed | the step ends; nothing stands any more: compensated |
//! | report of what the step came to already | nothing | nothing |
//! | any other report | refused | refused |
//! | tick past the saga's deadline | times out, unless the pivot succeeded | |
//! | tick past an operation's limit (the deadline's length after both the deadline and its begin) | parked | parked |
//! | operator | as above; whoever is at the step learns it from the stream | as above |
//!
//! **Intent before effect**: a command to call is only ever in a decision whose events, or the committed events before
//! it, hold the `StepStarted` or `StepRetried` that announces the call. Commands may be carried out only after the
//! decision's events are durable. Then the log is never behind what may have happened outside.

mod backward;
mod choreographed;
mod forward;
mod invoke;
mod machine;
mod operator;
pub(crate) mod render;
mod reported;
#[cfg(test)]
pub(crate) mod tests;
mod wake;

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::{
    invoke::{Invoke, Purpose, Target},
    operator::{OperatorAction, OperatorCommand, Resolution},
    reported::{Report, Reported, ReportedOutcome},
    wake::{wake_at, wake_at_after_fold},
};
use crate::{
    classify::CallReport,
    definition::Definition,
    event::{Event, Mode, SagaStarted},
    ids::{Operation, SagaId},
    json::Document,
    shard::batch::Origin,
    state::{BadStream, Outcome, SagaState, Status, StepStatus},
    time::Timestamp,
};

/// What a saga is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time went on, or the saga was loaded: do what is due.
    Tick,
    /// The process that drove the saga died, and what is due now was probably in progress then. To be fed before the
    /// first tick: one that kills the process must find itself counted.
    TakenOver {
        /// With so many takeovers since the saga last moved on, it is parked.
        takeovers_max: u32,
    },
    CallFinished {
        step: Arc<str>,
        call: u64,
        report: CallReport,
    },
    Callback(Callback),
    /// Of a choreographed saga: participants tell what they did.
    Reported(Reported),
    Operator(OperatorCommand),
}

/// A participant tells how an operation ended that it had accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Callback {
    pub step: String,
    pub operation: Operation,
    pub outcome: CallbackOutcome,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallbackOutcome {
    /// The output stands where an answer's body would.
    Succeeded {
        output: Value,
    },
    Rejected {
        code: String,
        reason: String,
    },
}

/// What the shell must do once the events are durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Invoke(Box<Invoke>),
    /// Feed [`Input::Tick`] at this time, unless another decision is made before.
    SetTimer {
        at: Timestamp,
    },
}

/// What follows from an input.
#[derive(Clone, Debug)]
pub struct Decision {
    pub events: Vec<Announced>,
    pub commands: Vec<Command>,
    /// The state once the events are committed and the commands are being carried out.
    pub next: SagaState,
}

/// An event to commit, with who caused it.
#[derive(Clone, Debug)]
pub struct Announced {
    pub event: Event,
    pub actor: Option<Arc<str>>,
    pub origin: Origin,
}

/// Why an input cannot be applied. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum IllegalInput {
    #[error("the saga has ended as {0}")]
    Ended(Status),
    #[error("step `{0}` is not in the definition")]
    NoSuchStep(String),
    #[error("the saga is at revision {actual}, not {expected}")]
    RevisionMismatch { expected: u64, actual: u64 },
    #[error("the {operation} of step `{step}` is not under way: the step is {}", .status.as_str())]
    NotUnderWay { step: String, operation: Operation, status: StepStatus },
    #[error("the request id was used for another command: {0}")]
    RequestIdTaken(String),
    /// A report that would be wrong in any state.
    #[error("{0}")]
    BadReport(String),
    #[error("{0}")]
    NotNow(String),
    #[error("{0}")]
    MissingOutput(String),
    #[error(transparent)]
    Broken(#[from] BadStream),
}

/// What a start needs beside the definition.
#[derive(Clone, Debug)]
pub struct Start {
    pub id: SagaId,
    pub mode: Mode,
    /// As received: validated at the edge, stored byte for byte.
    pub input: Document,
    pub correlation_id: String,
    pub traceparent: Option<String>,
    /// Whose personal data is sealed in the input.
    pub subject: Option<Arc<str>>,
}

/// Begins a saga: its first events, and the calls of the steps that need no other.
///
/// # Errors
///
/// When the input is not JSON.
pub fn start(definition: &Definition, start: Start, now: Timestamp) -> Result<Decision, BadStream> {
    let started = SagaStarted {
        definition: definition.name.clone(),
        definition_version: definition.version,
        definition_hash: definition.hash.clone(),
        mode: start.mode,
        input: start.input,
        correlation_id: start.correlation_id,
        subject: start.subject.as_deref().map(String::from),
        traceparent: start.traceparent,
        deadline_at: definition.deadline.map(|deadline| now.plus(deadline)),
    };
    let state = SagaState::started(definition, start.id, &started, now)?;
    let mut machine = machine::Machine::new(definition, state, now);
    machine.announce_first(started.into());
    machine.advance();
    Ok(machine.finish())
}

/// Decides what follows from `input` in the committed `state`.
///
/// Pure: the same arguments give the same decision. An input that changes nothing gives a decision without events.
///
/// # Errors
///
/// When the input does not fit the state; the state stands as it was.
pub fn decide(
    definition: &Definition,
    state: &SagaState,
    input: Input,
    now: Timestamp,
) -> Result<Decision, IllegalInput> {
    let mut machine = machine::Machine::new(definition, state.clone(), now);
    match input {
        Input::Tick => machine.tick(),
        Input::TakenOver { takeovers_max } => {
            // What is due waits for the tick: the takeover must be durable first.
            machine.taken_over(takeovers_max);
            return Ok(machine.finish());
        }
        Input::CallFinished { step, call, report } => machine.call_finished(&step, call, report),
        Input::Callback(callback) => machine.callback(callback)?,
        Input::Reported(reported) => machine.reported(reported)?,
        Input::Operator(command) => machine.operate(command)?,
    }
    machine.advance();
    Ok(machine.finish())
}

impl CallbackOutcome {
    const fn as_outcome(&self) -> Outcome {
        match self {
            Self::Succeeded { .. } => Outcome::Succeeded,
            Self::Rejected { .. } => Outcome::Rejected,
        }
    }
}
