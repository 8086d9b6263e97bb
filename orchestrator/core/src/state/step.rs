//! One step of a saga, and how far the operation under way has come.

use alloc::{string::String, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Outcome;
use crate::{ids::Operation, time::Timestamp};

/// One step of a saga.
#[derive(Clone, Debug, PartialEq)]
pub struct StepState {
    pub id: Arc<str>,
    pub status: StepStatus,
    /// How the action ended, once it did.
    pub outcome: Option<Outcome>,
    pub output: Option<Arc<Value>>,
    /// Of a pending step: announced already, so that it may be called before the success of what it needs is durable. With
    /// `work.reached`, a process that is gone may have called it.
    pub is_ahead: bool,
    /// Of the operation under way, or of the last one.
    pub work: Work,
    /// Volatile: not part of the fold.
    pub flight: Flight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    Pending,
    Running,
    /// The action's outcome is in doubt; its status call is being asked.
    Checking,
    Succeeded,
    Rejected,
    Unknown,
    Skipped,
    Compensating,
    Compensated,
    CompensationSkipped,
}

/// How far an operation has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    pub started_at: Timestamp,
    /// Attempts that ended and count, over all policies.
    pub attempts: u32,
    /// Those since the policy began or was renewed.
    pub tries: u32,
    /// Attempts since then that met a misconfiguration.
    pub misconfigured: u32,
    /// Answers "in flight" (409) since then.
    pub in_flight_answers: u32,
    /// Whether anything may have reached the participant.
    pub reached: bool,
    pub wait: Wait,
}

/// What an operation that is not in flight waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing: it is to be called.
    Call,
    /// The next attempt's time.
    Until(Timestamp),
    /// A callback, or a poll at `poll_at`.
    Accepted { since: Timestamp, location: Option<String>, poll_at: Option<Timestamp> },
    /// An operator.
    Parked { code: String, reason: String },
}

/// Whether a call is in flight; known to the living process only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flight {
    #[default]
    Landed,
    /// With the number that its report must carry.
    Airborne(u64),
    /// Not attempted before this time: no permit, circuit open, or a poll said "not yet".
    Deferred(Timestamp),
}

impl StepState {
    pub(super) fn end(
        &mut self,
        status: StepStatus,
        outcome: Option<Outcome>,
        output: Option<Arc<Value>>,
        attempt: u32,
    ) {
        self.flight = Flight::Landed;
        self.is_ahead = false;
        self.status = status;
        self.outcome = outcome;
        self.output = output;
        self.work.attempts = self.work.attempts.max(attempt);
        self.work.wait = Wait::Call;
    }

    #[must_use]
    pub fn is_parked(&self) -> bool {
        matches!(self.work.wait, Wait::Parked { .. })
    }

    /// Whether the saga can go forward past this step.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        matches!(self.status, StepStatus::Succeeded | StepStatus::Skipped)
    }
}

impl StepStatus {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Checking => "checking",
            Self::Succeeded => "succeeded",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
            Self::Skipped => "skipped",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
            Self::CompensationSkipped => "compensation_skipped",
        }
    }

    /// The operation that is under way.
    #[must_use]
    pub const fn operation(self) -> Option<Operation> {
        match self {
            Self::Running | Self::Checking => Some(Operation::Action),
            Self::Compensating => Some(Operation::Compensation),
            Self::Pending
            | Self::Succeeded
            | Self::Rejected
            | Self::Unknown
            | Self::Skipped
            | Self::Compensated
            | Self::CompensationSkipped => None,
        }
    }
}

impl Default for Work {
    fn default() -> Self {
        Self {
            started_at: Timestamp::default(),
            attempts: 0,
            tries: 0,
            misconfigured: 0,
            in_flight_answers: 0,
            reached: false,
            wait: Wait::Call,
        }
    }
}

/// What a step is while this operation of it is under way.
pub(super) const fn in_operation(operation: Operation) -> StepStatus {
    match operation {
        Operation::Action => StepStatus::Running,
        Operation::Compensation => StepStatus::Compensating,
    }
}
