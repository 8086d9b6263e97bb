//! Invariant 13: the same business outcomes, orchestrated.
//!
//! A choreographed saga's stream says how each operation ended, and in which order. Its twin is the orchestrated machine,
//! driven by hand: every call is answered as the stream tells, in the stream's order. Both must come to the same end.
//!
//! The twin may be ahead by steps that are skipped, which it finds out by itself and the other is told of. What it has
//! called by then and the other never enabled is cancelled when the stream fails.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use skald_core::{
    classify::{Answer, Body, CallReport, CallResult},
    decide::{self, Command, Input, Invoke, Start},
    definition::Definition,
    event::{Event, Fact, Mode, Recorded},
    ids::Operation,
    state::{SagaState, StepStatus},
    time::Millis,
};

/// The state that the orchestrated machine comes to; None when the stream tells of what cannot be said by answers:
/// operators, deadlines, what was parked.
#[must_use]
pub fn of(definition: &Definition, stream: &[Recorded]) -> Option<Result<SagaState, String>> {
    let comparable = |recorded: &Recorded| {
        !matches!(recorded.event, Event::OperatorActed(_) | Event::SagaTimedOut(_) | Event::StepParked(_))
    };
    if !stream.iter().all(comparable) {
        return None;
    }
    let mut twin = Twin::start(definition, stream)?;
    let mut lacking = None;
    let folded = SagaState::replay(definition, stream.iter().map(Fact::from), None, |state, fact| {
        let took = twin.take_in(state, fact.event);
        lacking = lacking.take().or(took.err());
    });
    match (folded, lacking) {
        (Err(error), _) => Some(Err(error.to_string())),
        (Ok(_), Some(lacking)) => Some(Err(lacking)),
        (Ok(_), None) => Some(Ok(twin.state)),
    }
}

/// What of the two must be the same: how the saga ended, and of each step what stood in the end.
#[must_use]
pub fn essence(definition: &Definition, state: &SagaState) -> String {
    let stood = |status| match status {
        StepStatus::Pending | StepStatus::Rejected | StepStatus::Skipped => "nothing".to_owned(),
        other => other.as_str().to_owned(),
    };
    let steps: Vec<(&str, String, Option<&Value>)> =
        state.steps.iter().map(|step| (&*step.id, stood(step.status), step.output.as_deref())).collect();
    format!("{} as {}, {:?}, {:?}, {steps:?}", state.status, state.state_name(definition), state.failure, state.output)
}

struct Twin<'a> {
    definition: &'a Definition,
    state: SagaState,
    calls: Vec<Invoke>,
}

impl<'a> Twin<'a> {
    fn start(definition: &'a Definition, stream: &[Recorded]) -> Option<Self> {
        let Some(Recorded { event: Event::SagaStarted(started), stream: id, occurred_at, .. }) = stream.first() else {
            return None;
        };
        let start = Start {
            id: *id,
            mode: Mode::Orchestrated,
            input: started.input.clone(),
            correlation_id: started.correlation_id.clone(),
            traceparent: started.traceparent.clone(),
            subject: started.subject.as_deref().map(Into::into),
        };
        let begun = decide::start(definition, start, *occurred_at).ok()?;
        Some(Self { definition, state: begun.next, calls: calls(begun.commands).collect() })
    }

    /// Answers a call as the event says it ended.
    fn take_in(&mut self, other: &SagaState, event: &Event) -> Result<(), String> {
        use Operation::{Action, Compensation};
        match event {
            Event::StepSucceeded(event) => {
                self.answer(&event.step, Action, 200, Body::Json(event.output.as_ref().clone()))
            }
            Event::StepOutputInvalid(event) => {
                self.answer(&event.step, Action, 200, Body::Unusable(event.reason.clone()))
            }
            Event::StepRejected(event) if event.code == "cancelled" => self.cancel(&event.step),
            Event::StepRejected(event) => {
                let refusal = json!({ "code": event.code, "detail": event.reason });
                self.answer(&event.step, Action, 422, Body::Json(refusal))
            }
            Event::StepCompensated(event) => self.answer(&event.step, Compensation, 200, Body::Empty),
            Event::SagaFailed(_) => {
                let enabled: BTreeSet<&str> = other
                    .steps
                    .iter()
                    .filter(|step| step.status == StepStatus::Running)
                    .map(|step| &*step.id)
                    .collect();
                let ahead: Vec<String> = self
                    .calls
                    .iter()
                    .filter(|call| call.operation == Action && !enabled.contains(&*call.step))
                    .map(|call| call.step.to_string())
                    .collect();
                ahead.iter().try_for_each(|step| self.cancel(step))
            }
            // The machine finds everything else out by itself.
            _ => Ok(()),
        }
    }

    /// A step that is being skipped there was never called here.
    fn cancel(&mut self, step: &str) -> Result<(), String> {
        let skipped = self.state.step(step).is_some_and(|step| step.status == StepStatus::Skipped);
        if skipped {
            return Ok(());
        }
        self.answer(step, Operation::Action, 409, Body::Json(json!({ "outcome": "cancelled" })))
    }

    fn answer(&mut self, step: &str, operation: Operation, status: u16, body: Body) -> Result<(), String> {
        let wanted = |call: &Invoke| *call.step == *step && call.operation == operation;
        let Some(at) = self.calls.iter().position(wanted) else {
            return Err(format!("no {operation} of {step} is under way there"));
        };
        let call = self.calls.remove(at);
        let now = self.state.updated_at;
        let answer = Answer { status, retry_after: None, location: None, body };
        let report = CallReport { started_at: now, duration: Millis(0), result: CallResult::Answered(answer) };
        let input = Input::CallFinished { step: step.into(), call: call.call, report };
        let decision =
            decide::decide(self.definition, &self.state, input, now).map_err(|illegal| illegal.to_string())?;
        self.calls.extend(calls(decision.commands));
        self.state = decision.next;
        Ok(())
    }
}

fn calls(commands: Vec<Command>) -> impl Iterator<Item = Invoke> {
    commands.into_iter().filter_map(|command| match command {
        Command::Invoke(invoke) => Some(*invoke),
        Command::SetTimer { .. } => None,
    })
}
