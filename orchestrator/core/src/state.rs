//! What a saga has come to: the fold of its events.
//!
//! | event | the step becomes | the saga becomes |
//! | --- | --- | --- |
//! | `SagaStarted` | all `pending` | `running` |
//! | `SagaTakenOver` | | as before, with one more takeover since it last moved on |
//! | `StepStarted` (action / compensation) | `running` / `compensating`; those that it names ahead stay `pending`, announced | |
//! | `AttemptFailed` | waits until `next_at` | |
//! | `StepAccepted` | waits for a callback or a poll | |
//! | `StepDoubted` | `checking`: its status call is asked | |
//! | `StepSucceeded`, `StepOutputInvalid` | `succeeded` | |
//! | `StepRejected`, `StepUnknown`, `StepSkipped` | `rejected`, `unknown`, `skipped` | |
//! | `StepCompensated`, `CompensationSkipped` | `compensated`, `compensation_skipped` | |
//! | `StepParked` | waits for an operator | `parked` |
//! | `StepRetried` | is called again under a fresh policy | as before it was parked |
//! | `SagaTimedOut` (choreographed) | | `compensating` |
//! | `SagaFailed` | what is announced ahead and pending is announced no more | `compensating` |
//! | `SagaCompleted`, `SagaCompensated`, `SagaAbandoned` | | ended |
//!
//! Of a choreographed saga nobody announces operations: what the stream's order enables is derived after every event.
//!
//! | in the stream | makes of a step |
//! | --- | --- |
//! | all its needs succeeded or were skipped, and nothing has failed | `running` |
//! | the first failure (`StepRejected`, `StepOutputInvalid`, `SagaTimedOut`, `SagaFailed`) | what is `running` stays so until its owner says what became of it; nothing else becomes `running` |
//! | after it: every step that depends on one that succeeded with an effect has ended and, where it succeeded, is undone | `compensating` |
//!
//! Beside the fold, a state knows which calls are in flight. That is volatile: after a fold none is, and a resumed saga
//! calls again what the log says may have been called.

mod choreographed;
mod evolve;
mod step;

use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::step::{Flight, StepState, StepStatus, Wait, Work};
use crate::{
    definition::Definition,
    event::{Event, Fact, Mode, Recorded, SagaStarted},
    ids::{Epoch, Operation, SagaId},
    time::Timestamp,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Running,
    Compensating,
    /// Needs an operator.
    Parked,
    Completed,
    /// Every effect is undone; possibly none existed.
    Compensated,
    /// Closed by an operator, or with a compensation skipped by one.
    Abandoned,
}

impl Status {
    pub const ALL: [Self; 6] =
        [Self::Running, Self::Compensating, Self::Parked, Self::Completed, Self::Compensated, Self::Abandoned];

    #[must_use]
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated | Self::Abandoned)
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Parked => "parked",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Abandoned => "abandoned",
        }
    }
}

impl core::fmt::Display for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which way the saga goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Forward,
    Backward,
}

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Succeeded,
    /// It had no effect.
    Rejected,
    /// It may have had its effect.
    Unknown,
}

impl Outcome {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a saga went backward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub step: Option<String>,
    pub code: String,
    pub reason: String,
}

/// The fold of a saga's events.
#[derive(Clone, Debug, PartialEq)]
pub struct SagaState {
    pub id: SagaId,
    pub definition: Arc<str>,
    pub definition_version: u32,
    pub mode: Mode,
    /// Of the last event; the `revision` of the API.
    pub version: u64,
    pub status: Status,
    pub phase: Phase,
    pub failure: Option<Failure>,
    pub input: Arc<Value>,
    pub output: Option<Arc<Value>>,
    pub correlation_id: Arc<str>,
    pub traceparent: Option<Arc<str>>,
    /// Whose personal data is sealed in it.
    pub subject: Option<Arc<str>>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub deadline_at: Option<Timestamp>,
    /// In the order of [`Definition::steps`].
    pub steps: Vec<StepState>,
    /// How many processes in a row died with something of the saga in progress. Any other event resets it.
    pub takeovers: u32,
    /// Oldest first.
    pub commands: Vec<CarriedOut>,
    /// Volatile: numbers the calls of this process.
    pub calls: u64,
}

/// An operator's command that was carried out, as far as a repetition of it must be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedOut {
    pub request_id: String,
    pub action: String,
    pub step: Option<String>,
    pub reason: String,
}

