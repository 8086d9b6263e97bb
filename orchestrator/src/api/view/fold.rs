//! From a saga's events to what a client sees: the engine's own fold for where it stands, and beside it the history that
//! the engine does not need, times and attempts. A pure function.

use std::sync::Arc;

use skald_core::{
    definition::{Definition, Step},
    event::{CallNote, Event, Fact, Mode},
    ids::Operation,
    state::{BadStream, SagaState, StepState, StepStatus, Wait},
    time::Timestamp,
};

use super::{
    super::words::Moment, CompensationStatus, Saga, SagaAttempt, SagaCompensation, SagaFailure, SagaParking, SagaStep,
};

/// What a client sees of the saga whose whole stream this is, and whose personal data is sealed in it.
///
/// # Errors
///
/// When the stream is not whole, or not of this definition.
pub fn saga_view<'s>(
    definition: &Definition,
    stream: impl IntoIterator<Item = Fact<'s>>,
) -> Result<(Saga, Option<Arc<str>>), BadStream> {
    let mut histories = Histories::new(definition);
    let mut input = None;
    let state = SagaState::replay(definition, stream, None, |state, fact| {
        if let Event::SagaStarted(started) = fact.event {
            input = Some(started.input.text().to_owned());
        }
        histories.note(fact);
        if state.mode == Mode::Choreographed {
            histories.note_enabled(state);
        }
    })?;
    let steps = state.steps.iter().zip(&definition.steps).zip(histories.histories);
    let saga = Saga {
        id: state.id.to_string(),
        definition: state.definition.to_string(),
        version: state.definition_version,
        mode: state.mode.into(),
        status: state.status.into(),
        state: state.state_name(definition).to_owned(),
        input: input.ok_or(BadStream::NoStart)?,
        output: state.output.clone(),
        failure: state.failure.clone().map(SagaFailure::from),
        steps: steps.map(|((step, described), history)| step_view(step, described, history)).collect(),
        correlation_id: state.correlation_id.to_string(),
        created_at: state.created_at.into(),
        updated_at: state.updated_at.into(),
        ended_at: state.ended_at.map(Moment),
        deadline_at: state.deadline_at.map(Moment),
        revision: state.version,
    };
    Ok((saga, state.subject))
}

/// What an event says beside the request that led to it.
#[derive(Clone, Copy)]
struct Trouble<'a> {
    reason: Option<&'a str>,
    next_at: Option<Timestamp>,
}

impl<'a> Trouble<'a> {
    const NONE: Self = Self { reason: None, next_at: None };

    const fn because(reason: &'a str) -> Self {
        Self { reason: Some(reason), next_at: None }
    }
}

/// What a step has been through.
#[derive(Default)]
struct History {
    action: Span,
    compensation: Span,
    parked_at: Timestamp,
    attempts: Vec<SagaAttempt>,
}

#[derive(Default)]
struct Span {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

impl Span {
    fn begin(&mut self, at: Timestamp) {
        self.from.get_or_insert(at);
    }

    fn duration_ms(&self) -> Option<u64> {
        Some(self.from?.until(self.to?).0)
    }
}

impl History {
    fn span(&mut self, operation: Operation) -> &mut Span {
        match operation {
            Operation::Action => &mut self.action,
            Operation::Compensation => &mut self.compensation,
        }
    }

    /// Takes down a request, if there was one.
    fn attempt(&mut self, operation: Operation, number: u32, call: &CallNote, trouble: Trouble<'_>) {
        let Some(at) = call.called_at else { return };
        self.attempts.push(SagaAttempt {
            number,
            operation: operation.into(),
            at: at.into(),
            duration_ms: call.duration_ms,
            http_status: call.http_status,
            error: call.error.as_deref().or(trouble.reason).map(str::to_owned),
            next_at: trouble.next_at.map(Moment),
        });
    }

    /// The action has an outcome.
    fn action_ended(&mut self, at: Timestamp, attempt: u32, call: &CallNote, trouble: Trouble<'_>) {
        self.action.to = Some(at);
        self.attempt(Operation::Action, attempt, call, trouble);
    }
}

/// The histories of a definition's steps, in their order.
struct Histories<'a> {
    definition: &'a Definition,
    histories: Vec<History>,
}

impl<'a> Histories<'a> {
    fn new(definition: &'a Definition) -> Self {
        Self { definition, histories: definition.steps.iter().map(|_| History::default()).collect() }
    }

    fn of(&mut self, step: &str) -> &mut History {
        let (index, _) = self.definition.step(step).expect("an event that was folded names a step of the definition");
        &mut self.histories[index]
    }

