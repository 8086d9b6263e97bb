//! What a participant of a choreographed saga owes, from the saga's stream and its definition alone.
//!
//! | its step is | and the saga | it owes |
//! | --- | --- | --- |
//! | `running` | goes forward | [`Duty::Act`]; [`Duty::Skip`] if the step's `if` is false; [`Duty::Reject`] if its expressions fail |
//! | `running` | has failed | [`Duty::Cancel`] |
//! | `compensating` | | [`Duty::Undo`] |
//! | anything else | | nothing |
//!
//! A duty stands until the stream tells how the operation ended. It may be seen by several processes, late, and again
//! after it was done; whoever carries it out relies on the barrier of the operation's key:
//!
//! - Effect, answer and outgoing report go into one local transaction. The report's event id is the operation's key.
//! - *Act* runs the handler once; a stored answer stands. An answer that [`report_of`] calls no outcome is not stored:
//!   the duty is tried again, until the stream withdraws it.
//! - *Cancel* looks under the action's key first. Where the action has an answer, its report stands and nothing else is
//!   done; where it has none, the tombstone that keeps it from ever running and the report `cancelled` are one
//!   transaction.
//! - *Undo* runs the compensation once. Where the action never took effect (its tombstone stands, and an operator said
//!   that it did), there is nothing to run, and it is reported as compensated all the same.
//! - A report that is refused because its operation is not under way, or the saga has ended, is dropped. If it said that
//!   the action took effect, the stream has closed the step without it: in the transaction that drops the report, the
//!   effect is undone by [`undo_of`] and nothing is told.
//!
//! A participant may know less of the stream than there is. What it does then is still right: it acts only on what was
//! enabled, and the stream's order decides what becomes of it.

mod follower;
#[cfg(test)]
mod tests;

use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

pub use self::follower::{CannotFollow, Followed, Follower, Pinned};
use crate::{
    classify::{Answer, Body, CallResult, Verdict, classify},
    decide::{
        ReportedOutcome, Target,
        render::{condition_holds, output_of, render},
    },
    definition::{Definition, Step, StepKind},
    event::Mode,
    ids::Operation,
    state::{Outcome, Phase, SagaState, StepStatus},
};

/// Something that a participant owes a saga.
#[derive(Clone, Debug, PartialEq)]
pub enum Duty {
    /// Carry out the action.
    Act { step: Arc<str>, target: Target },
    /// Report the step as skipped.
    Skip { step: Arc<str> },
    /// Report the step as rejected: its request cannot be made.
    Reject { step: Arc<str>, code: String, reason: String },
    /// See to it that the action has no effect from now on, unless it has had it.
    Cancel { step: Arc<str> },
    /// Carry out the compensation. `outcome` is how the action ended.
    Undo { step: Arc<str>, target: Target, outcome: Outcome },
}

impl Duty {
    #[must_use]
    pub fn step(&self) -> &str {
        match self {
            Self::Act { step, .. }
            | Self::Skip { step }
            | Self::Reject { step, .. }
            | Self::Cancel { step }
            | Self::Undo { step, .. } => step,
        }
    }

    /// The operation whose end is to be reported.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self {
            Self::Act { .. } | Self::Skip { .. } | Self::Reject { .. } | Self::Cancel { .. } => Operation::Action,
            Self::Undo { .. } => Operation::Compensation,
        }
    }
}

/// What the participant `service` owes the saga, in the order of the definition's steps.
///
/// Pure: equal states give equal duties, so that a request that is rendered again has the same fingerprint.
#[must_use]
pub fn duties(definition: &Definition, state: &SagaState, service: &str) -> Vec<Duty> {
    if state.mode != Mode::Choreographed || state.status.is_ended() {
        return Vec::new();
    }
    let steps = definition.steps.iter().zip(&state.steps).filter(|(step, _)| step.call.service == service);
    let duty = |(described, step): (&Step, &crate::state::StepState)| {
        let id = || Arc::clone(&step.id);
        match (step.status, state.phase) {
            (StepStatus::Running, Phase::Forward) => forward(state, described, id()),
            #[cfg(feature = "mutants")]
            (StepStatus::Running, Phase::Backward) if crate::mutants::ENABLE_AFTER_FAILURE.is_on() => {
                forward(state, described, id())
            }
            (StepStatus::Running, Phase::Backward) => Some(Duty::Cancel { step: id() }),
            (StepStatus::Compensating, _) => {
                let target = undo_of(definition, state, &step.id)?;
                Some(Duty::Undo { step: id(), target, outcome: step.outcome.unwrap_or(Outcome::Unknown) })
            }
            (
                StepStatus::Pending
                | StepStatus::Checking
                | StepStatus::Succeeded
                | StepStatus::Rejected
                | StepStatus::Unknown
                | StepStatus::Skipped
                | StepStatus::Compensated
                | StepStatus::CompensationSkipped,
                _,
            ) => None,
        }
    };
    steps.filter_map(duty).collect()
}

fn forward(state: &SagaState, described: &Step, step: Arc<str>) -> Option<Duty> {
    let target = match condition_holds(state, described) {
        Ok(false) => return Some(Duty::Skip { step }),
        Ok(true) => render(state, &described.call),
        Err(error) => Err(error),
    };
    match target {
        Ok(target) => Some(Duty::Act { step, target }),
        // After the pivot nothing is rejected; the saga's writer parks the step by itself.
        Err(_) if described.kind == StepKind::Retriable => None,
        Err(error) => Some(Duty::Reject { step, code: "expression_failed".to_owned(), reason: error.to_string() }),
    }
}

/// The request that undoes the step, as far as the stream tells; None when it has none or it cannot be rendered.
#[must_use]
pub fn undo_of(definition: &Definition, state: &SagaState, step: &str) -> Option<Target> {
    let (_, step) = definition.step(step)?;
    render(state, &step.compensation.as_ref()?.call).ok()
}

/// What the handler's answer to an operation means for the saga. None when it is no outcome: try again.
///
/// By the same table as the answers to an orchestrated saga's calls. No outcome are 5xx, 409 and whatever else is to be
/// retried there; 202, for nobody would ask again; a refused compensation; and, while the saga goes forward, a refusal
/// after the pivot.
#[must_use]
pub fn report_of(
    definition: &Definition,
    state: &SagaState,
    step: &str,
    operation: Operation,
    status: u16,
    body: Body,
) -> Option<ReportedOutcome> {
    let (_, step) = definition.step(step)?;
    let answer = Answer { status, retry_after: None, location: None, body };
    match (classify(CallResult::Answered(answer), operation, &step.classify), operation) {
        (Verdict::Done(body), Operation::Action) => {
            Some(match body.and_then(|body| output_of(state, step, body, Some(status))) {
                Ok(output) => ReportedOutcome::Succeeded { output },
                Err(reason) => ReportedOutcome::OutputInvalid { reason },
            })
        }
        (Verdict::Done(_), Operation::Compensation) => Some(ReportedOutcome::Compensated),
        (Verdict::Refused(_), Operation::Compensation) => None,
        (Verdict::Refused(_), Operation::Action)
            if step.kind == StepKind::Retriable && state.phase == Phase::Forward =>
        {
            None
        }
        (Verdict::Refused(refusal), Operation::Action) => {
            Some(ReportedOutcome::Rejected { code: refusal.code, reason: refusal.reason })
        }
        (
            Verdict::Accepted { .. }
            | Verdict::InFlight { .. }
            | Verdict::Retry { .. }
            | Verdict::Misconfigured { .. }
            | Verdict::Deferred { .. },
            _,
        ) => None,
    }
}
