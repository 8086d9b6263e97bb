//! Choreographed sagas: the engine itself decides what becomes of a report.

use std::sync::Arc;

use chrono::Utc;
use serde_json::{Value, json};
use skald_core::{
    decide::{self, Announced, Decision, Input, Report, Reported},
    definition::Definition,
    event::Mode,
    ids::{SagaId, Shard},
    state::{SagaState, Status},
    time::Timestamp,
};
use uuid::Uuid;

use super::{Data, Refused, Store};

#[derive(Debug)]
pub struct Saga {
    definition: Arc<Definition>,
    pub state: SagaState,
}

fn now() -> Timestamp {
    Timestamp::from_micros(Utc::now().timestamp_micros())
}

impl Store {
    pub fn define(&self, document: &str) {
        let definition = Arc::new(Definition::parse(document, None).unwrap());
        assert!(definition.not_choreographable().is_empty(), "{:?}", definition.not_choreographable());
        self.data().definitions.push(definition);
    }

    /// Starts a choreographed saga of the last definition of that name.
    pub fn begin(&self, definition: &str, input: &Value) -> Uuid {
        let mut data = self.data();
        let definition = data.definitions.iter().rev().find(|known| known.name == definition).unwrap().clone();
        let mut entropy = [0; 10];
        entropy.copy_from_slice(&Uuid::new_v4().as_bytes()[..10]);
        let start = decide::Start {
            id: SagaId::new(now(), entropy, Shard(0), 1),
            mode: Mode::Choreographed,
            input: input.clone().into(),
            correlation_id: "c-1".to_owned(),
            traceparent: None,
            subject: None,
        };
        let id = start.id;
        let decision = decide::start(&definition, start, now()).unwrap();
        let first = decision.next.clone();
        data.sagas.insert(id.to_string(), Saga { definition, state: first });
        data.commit(&id.to_string(), decision);
        drop(data);
        self.inner.committed.send_modify(|commits| *commits += 1);
        id.as_uuid()
    }

    pub fn status(&self, saga: Uuid) -> Status {
        self.data().sagas[&saga.to_string()].state.status
    }

    /// Something else than a report: time passes, an operator acts.
    pub fn input(&self, saga: Uuid, input: Input, later: skald_core::time::Millis) {
        let mut data = self.data();
        let Saga { definition, state } = &data.sagas[&saga.to_string()];
        let decision = decide::decide(definition, state, input, now().plus(later)).unwrap();
        data.commit(&saga.to_string(), decision);
        drop(data);
        self.inner.committed.send_modify(|commits| *commits += 1);
    }
}

impl Data {
    /// Takes in what participants report, as the shard's writer does.
    pub fn report(&mut self, stream: &str, events: &[Value]) -> Result<(), Refused> {
        let Saga { definition, state } = &self.sagas[stream];
        let reports = events.iter().map(|event| {
            let data = &event["data"];
            Report {
                event_id: event["event_id"].as_str().unwrap().into(),
                causation_id: event["causation_id"].as_str().map(Into::into),
                step: data["step"].as_str().unwrap().to_owned(),
                operation: serde_json::from_value(data["operation"].clone()).unwrap(),
                outcome: serde_json::from_value(data.clone()).unwrap(),
                started_at: None,
                duration: None,
            }
        });
        let reported = Reported { reports: reports.collect(), expected: None };
        let code = if state.status.is_ended() { "saga_ended" } else { "step_not_enabled" };
        match decide::decide(definition, state, Input::Reported(reported), now()) {
            Ok(decision) => self.commit(stream, decision),
            Err(_) => return Err((409, code)),
        }
        Ok(())
    }

    fn commit(&mut self, stream: &str, decision: Decision) {
        let Decision { events, next, .. } = decision;
        let saga = self.sagas.get_mut(stream).unwrap();
        saga.state = next;
        let definition = saga.definition.clone();
        for Announced { event, origin, .. } in events {
            let version = self.streams.get(stream).map_or(0, Vec::len) + 1;
            let id = origin.event_id.map_or_else(|| format!("{stream}:{version}"), |id| id.to_string());
            let data: Value = serde_json::from_str(&event.data()).unwrap();
            let shown = json!({
                "id": id, "type": event.type_name(&definition), "kind": event.kind(), "data": data,
                "definition": definition.name, "mode": "choreographed",
            });
            self.push(stream, shown);
        }
    }
}
