//! A call to make: everything the dispatcher needs, with the expressions already evaluated.

use alloc::{boxed::Box, collections::BTreeSet, string::String, sync::Arc, vec::Vec};

use super::{machine::Machine, render::render};
use crate::{
    definition::{Call, Method},
    expr::ExprError,
    ids::{Operation, SagaId, call_key},
    personal::{Sealed, collect_tokens},
    state::{Outcome, StepStatus, Wait},
    time::{Millis, Timestamp},
};

/// One request to a participant.
#[derive(Clone, Debug, PartialEq)]
pub struct Invoke {
    pub saga: SagaId,
    pub definition: Arc<str>,
    pub step: Arc<str>,
    pub operation: Operation,
    pub purpose: Purpose,
    /// Number of this call in its process; the report carries it back.
    pub call: u64,
    /// From 1.
    pub attempt: u32,
    /// The idempotency key, the same on every attempt.
    pub key: String,
    pub service: String,
    pub target: Target,
    pub timeout: Millis,
    pub deadline_at: Option<Timestamp>,
    /// For a compensation: how the action ended.
    pub compensates: Option<Outcome>,
    pub correlation_id: Arc<str>,
    pub traceparent: Option<Arc<str>>,
    /// What is to be opened in the request and sealed in the answer; of a saga with personal data.
    pub sealed: Option<Box<Sealed>>,
}

/// Why a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To have the operation carried out.
    Attempt,
    /// To ask how an accepted operation goes.
    Poll,
    /// To ask what became of an action in doubt.
    Status,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub method: Method,
    /// Path and query on the participant's base URL.
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// JSON text.
    pub body: Option<String>,
}

/// Why a call cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unready {
    #[error(transparent)]
    Expression(#[from] ExprError),
    #[error("the step took effect and its definition has no compensation")]
    NoCompensation,
}

impl Unready {
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Expression(_) => "expression_failed",
            Self::NoCompensation => "no_compensation",
        }
    }
}

impl Machine<'_> {
    /// Evaluates the expressions of the call that step `index` makes next.
    pub(super) fn target(&self, index: usize) -> Result<Target, Unready> {
        if let Some(path) = self.poll_location(index) {
            return Ok(Target { method: Method::Get, path, headers: Vec::new(), body: None });
        }
        let (call, _) = self.next_call(index).ok_or(Unready::NoCompensation)?;
        Ok(render(&self.state, call)?)
    }

    /// Evaluates the expressions of the call that undoes step `index`.
    pub(super) fn compensation_target(&self, index: usize) -> Result<Target, Unready> {
        let compensation = self.definition.steps[index].compensation.as_ref().ok_or(Unready::NoCompensation)?;
        Ok(render(&self.state, &compensation.call)?)
    }

    /// The call that the operation under way, or the action if none is, makes next, and its timeout.
    fn next_call(&self, index: usize) -> Option<(&Call, Millis)> {
        let step = &self.definition.steps[index];
        match self.state.steps[index].status {
            StepStatus::Checking => step.status_call.as_ref().map(|status| (&status.call, status.timeout)),
            StepStatus::Compensating => step.compensation.as_ref().map(|undo| (&undo.call, undo.timeout)),
            _ => Some((&step.call, step.timeout)),
        }
    }

    /// Makes the call of step `index` part of the decision.
    pub(super) fn invoke(&mut self, index: usize, target: Target) {
        let state = &self.state.steps[index];
        let operation = state.status.operation().expect("only an operation under way is called");
        let purpose = match (&state.work.wait, state.status) {
            (Wait::Accepted { .. }, _) => Purpose::Poll,
            (_, StepStatus::Checking) => Purpose::Status,
            _ => Purpose::Attempt,
        };
        let (call, own_timeout) = self.next_call(index).expect("what was rendered has a call");
        let service = call.service.clone();
        let limit = self.time_limit(index);
        let timeout = limit.map_or(own_timeout, |limit| own_timeout.min(self.now.until(limit)).max(Millis(1)));
        let call = self.state.calls + 1;
        let invoke = Invoke {
            saga: self.state.id,
            definition: Arc::clone(&self.state.definition),
            step: Arc::clone(&state.id),
            operation,
            purpose,
            call,
            attempt: state.work.attempts + u32::from(purpose == Purpose::Attempt),
            key: call_key(self.state.id, &state.id, operation),
            service,
            target,
            timeout,
            deadline_at: self.state.deadline_at,
            compensates: (operation == Operation::Compensation).then(|| state.outcome.unwrap_or(Outcome::Unknown)),
            correlation_id: Arc::clone(&self.state.correlation_id),
            traceparent: self.state.traceparent.clone(),
            sealed: self.sealed(index).map(Box::new),
        };
        self.state.calls = call;
        self.airborne(index, invoke);
    }

    /// The tokens of the whole saga, not only of this request: a participant may answer what it was told before.
    fn sealed(&self, index: usize) -> Option<Sealed> {
        let subject = self.state.subject.as_ref()?;
        let personal = self.definition.personal.as_ref()?;
        let mut tokens = BTreeSet::new();
        let outputs = self.state.steps.iter().filter_map(|step| step.output.as_deref());
        outputs.chain([&*self.state.input]).for_each(|value| collect_tokens(value, &mut tokens));
        Some(Sealed {
            subject: Arc::clone(subject),
            tokens: tokens.into_iter().collect(),
            answer: personal.answer(&self.definition.steps[index].id),
        })
    }

    fn poll_location(&self, index: usize) -> Option<String> {
        match &self.state.steps[index].work.wait {
            Wait::Accepted { location, .. } => location.clone(),
            Wait::Call | Wait::Until(_) | Wait::Parked { .. } => None,
        }
    }
}
