//! The machine's rules as tables, and its invariants as properties over random definitions and histories.

mod ahead;
mod choreographed;
pub(crate) mod property;
mod rules;
pub(crate) mod world;

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use serde_json::{Value, json};

use super::*;
use crate::{
    classify::{Answer, Body, CallResult},
    event::Recorded,
    ids::{Epoch, Shard},
    state::StepStatus,
    time::Millis,
};

pub(crate) const T0: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

pub(crate) const TAKEOVERS_MAX: u32 = 3;

/// A saga driven by hand: what it was told, and what it wants.
pub(crate) struct Driven {
    pub definition: Arc<Definition>,
    pub state: SagaState,
    pub events: Vec<Recorded>,
    pub calls: Vec<Invoke>,
    pub now: Timestamp,
    pub epoch: Epoch,
}

pub(crate) fn definition(document: &Value) -> Arc<Definition> {
    let text = document.to_string();
    match Definition::parse(&text, None) {
        Ok(definition) => Arc::new(definition),
        Err(problems) => panic!("{problems:?}\nin {text}"),
    }
}

impl Driven {
    pub fn start(document: &Value) -> Self {
        Self::start_of(definition(document))
    }

    pub fn start_of(definition: Arc<Definition>) -> Self {
        Self::start_in(Mode::Orchestrated, definition)
    }

    pub fn start_in(mode: Mode, definition: Arc<Definition>) -> Self {
        let id = SagaId::new(T0, [7; 10], Shard(0), 1);
        let start = Start {
            id,
            mode,
            input: json!({"n": 1, "big": true}).into(),
            correlation_id: String::from("c-1"),
            traceparent: None,
            subject: None,
        };
        let decision = super::start(&definition, start, T0).unwrap();
        let mut driven = Self {
            definition,
            state: decision.next.clone(),
            events: Vec::new(),
            calls: Vec::new(),
            now: T0,
            epoch: Epoch(1),
        };
        driven.commit(decision);
        driven
    }

    /// Makes a decision durable and checks what must hold of every decision.
    fn commit(&mut self, decision: Decision) {
        let mut version = self.events.len() as u64;
        for announced in decision.events {
            version += 1;
            let kind = announced.event.kind();
            self.events.push(Recorded {
                stream: decision.next.id,
                version,
                shard: Shard(0),
                position: version as i64,
                epoch: self.epoch,
                occurred_at: decision.next.updated_at,
                type_name: Arc::from(announced.event.type_name(&self.definition)),
                actor: announced.actor.map(|actor| String::from(&*actor)),
                event: Event::parse(kind, announced.event.schema_version(), &announced.event.data()).unwrap(),
            });
        }
        self.state = decision.next;
        assert_eq!(self.state.version, version, "invariant 7: versions are 1..n");
        let folded = SagaState::fold(&self.definition, &self.events, None).unwrap();
        assert_eq!(folded.row(&self.definition), self.state.row(&self.definition), "invariant 8");
        for command in decision.commands {
            if let Command::Invoke(invoke) = command {
                self.assert_announced(&invoke);
                self.calls.push(*invoke);
            }
        }
        self.assert_not_stuck();
    }

    fn assert_announced(&self, invoke: &Invoke) {
        let announced = self.events.iter().any(|recorded| match &recorded.event {
            Event::StepStarted(event) => *event.step == *invoke.step && event.operation == invoke.operation,
            Event::StepRetried(event) => *event.step == *invoke.step && event.operation == invoke.operation,
            _ => false,
        });
        assert!(announced, "intent before effect: {invoke:?}");
    }

    fn assert_not_stuck(&self) {
        let airborne = self.state.steps.iter().any(|step| matches!(step.flight, crate::state::Flight::Airborne(_)));
        let waits = wake_at(&self.definition, &self.state).is_some();
        assert!(
            self.state.status.is_ended() || self.state.status == Status::Parked || airborne || waits,
            "nothing will ever happen to {:#?}",
            self.state
        );
    }

    pub fn input(&mut self, input: Input) -> Result<(), IllegalInput> {
        let ended = self.state.status.is_ended();
        let decision = decide(&self.definition, &self.state, input, self.now)?;
        assert!(!ended || decision.events.is_empty(), "invariant 6: ended is final");
        self.commit(decision);
        Ok(())
    }

    pub fn tick(&mut self) {
        self.input(Input::Tick).unwrap();
    }

