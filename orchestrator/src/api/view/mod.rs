//! Sagas as clients see them. A field without a value is left out.

mod event;
mod fold;
mod opening;

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, value::RawValue};
use skald_core::state::{Failure, SagaRow};
use utoipa::ToSchema;

pub use self::{
    event::{SagaEvent, SagaEventPage, shown},
    fold::saga_view,
    opening::{show, tokens},
};
use super::words::{Moment, SagaMode, SagaStatus, StepOperation, StepOutcome, StepStatus};

/// A saga: one run of a definition with one input.
#[derive(Debug, Serialize, ToSchema)]
pub struct Saga {
    #[schema(format = "uuid", example = "01890a5d-ac96-774b-bcce-b302099a8057")]
    pub id: String,
    #[schema(example = "checkout")]
    pub definition: String,
    /// Of the definition; a saga keeps the one it started with.
    #[schema(example = 1)]
    pub version: u32,
    pub mode: SagaMode,
    pub status: SagaStatus,
    /// The readable name of where the saga is; definitions may choose their own names.
    #[schema(example = "SALE_CONFIRMED")]
    pub state: String,
    /// As it was received.
    #[schema(value_type = Value)]
    pub input: Box<RawValue>,
    /// Of a completed saga, if its definition says what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = Option<Value>)]
    pub output: Option<Arc<Value>>,
    /// Why the saga went backward.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub failure: Option<SagaFailure>,
    /// In an order in which each comes after those it needs.
    pub steps: Vec<SagaStep>,
    pub correlation_id: String,
    pub created_at: Moment,
    pub updated_at: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ended_at: Option<Moment>,
    /// When the saga will be undone unless it is past its pivot.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub deadline_at: Option<Moment>,
    /// Grows with every change; also the `ETag`.
    #[schema(example = 12)]
    pub revision: u64,
}

/// Why a saga went backward.
#[derive(Debug, Serialize, ToSchema)]
pub struct SagaFailure {
    /// The step that failed; absent when none did (a deadline, an operator).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "process_payment")]
    pub step: Option<String>,
    #[schema(example = "card_declined")]
    pub code: String,
    pub reason: String,
}

/// One step of a saga.
#[derive(Debug, Serialize, ToSchema)]
pub struct SagaStep {
    #[schema(example = "reserve_stock")]
    pub id: String,
    pub status: StepStatus,
    /// The readable name of where the step is, while the definition has one for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "STOCK_RESERVED")]
    pub state: Option<String>,
    /// How the action ended, once it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub outcome: Option<StepOutcome>,
    /// When the action began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub started_at: Option<Moment>,
    /// When the action's outcome was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ended_at: Option<Moment>,
    /// From the one to the other, waiting included.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = Option<Value>)]
    pub output: Option<Arc<Value>>,
    /// Requests that have ended, oldest first.
    pub attempts: Vec<SagaAttempt>,
    /// Once it has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub compensation: Option<SagaCompensation>,
    /// What an operator must decide, while the step is parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub parked: Option<SagaParking>,
}

/// One request made for a step.
#[derive(Debug, Serialize, ToSchema)]
pub struct SagaAttempt {
    /// From 1, per operation. The answer to a poll or a status call has the number of the attempt it asks about.
    #[schema(example = 1)]
    pub number: u32,
    pub operation: StepOperation,
    pub at: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 200)]
    pub http_status: Option<u16>,
    /// Why it was no success.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<String>,
    /// When the next attempt is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_at: Option<Moment>,
}

/// Where the compensation of a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CompensationStatus {
    Running,
    Parked,
    Compensated,
    /// Closed by an operator without having been carried out.
    Skipped,
}

/// The compensation of a step.
#[derive(Debug, Serialize, ToSchema)]
pub struct SagaCompensation {
    pub status: CompensationStatus,
    pub started_at: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ended_at: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub duration_ms: Option<u64>,
}

/// Why a step is parked.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SagaParking {
    pub operation: StepOperation,
    #[schema(example = "attempts_exhausted")]
    pub code: String,
    pub reason: String,
    pub since: Moment,
}

/// A saga in a list: what it takes to find it, without its steps.
#[derive(Debug, Serialize, ToSchema)]
pub struct SagaSummary {
    #[schema(format = "uuid", example = "01890a5d-ac96-774b-bcce-b302099a8057")]
    pub id: String,
    #[schema(example = "checkout")]
    pub definition: String,
    #[schema(example = 1)]
    pub version: u32,
    pub mode: SagaMode,
    pub status: SagaStatus,
    #[schema(example = "SALE_CONFIRMED")]
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub failure: Option<SagaFailure>,
    pub correlation_id: String,
    pub created_at: Moment,
    pub updated_at: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ended_at: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub deadline_at: Option<Moment>,
    #[schema(example = 12)]
    pub revision: u64,
}

impl From<Failure> for SagaFailure {
    fn from(failure: Failure) -> Self {
        Self { step: failure.step, code: failure.code, reason: failure.reason }
    }
}

impl From<SagaRow> for SagaSummary {
    fn from(row: SagaRow) -> Self {
        Self {
            id: row.id.to_string(),
            definition: row.definition.to_string(),
            version: row.definition_version,
            mode: row.mode.into(),
            status: row.status.into(),
            state: row.state,
            failure: row.failure.map(SagaFailure::from).map(opening::hidden),
            correlation_id: row.correlation_id.to_string(),
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            ended_at: row.ended_at.map(Moment),
            deadline_at: row.deadline_at.map(Moment),
            revision: row.version,
        }
    }
}

impl Saga {
    /// What is known of a saga from its row alone: everything but its steps and output. For the moment in which a saga
    /// was started, but cannot be read.
    #[must_use]
    pub fn without_steps(row: SagaRow, input: Box<RawValue>) -> Self {
        let summary = SagaSummary::from(row);
        Self {
            id: summary.id,
            definition: summary.definition,
            version: summary.version,
            mode: summary.mode,
            status: summary.status,
            state: summary.state,
            input: opening::hidden_input(input),
            output: None,
            failure: summary.failure,
            steps: Vec::new(),
            correlation_id: summary.correlation_id,
            created_at: summary.created_at,
            updated_at: summary.updated_at,
            ended_at: summary.ended_at,
            deadline_at: summary.deadline_at,
            revision: summary.revision,
        }
    }

    #[must_use]
    pub fn is_ended(&self) -> bool {
        skald_core::state::Status::from(self.status).is_ended()
    }
}
