//! Sagas by state: how many, of which definitions, and which.
//!
//! The state is the saga's `status`, folded as Skald itself does:
//!
//! | status | when |
//! | --- | --- |
//! | `completed`, `compensated`, `abandoned` | the event that ends the saga says so |
//! | `parked` | an operation is parked, and nothing has happened to its step since |
//! | `compensating` | else, once it has failed |
//! | `running` | else |
//!
//! A status that no saga has is shown with a count of 0.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skald_kit::events::Event;

use super::{
    super::projection::{Changes, Projection},
    data,
};

const STATUSES: [&str; 6] = ["running", "compensating", "parked", "completed", "compensated", "abandoned"];

/// Under a status: the sagas that are in it.
#[derive(Debug)]
pub(in super::super) struct SagasByState;

/// What is known of a saga that has not ended.
#[derive(Debug, Serialize, Deserialize)]
struct Saga {
    definition: Option<String>,
    status: String,
    failed: bool,
    /// Steps with a parked operation.
    parked: Vec<String>,
    started_at: Value,
}

impl Projection for SagasByState {
    fn name(&self) -> &'static str {
        "sagas-by-state"
    }

    fn category(&self) -> &'static str {
        "saga"
    }

    fn items(&self) -> Option<&'static str> {
        Some("sagas")
    }

    fn nothing_under(&self, key: &str) -> Option<Value> {
        STATUSES.contains(&key).then(|| json!({"count": 0, "by_definition": {}}))
    }

    fn fold(&self, state: Option<Value>, event: &Event, changes: &mut Changes) -> Option<Value> {
        let before: Option<Saga> = state.and_then(|state| serde_json::from_value(state).ok());
        let mut saga = match (before, event.kind.as_str()) {
            (Some(saga), _) => saga,
            (None, "SagaStarted") => Saga {
                definition: event.definition.clone(),
                status: String::new(),
                failed: false,
                parked: Vec::new(),
                started_at: json!(event.time),
            },
            (None, _) => return None,
        };
        let status = saga.follow(event);
        if saga.status != status {
            saga.count(changes, -1);
            if !saga.status.is_empty() {
                changes.remove(&saga.status, &event.stream);
            }
            status.clone_into(&mut saga.status);
            saga.count(changes, 1);
        }
        let shown = json!({
            "saga": event.stream, "definition": event.definition, "mode": event.mode, "version": event.version,
            "last_event": event.type_name, "started_at": saga.started_at, "updated_at": event.time,
        });
        changes.put(status, &event.stream, shown);
        let ended = matches!(status, "completed" | "compensated" | "abandoned");
        if ended { None } else { serde_json::to_value(saga).ok() }
    }
}

impl Saga {
    /// The status after an event.
    fn follow(&mut self, event: &Event) -> &'static str {
        match event.kind.as_str() {
            "SagaCompleted" => return "completed",
            "SagaCompensated" => return "compensated",
            "SagaAbandoned" => return "abandoned",
            "SagaFailed" => self.failed = true,
            // What an operator did is told by the events after it.
            "OperatorActed" => {}
            kind => {
                let data = data(event);
                if let Some(step) = data["step"].as_str() {
                    self.parked.retain(|parked| parked != step);
                    if kind == "StepParked" {
                        self.parked.push(step.to_owned());
                    }
                }
            }
        }
        match (self.parked.is_empty(), self.failed) {
            (false, _) => "parked",
            (true, true) => "compensating",
            (true, false) => "running",
        }
    }

    fn count(&self, changes: &mut Changes, number: i64) {
        if !self.status.is_empty() {
            changes.add(&self.status, "count", number);
            changes.add_within(&self.status, "by_definition", self.definition.as_deref().unwrap_or_default(), number);
        }
    }
}
