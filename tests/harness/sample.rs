//! Definitions for tests: each step calls the participant `stub` at `/ID`, and is undone at `/ID/undo`.

use serde_json::{Value, json};

/// A step with quick retries: two attempts, ten milliseconds apart.
pub fn step(id: &str) -> Value {
    let retry = json!({"max_attempts": 2, "initial": "10ms", "max": "10ms"});
    let call =
        |path: String| json!({"service": "stub", "method": "POST", "path": path, "body": {"saga": "${saga.id}"}});
    json!({
        "id": id,
        "call": call(format!("/{id}")),
        "retry": retry,
        "compensate": {"call": call(format!("/{id}/undo")), "retry": retry},
    })
}

/// A step with fields added or replaced.
pub fn step_with(id: &str, fields: Value) -> Value {
    let mut step = step(id);
    for (name, value) in fields.as_object().expect("fields are an object") {
        step[name] = value.clone();
    }
    step
}

/// Version 1 of a definition of these steps.
pub fn definition<const N: usize>(name: &str, steps: [Value; N]) -> Value {
    json!({
        "apiVersion": "skald/v1",
        "name": name,
        "version": 1,
        "deadline": "1h",
        "steps": Vec::from(steps),
    })
}