    /// Nobody announces an operation of a choreographed saga: it begins when the stream enables it.
    fn note_enabled(&mut self, state: &SagaState) {
        for (step, history) in state.steps.iter().zip(&mut self.histories) {
            if let Some(operation) = step.status.operation() {
                history.span(operation).begin(state.updated_at);
            }
        }
    }

    fn note(&mut self, fact: Fact<'_>) {
        use Operation::{Action, Compensation};
        let at = fact.occurred_at;
        match fact.event {
            Event::StepStarted(event) => self.of(&event.step).span(event.operation).begin(at),
            Event::AttemptFailed(event) => {
                let trouble = Trouble { reason: None, next_at: Some(event.next_at) };
                self.of(&event.step).attempt(event.operation, event.attempt, &event.call, trouble);
            }
            Event::StepAccepted(event) => {
                self.of(&event.step).attempt(event.operation, event.attempt, &event.call, Trouble::NONE);
            }
            Event::StepDoubted(event) => {
                self.of(&event.step).attempt(Action, event.attempt, &event.call, Trouble::because(&event.reason));
            }
            Event::StepSucceeded(event) => {
                self.of(&event.step).action_ended(at, event.attempt, &event.call, Trouble::NONE)
            }
            Event::StepOutputInvalid(event) => {
                self.of(&event.step).action_ended(at, event.attempt, &event.call, Trouble::because(&event.reason));
            }
            Event::StepRejected(event) => {
                self.of(&event.step).action_ended(at, event.attempt, &event.call, Trouble::because(&event.reason));
            }
            Event::StepUnknown(event) => {
                self.of(&event.step).action_ended(at, event.attempt, &event.call, Trouble::because(&event.reason));
            }
            Event::StepSkipped(event) => self.of(&event.step).action.to = Some(at),
            Event::StepCompensated(event) => {
                let history = self.of(&event.step);
                history.compensation.to = Some(at);
                history.attempt(Compensation, event.attempt, &event.call, Trouble::NONE);
            }
            Event::CompensationSkipped(event) => self.of(&event.step).compensation.to = Some(at),
            Event::StepParked(event) => {
                let history = self.of(&event.step);
                history.span(event.operation).begin(at);
                history.parked_at = at;
                history.attempt(event.operation, event.attempt, &event.call, Trouble::because(&event.reason));
            }
            Event::StepRetried(_)
            | Event::SagaStarted(_)
            | Event::SagaTakenOver(_)
            | Event::SagaTimedOut(_)
            | Event::SagaFailed(_)
            | Event::SagaCompleted(_)
            | Event::SagaCompensated(_)
            | Event::SagaAbandoned(_)
            | Event::OperatorActed(_) => {}
        }
    }
}

fn step_view(step: &StepState, described: &Step, history: History) -> SagaStep {
    let names = &described.states;
    let state = match step.status {
        StepStatus::Running | StepStatus::Checking => Some(&names.doing),
        StepStatus::Succeeded => Some(&names.done),
        StepStatus::Rejected | StepStatus::Unknown => Some(&names.failed),
        StepStatus::Compensating => Some(&names.undoing),
        StepStatus::Pending | StepStatus::Skipped | StepStatus::Compensated | StepStatus::CompensationSkipped => None,
    };
    let parked = match (&step.work.wait, step.status.operation()) {
        (Wait::Parked { code, reason }, Some(operation)) => Some(SagaParking {
            operation: operation.into(),
            code: code.clone(),
            reason: reason.clone(),
            since: history.parked_at.into(),
        }),
        _ => None,
    };
    let compensation_status = match step.status {
        StepStatus::Compensating if parked.is_some() => Some(CompensationStatus::Parked),
        StepStatus::Compensating => Some(CompensationStatus::Running),
        StepStatus::Compensated => Some(CompensationStatus::Compensated),
        StepStatus::CompensationSkipped => Some(CompensationStatus::Skipped),
        StepStatus::Pending
        | StepStatus::Running
        | StepStatus::Checking
        | StepStatus::Succeeded
        | StepStatus::Rejected
        | StepStatus::Unknown
        | StepStatus::Skipped => None,
    };
    let undone = &history.compensation;
    SagaStep {
        id: step.id.to_string(),
        status: step.status.into(),
        state: state.cloned(),
        outcome: step.outcome.map(Into::into),
        started_at: history.action.from.map(Moment),
        ended_at: history.action.to.map(Moment),
        duration_ms: history.action.duration_ms(),
        output: step.output.clone(),
        attempts: history.attempts,
        compensation: compensation_status.zip(undone.from).map(|(status, from)| SagaCompensation {
            status,
            started_at: from.into(),
            ended_at: undone.to.map(Moment),
            duration_ms: undone.duration_ms(),
        }),
        parked,
    }
}

#[cfg(test)]
mod tests;