/// What the `sagas` table holds of a saga: enough to list it and to know when it must be woken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaRow {
    pub id: SagaId,
    pub definition: Arc<str>,
    pub definition_version: u32,
    pub mode: Mode,
    pub status: Status,
    /// The readable name of where the machine is.
    pub state: String,
    pub version: u64,
    pub correlation_id: Arc<str>,
    pub failure: Option<Failure>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub deadline_at: Option<Timestamp>,
    /// When the saga must next be looked at; None when only an input can move it on.
    pub wake_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum BadStream {
    #[error("a saga's stream begins with SagaStarted, version 1")]
    NoStart,
    #[error("version {found} where {expected} was expected")]
    Gap { expected: u64, found: u64 },
    #[error("the saga is pinned to {name} version {version} with hash {hash}, which is not the definition at hand")]
    WrongDefinition { name: String, version: u32, hash: String },
    #[error("step `{0}` is not in the definition")]
    NoSuchStep(String),
}

impl SagaState {
    /// The state that a saga begins in.
    ///
    /// # Errors
    ///
    /// When the definition is not the one the saga is pinned to.
    pub fn started(
        definition: &Definition,
        id: SagaId,
        started: &SagaStarted,
        at: Timestamp,
    ) -> Result<Self, BadStream> {
        let pinned = (started.definition.as_str(), started.definition_version, started.definition_hash.as_str());
        if pinned != (definition.name.as_str(), definition.version, definition.hash.as_str()) {
            return Err(BadStream::WrongDefinition {
                name: started.definition.clone(),
                version: started.definition_version,
                hash: started.definition_hash.clone(),
            });
        }
        let step = |step: &crate::definition::Step| StepState {
            id: Arc::from(step.id.as_str()),
            status: StepStatus::Pending,
            outcome: None,
            output: None,
            is_ahead: false,
            work: Work::default(),
            flight: Flight::Landed,
        };
        let mut state = Self {
            id,
            definition: Arc::from(started.definition.as_str()),
            definition_version: started.definition_version,
            mode: started.mode,
            version: 1,
            status: Status::Running,
            phase: Phase::Forward,
            failure: None,
            input: Arc::clone(started.input.value()),
            output: None,
            correlation_id: Arc::from(started.correlation_id.as_str()),
            traceparent: started.traceparent.as_deref().map(Arc::from),
            subject: started.subject.as_deref().map(Arc::from),
            created_at: at,
            updated_at: at,
            ended_at: None,
            deadline_at: started.deadline_at,
            steps: definition.steps.iter().map(step).collect(),
            takeovers: 0,
            commands: Vec::new(),
            calls: 0,
        };
        state.enable(definition, at);
        Ok(state)
    }

    /// Folds a whole stream.
    ///
    /// `owner` is the epoch of the replica that will drive the saga on: an operation whose intent was committed in an
    /// earlier one may have been called by a process that is gone, so it counts as having reached its participant.
    /// Readers pass None.
    ///
    /// # Errors
    ///
    /// When the stream is not whole, or not of this definition.
    pub fn fold(definition: &Definition, stream: &[Recorded], owner: Option<Epoch>) -> Result<Self, BadStream> {
        Self::replay(definition, stream.iter().map(Fact::from), owner, |_, _| {})
    }

    /// [`SagaState::fold`] that shows each event, with the state right after it.
    ///
    /// # Errors
    ///
    /// As for a fold.
    pub fn replay<'s>(
        definition: &Definition,
        stream: impl IntoIterator<Item = Fact<'s>>,
        owner: Option<Epoch>,
        mut see: impl FnMut(&Self, Fact<'s>),
    ) -> Result<Self, BadStream> {
        let mut stream = stream.into_iter();
        let Some(first @ Fact { event: Event::SagaStarted(started), version: 1, .. }) = stream.next() else {
            return Err(BadStream::NoStart);
        };
        let mut state = Self::started(definition, first.stream, started, first.occurred_at)?;
        see(&state, first);
        for fact in stream {
            let expected = state.version + 1;
            if fact.version != expected {
                return Err(BadStream::Gap { expected, found: fact.version });
            }
            state.evolve(definition, fact.event, fact.occurred_at)?;
            if may_have_been_called(fact.epoch, owner) {
                for step in fact.event.intents() {
                    state.step_mut(step)?.work.reached = true;
                }
            }
            see(&state, fact);
        }
        Ok(state)
    }