    /// Moves the clock to the next timer and ticks. False if there is none.
    pub fn tick_at_timer(&mut self) -> bool {
        let Some(at) = wake_at(&self.definition, &self.state) else { return false };
        self.now = self.now.max(at);
        self.tick();
        let next = wake_at(&self.definition, &self.state);
        assert!(next.is_none_or(|next| next > self.now), "a tick left something due: {:#?}", self.state);
        true
    }

    /// The process dies, another takes over: only what is durable remains.
    pub fn crash(&mut self) {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.load();
        let events = self.events.len();
        self.input(Input::TakenOver { takeovers_max: TAKEOVERS_MAX }).unwrap();
        assert!(self.calls.is_empty() && self.events.len() <= events + self.state.steps.len(), "only counted");
        self.tick();
    }

    /// The saga leaves the memory and comes back.
    pub fn reload(&mut self) {
        self.load();
        self.tick();
    }

    fn load(&mut self) {
        self.calls.clear();
        let calls = self.state.calls + 1000;
        self.state = SagaState::fold(&self.definition, &self.events, Some(self.epoch)).unwrap();
        self.state.calls = calls;
    }

    pub fn finish(&mut self, call: &Invoke, result: CallResult) {
        let report = CallReport { started_at: self.now, duration: Millis(5), result };
        self.input(Input::CallFinished { step: Arc::clone(&call.step), call: call.call, report }).unwrap();
    }

    /// Takes the only call in flight.
    pub fn take_call(&mut self) -> Invoke {
        assert_eq!(self.calls.len(), 1, "one call in flight: {:?}", self.calls);
        self.calls.remove(0)
    }

    /// Answers the only call in flight.
    pub fn answer(&mut self, status: u16, body: Value) {
        let call = self.take_call();
        self.finish(&call, answered(status, body));
    }

    pub fn operate(&mut self, action: OperatorAction) -> Result<(), IllegalInput> {
        self.input(Input::Operator(OperatorCommand {
            actor: String::from("ada"),
            reason: String::from("because"),
            request_id: None,
            correlation_id: None,
            expected_revision: None,
            action,
        }))
    }

    pub fn status_of(&self, step: &str) -> StepStatus {
        self.state.step(step).unwrap().status
    }

    pub fn kinds(&self) -> Vec<&'static str> {
        self.events.iter().map(|recorded| recorded.event.kind()).collect()
    }

    /// Steps in the order in which their compensations began.
    pub fn undone(&self) -> Vec<String> {
        self.events
            .iter()
            .filter_map(|recorded| match &recorded.event {
                Event::StepStarted(event) if event.operation == Operation::Compensation => Some(event.step.to_string()),
                _ => None,
            })
            .collect()
    }
}

pub(crate) fn answered(status: u16, body: Value) -> CallResult {
    CallResult::Answered(Answer { status, retry_after: None, location: None, body: Body::Json(body) })
}

pub(crate) fn timed_out() -> CallResult {
    CallResult::MaybeSent { error: String::from("timed out") }
}

pub(crate) fn refused_connection() -> CallResult {
    CallResult::NotSent { error: String::from("connection refused") }
}

/// A step that calls `/<id>` and is undone by `/<id>/undo`, with `extra` keys.
pub(crate) fn step(id: &str, extra: Value) -> Value {
    let mut step = json!({
        "id": id,
        "call": { "service": "s", "method": "POST", "path": alloc::format!("/{id}") },
        "compensate": { "call": { "service": "s", "method": "POST", "path": alloc::format!("/{id}/undo") } },
    });
    for (key, value) in extra.as_object().unwrap() {
        match value {
            Value::Null => step.as_object_mut().unwrap().remove(key),
            value => step.as_object_mut().unwrap().insert(key.clone(), value.clone()),
        };
    }
    step
}

pub(crate) fn saga(steps: Vec<Value>) -> Value {
    json!({
        "apiVersion": "skald/v1", "name": "test", "version": 1, "deadline": "60s",
        "defaults": { "timeout": "1s", "retry": { "max_attempts": 3, "initial": "100ms", "factor": 2, "max": "1s" } },
        "steps": steps,
    })
}

/// An honest report.
pub(crate) fn report(saga: &Driven, step: &str, operation: Operation, outcome: ReportedOutcome) -> Report {
    Report {
        event_id: Arc::from(crate::ids::call_key(saga.state.id, step, operation)),
        causation_id: None,
        step: String::from(step),
        operation,
        outcome,
        started_at: Some(saga.now),
        duration: Some(Millis(5)),
    }
}

pub(crate) fn reported(reports: impl IntoIterator<Item = Report>) -> Input {
    Input::Reported(Reported { reports: reports.into_iter().collect(), expected: None })
}
