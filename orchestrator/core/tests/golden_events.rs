//! Streams as former versions of Skald wrote them: they stay readable and fold to the same state for ever.
//!
//! `tests/golden/events/v*/` holds them, each with the state that it came to. No file there is changed once it is
//! released: a change of an event's form gets a new one (see `event/upcast.rs`).

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use skald_core::{
    definition::Definition,
    event::{Event, Recorded, upcast},
    ids::{Epoch, SagaId, Shard},
    state::{SagaState, StepState, Wait},
    time::Timestamp,
};

#[derive(Deserialize)]
struct Golden {
    saga: SagaId,
    events: Vec<Written>,
    /// What the stream folds to.
    state: Value,
}

/// A row of `events`.
#[derive(Deserialize)]
struct Written {
    kind: String,
    schema_version: u16,
    occurred_at_us: i64,
    actor: Option<String>,
    data: Box<RawValue>,
}

impl Written {
    fn read(&self) -> Event {
        let read = Event::parse(&self.kind, self.schema_version, self.data.get());
        read.unwrap_or_else(|error| panic!("{error}: {}", self.data))
    }
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/events"))
}

fn golden() -> BTreeMap<String, Golden> {
    let mut found = BTreeMap::new();
    for version in fs::read_dir(folder())
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.is_dir())
    {
        for file in
            fs::read_dir(version).expect("it can be listed").map(|entry| entry.expect("it can be listed").path())
        {
            let text = fs::read_to_string(&file).expect("it is text");
            let read = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            found.insert(file.display().to_string(), read);
        }
    }
    assert!(found.len() >= 10, "some are missing: {:?}", found.keys());
    found
}

fn stream(golden: &Golden, definition: &Definition) -> Vec<Recorded> {
    let recorded = |(written, version): (&Written, u64)| {
        let event = written.read();
        Recorded {
            stream: golden.saga,
            version,
            shard: Shard(0),
            position: i64::try_from(version).expect("it is small"),
            epoch: Epoch(1),
            occurred_at: Timestamp::from_micros(written.occurred_at_us),
            type_name: Arc::from(event.type_name(definition)),
            actor: written.actor.clone(),
            event,
        }
    };
    golden.events.iter().zip(1..).map(recorded).collect()
}

/// All that a fold yields, in words that don't change with the code.
fn shown(definition: &Definition, state: &SagaState) -> Value {
    json!({
        "row": state.row(definition),
        "input": state.input,
        "output": state.output,
        "traceparent": state.traceparent,
        "takeovers": state.takeovers,
        "commands": state.commands.iter().map(|command| &command.request_id).collect::<Vec<_>>(),
        "steps": state.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

fn step(step: &StepState) -> Value {
    let work = &step.work;
    let wait = match &work.wait {
        Wait::Call => Value::Null,
        Wait::Until(at) => json!({ "until": at }),
        Wait::Accepted { since, location, poll_at } => {
            json!({ "accepted": { "since": since, "location": location, "poll_at": poll_at } })
        }
        Wait::Parked { code, reason } => json!({ "parked": { "code": code, "reason": reason } }),
    };
    let mut shown = json!({
        "id": step.id,
        "status": step.status,
        "outcome": step.outcome,
        "output": step.output,
        "started_at": work.started_at,
        "attempts": work.attempts,
        "tries": work.tries,
        "misconfigured": work.misconfigured,
        "in_flight_answers": work.in_flight_answers,
        "reached": work.reached,
        "wait": wait,
    });
    if step.is_ahead {
        shown["is_ahead"] = json!(true);
    }
    shown
}

#[test]
fn every_stream_ever_written_folds_to_the_state_that_it_came_to() {
    let definition = fs::read_to_string(folder().join("checkout.yaml")).unwrap();
    let definition = Definition::parse(&definition, None).unwrap();
    for (file, golden) in golden() {
        let state = SagaState::fold(&definition, &stream(&golden, &definition), None)
            .unwrap_or_else(|error| panic!("{file}: {error} ({})", definition.hash));
        let found = shown(&definition, &state);
        assert_eq!(found, golden.state, "{file}\n{found:#}");
    }
}

/// What is written today is what the newest golden events look like: a form does not change without a new version.
#[test]
fn every_kind_is_among_them_in_the_form_that_is_written_today() {
    let mut missing: Vec<&str> = Event::KINDS.to_vec();
    for (file, golden) in golden() {
        for written in golden.events.iter().filter(|event| event.schema_version == upcast::newest(&event.kind)) {
            let event = written.read();
            let again: Value = serde_json::from_str(&event.data()).unwrap();
            let before: Value = serde_json::from_str(written.data.get()).unwrap();
            assert_eq!((again, event.schema_version()), (before, written.schema_version), "{file}: {}", written.kind);
            missing.retain(|kind| *kind != written.kind);
        }
    }
    assert!(missing.is_empty(), "no golden event of {missing:?}");
}

#[test]
fn a_step_of_the_first_form_was_announced_alone() {
    let data = json!({"step": "a", "operation": "action", "ahead": ["b"]}).to_string();
    let intents = |version: u16| {
        let event = Event::parse("StepStarted", version, &data).unwrap();
        event.intents().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!((intents(1), intents(2)), (vec!["a".to_owned()], vec!["a".to_owned(), "b".to_owned()]));
}

/// Former forms say what they always said, in the newest form.
#[test]
fn a_saga_of_the_first_form_is_about_nobody_in_particular() {
    let first = |version: u16| {
        let data = json!({
            "definition": "checkout", "definition_version": 1, "definition_hash": "h", "mode": "orchestrated",
            "input": {"total": 1}, "correlation_id": "c", "subject": "p-1",
        });
        match Event::parse("SagaStarted", version, &data.to_string()).unwrap() {
            Event::SagaStarted(started) => (started.subject, started.input.text().get().to_owned()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(first(1), (None, "{\"total\":1}".to_owned()));
    assert_eq!(first(2), (Some("p-1".to_owned()), "{\"total\":1}".to_owned()));
}
