//! What a definition may and may not say.

extern crate std;

mod format;
mod hostile;
mod meaning;
mod personal;
mod rules;

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use serde_json::{Value, json};

use super::*;

const CHECKOUT: &str = include_str!("../../../../../definitions/checkout.yaml");

/// Three steps in a row; the second can be undone, the third is the pivot.
fn valid() -> Value {
    json!({
        "apiVersion": "skald/v1",
        "name": "trip",
        "version": 1,
        "input": {"schema": {"type": "object", "properties": {"n": {}, "s": {}}, "additionalProperties": false}},
        "steps": [
            {"id": "look", "call": {"service": "a", "method": "GET", "path": "/look"}, "effect": "none"},
            {
                "id": "book",
                "call": {"service": "a", "method": "POST", "path": "/book/${saga.id}", "body": {"n": "${input.n}"}},
                "compensate": {"call": {"service": "a", "method": "DELETE", "path": "/book/${saga.id}"}},
            },
            {"id": "pay", "pivot": true, "call": {"service": "b", "method": "POST", "path": "/pay"}},
            {"id": "tell", "retriable": true, "call": {"service": "b", "method": "POST", "path": "/tell"}},
        ],
    })
}

/// Sets the value at a JSON pointer, making the last field if it is missing; `null` takes it out.
fn set(document: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = document.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} has no parent"));
    match (parent, value) {
        (Value::Object(fields), Value::Null) => {
            fields.shift_remove(key);
        }
        (Value::Object(fields), value) => {
            fields.insert(key.to_string(), value);
        }
        (Value::Array(items), value) if key == "-" => items.push(value),
        (Value::Array(items), value) => items[key.parse::<usize>().expect("an index")] = value,
        (other, _) => panic!("{pointer} is below {other}"),
    }
}

fn with(edits: &[(&str, Value)]) -> Value {
    let mut document = valid();
    for (pointer, value) in edits {
        set(&mut document, pointer, value.clone());
    }
    document
}

fn parse(document: &Value) -> Result<Definition, Vec<Problem>> {
    let services = ["a".to_string(), "b".to_string()];
    Definition::parse(&document.to_string(), Some(&services)).map_err(|problems| problems.0)
}

fn problems(document: &Value) -> Vec<(String, String)> {
    let problems = parse(document).err().unwrap_or_default();
    problems.into_iter().map(|problem| (problem.place, problem.reason)).collect()
}

/// Asserts that the document has exactly one problem, there, for that reason.
fn refused(edits: &[(&str, Value)], place: &str, reason: &str) {
    let found = problems(&with(edits));
    let as_expected = matches!(found.as_slice(), [(at, why)] if at == place && why.contains(reason));
    assert!(as_expected, "{edits:?}\n expected {place}: {reason}\n found {found:#?}");
}

fn accepted(edits: &[(&str, Value)]) -> Definition {
    parse(&with(edits)).unwrap_or_else(|problems| panic!("{edits:?}\n{problems:#?}"))
}