    /// The operator's command that was carried out under this request id, if it is not too long ago.
    #[must_use]
    pub fn carried_out(&self, request_id: &str) -> Option<&CarriedOut> {
        self.commands.iter().find(|command| command.request_id == request_id)
    }

    /// The step with this id.
    #[must_use]
    pub fn step(&self, id: &str) -> Option<&StepState> {
        self.steps.iter().find(|step| &*step.id == id)
    }

    fn step_mut(&mut self, id: &str) -> Result<&mut StepState, BadStream> {
        self.steps.iter_mut().find(|step| &*step.id == id).ok_or_else(|| BadStream::NoSuchStep(id.to_owned()))
    }

    /// Whether the step had, or may have had, an effect that still stands, no compensation has begun, and everything
    /// that depends on it has ended and is undone.
    #[must_use]
    pub fn is_to_be_undone(&self, definition: &Definition, index: usize) -> bool {
        let ended = matches!(self.steps[index].status, StepStatus::Succeeded | StepStatus::Unknown);
        ended && definition.steps[index].has_effect && self.dependents_are_settled(definition, index)
    }

    fn dependents_are_settled(&self, definition: &Definition, index: usize) -> bool {
        #[cfg(feature = "mutants")]
        if crate::mutants::UNDO_IN_ANY_ORDER.is_on() {
            return true;
        }
        definition.downstream(index).into_iter().all(|later| self.is_settled(definition, later))
    }

    /// Whether nothing of the step stands or is under way.
    #[must_use]
    pub fn is_settled(&self, definition: &Definition, index: usize) -> bool {
        match self.steps[index].status {
            StepStatus::Pending
            | StepStatus::Rejected
            | StepStatus::Skipped
            | StepStatus::Compensated
            | StepStatus::CompensationSkipped => true,
            StepStatus::Succeeded | StepStatus::Unknown => !definition.steps[index].has_effect,
            StepStatus::Running | StepStatus::Checking | StepStatus::Compensating => false,
        }
    }

    /// The readable name of where the machine is.
    #[must_use]
    pub fn state_name<'a>(&self, definition: &'a Definition) -> &'a str {
        let first = |wanted: fn(&StepState) -> bool| {
            self.steps.iter().zip(&definition.steps).find(|(state, _)| wanted(state)).map(|(_, step)| &step.states)
        };
        match self.status {
            Status::Completed => &definition.states.completed,
            Status::Abandoned => "ABANDONED",
            Status::Parked => &definition.states.parked,
            Status::Running => first(|step| step.status.operation() == Some(Operation::Action))
                .map_or(&definition.states.pending, |states| &states.doing),
            Status::Compensating => first(|step| step.status == StepStatus::Compensating)
                .map_or(&definition.states.compensating, |states| &states.undoing),
            Status::Compensated if self.steps.iter().any(|step| step.status == StepStatus::Compensated) => {
                &definition.states.compensated
            }
            Status::Compensated => self
                .failure
                .as_ref()
                .and_then(|failure| definition.step(failure.step.as_deref()?))
                .map_or(&definition.states.compensated, |(_, step)| &step.states.failed),
        }
    }

    /// What the `sagas` table holds of this state. A pure function of the fold: the volatile part has no say.
    #[must_use]
    pub fn row(&self, definition: &Definition) -> SagaRow {
        SagaRow {
            id: self.id,
            definition: Arc::clone(&self.definition),
            definition_version: self.definition_version,
            mode: self.mode,
            status: self.status,
            state: self.state_name(definition).to_string(),
            version: self.version,
            correlation_id: Arc::clone(&self.correlation_id),
            failure: self.failure.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            ended_at: self.ended_at,
            deadline_at: self.deadline_at,
            wake_at: crate::decide::wake_at_after_fold(definition, self),
        }
    }
}

/// Whether a process that is gone may have called what it announced in this epoch.
fn may_have_been_called(announced: Epoch, owner: Option<Epoch>) -> bool {
    #[cfg(feature = "mutants")]
    if crate::mutants::FORGET_WHAT_THE_DEAD_CALLED.is_on() {
        return false;
    }
    owner.is_some_and(|owner| announced < owner)
}
