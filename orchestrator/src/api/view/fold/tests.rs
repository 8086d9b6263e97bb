//! What clients see of hand-written streams.

use std::sync::Arc;

use serde_json::{Value, json};
use skald_core::{
    event::{Mode, Recorded, SagaStarted},
    ids::{Epoch, SagaId, Shard},
};

use super::*;

const CHECKOUT: &str = include_str!("../../../../../definitions/checkout.yaml");
const SAGA: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
/// 2026-05-01T12:00:00Z, in seconds.
const NOON: i64 = 1_777_636_800;

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros((NOON + second) * 1_000_000)
}

fn folded(definition: &Definition, stream: &[Recorded]) -> Result<Saga, BadStream> {
    saga_view(definition, stream.iter().map(Fact::from)).map(|(saga, _)| saga)
}

/// A stream of checkout whose events happened at these seconds; each is a kind and its data.
fn stream(definition: &Definition, events: &[(i64, &str, Value)]) -> Vec<Recorded> {
    stream_in(Mode::Orchestrated, definition, events)
}

fn stream_in(mode: Mode, definition: &Definition, events: &[(i64, &str, Value)]) -> Vec<Recorded> {
    let saga: SagaId = SAGA.parse().unwrap();
    let started = SagaStarted {
        definition: definition.name.clone(),
        definition_version: definition.version,
        definition_hash: definition.hash.clone(),
        mode,
        input: serde_json::from_str("{\"n\": 1.0}").unwrap(),
        correlation_id: "corr".to_owned(),
        subject: None,
        traceparent: None,
        deadline_at: Some(at(120)),
    };
    let first = (0, Event::from(started));
    let rest = events.iter().map(|(second, kind, data)| (*second, Event::parse(kind, 1, &data.to_string()).unwrap()));
    let recorded = |(index, (second, event)): (usize, (i64, Event))| Recorded {
        stream: saga,
        version: index as u64 + 1,
        shard: Shard(0),
        position: index as i64 + 1,
        epoch: Epoch(1),
        occurred_at: at(second),
        type_name: Arc::from(event.type_name(definition)),
        actor: None,
        event,
    };
    std::iter::once(first).chain(rest).enumerate().map(recorded).collect()
}

fn view(events: &[(i64, &str, Value)]) -> Value {
    view_in(Mode::Orchestrated, events)
}

fn view_in(mode: Mode, events: &[(i64, &str, Value)]) -> Value {
    let definition = Definition::parse(CHECKOUT, None).unwrap();
    let stream = stream_in(mode, &definition, events);
    serde_json::to_value(folded(&definition, &stream).unwrap()).unwrap()
}

fn called(second: i64, mut data: Value, status: u16) -> Value {
    data["called_at"] = json!(at(second).as_micros());
    data["duration_ms"] = json!(40);
    data["http_status"] = json!(status);
    data
}

fn begins(step: &str, operation: &str) -> Value {
    json!({"step": step, "operation": operation})
}

fn time(second: i64) -> String {
    Moment(at(second)).to_string()
}

#[test]
fn a_saga_that_just_began_has_one_step_under_way() {
    let saga = view(&[(0, "StepStarted", begins("verify_stock", "action"))]);
    assert_eq!(saga["state"], "STOCK_VERIFYING");
    assert_eq!((&saga["revision"], &saga["deadline_at"]), (&json!(2), &json!(time(120))));
    let expected = json!({
        "id": "verify_stock", "status": "running", "state": "STOCK_VERIFYING", "started_at": time(0), "attempts": [],
    });
    assert_eq!(saga["steps"][0], expected);
    assert_eq!(saga["steps"][1], json!({"id": "reserve_stock", "status": "pending", "attempts": []}));
    for absent in ["output", "failure", "ended_at"] {
        assert!(saga.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn every_attempt_is_shown_with_what_came_of_it() {
    let failed = json!({
        "step": "verify_stock", "operation": "action", "attempt": 1, "counted": true, "reached": true,
        "next_at": at(3).as_micros(), "error": "503",
    });
    let accepted = json!({"step": "verify_stock", "operation": "action", "attempt": 2, "poll_at": at(5).as_micros()});
    let succeeded = json!({"step": "verify_stock", "attempt": 2, "output": {"ok": true}});
    let saga = view(&[
        (0, "StepStarted", begins("verify_stock", "action")),
        (1, "AttemptFailed", called(1, failed, 503)),
        (4, "StepAccepted", called(3, accepted, 202)),
        (6, "StepSucceeded", called(5, succeeded, 200)),
    ]);
    let step = &saga["steps"][0];
    assert_eq!((&step["status"], &step["outcome"]), (&json!("succeeded"), &json!("succeeded")));
    assert_eq!((&step["duration_ms"], &step["output"]), (&json!(6000), &json!({"ok": true})));
    let attempt = |number: u32, second: i64, status: u16| json!({"number": number, "operation": "action", "at": time(second), "duration_ms": 40, "http_status": status});
    let mut first = attempt(1, 1, 503);
    first["error"] = json!("503");
    first["next_at"] = json!(time(3));
    // The poll's answer has the number of the attempt that was accepted.
    assert_eq!(step["attempts"], json!([first, attempt(2, 3, 202), attempt(2, 5, 200)]));
}

#[test]
fn a_parked_compensation_says_what_an_operator_must_decide() {
    let succeeded = |step: &str| json!({"step": step, "attempt": 1, "output": {"total": 5}});
    let rejected = json!({"step": "process_payment", "attempt": 1, "code": "declined", "reason": "no money"});
    let parked = json!({
        "step": "reserve_stock", "operation": "compensation", "attempt": 1, "code": "gone", "reason": "too old",
        "reached": true,
    });
    let saga = view(&[
        (0, "StepStarted", begins("verify_stock", "action")),
        (1, "StepSucceeded", called(0, succeeded("verify_stock"), 200)),
        (1, "StepStarted", begins("reserve_stock", "action")),
        (2, "StepSucceeded", called(1, succeeded("reserve_stock"), 200)),
        (2, "StepStarted", begins("process_payment", "action")),
        (3, "StepRejected", called(2, rejected, 402)),
        (3, "SagaFailed", json!({"step": "process_payment", "code": "declined", "reason": "no money"})),
        (3, "StepStarted", begins("reserve_stock", "compensation")),
        (9, "StepParked", called(8, parked, 410)),
    ]);
    assert_eq!((&saga["status"], &saga["state"]), (&json!("parked"), &json!("PARKED")));
    assert_eq!(saga["failure"], json!({"step": "process_payment", "code": "declined", "reason": "no money"}));
    let step = &saga["steps"][1];
    assert_eq!((&step["status"], &step["state"]), (&json!("compensating"), &json!("COMPENSATING_STOCK")));
    let parking = json!({"operation": "compensation", "code": "gone", "reason": "too old", "since": time(9)});
    assert_eq!(step["parked"], parking);
    assert_eq!(step["compensation"], json!({"status": "parked", "started_at": time(3)}));
    assert_eq!((&step["ended_at"], &step["duration_ms"]), (&json!(time(2)), &json!(1000)), "of the action");
    assert_eq!(
        (&step["attempts"][1]["operation"], &step["attempts"][1]["error"]),
        (&json!("compensation"), &json!("too old"))
    );
    assert_eq!(saga["steps"][2]["attempts"][0]["error"], "no money");
    assert_eq!(saga["steps"][2]["state"], "PROCESS_PAYMENT_FAILED");
}

#[test]
fn what_ended_a_compensation_ends_it_here_too() {
    let before = |last: (i64, &'static str, Value)| {
        view(&[
            (0, "StepStarted", begins("verify_stock", "action")),
            (1, "StepSucceeded", json!({"step": "verify_stock", "attempt": 1, "output": null})),
            (1, "StepStarted", begins("reserve_stock", "action")),
            (2, "StepUnknown", json!({"step": "reserve_stock", "attempt": 4, "code": "x", "reason": "timed out"})),
            (2, "SagaFailed", json!({"code": "x", "reason": "y"})),
            (2, "StepStarted", begins("reserve_stock", "compensation")),
            last,
        ])
    };
    for (kind, data, status) in [
        ("StepCompensated", json!({"step": "reserve_stock", "attempt": 1}), "compensated"),
        ("CompensationSkipped", json!({"step": "reserve_stock"}), "skipped"),
    ] {
        let saga = before((5, kind, data));
        let expected = json!({"status": status, "started_at": time(2), "ended_at": time(5), "duration_ms": 3000});
        assert_eq!(saga["steps"][1]["compensation"], expected);
        assert_eq!(saga["steps"][1]["outcome"], "unknown");
    }
}

#[test]
fn both_modes_look_the_same() {
    let done = |step: &str| json!({"step": step, "attempt": 1, "output": {"total": 5}});
    let declined = || {
        let refusal = json!({"step": "process_payment", "attempt": 1, "code": "declined", "reason": "no money"});
        called(2, refusal, 402)
    };
    let undone = || called(4, json!({"step": "reserve_stock", "attempt": 1}), 200);
    let failed = || json!({"step": "process_payment", "code": "declined", "reason": "no money"});
    let told = [
        (1, "StepSucceeded", called(0, done("verify_stock"), 200)),
        (2, "StepSucceeded", called(1, done("reserve_stock"), 200)),
        (3, "StepRejected", declined()),
        (3, "SagaFailed", failed()),
        (5, "StepCompensated", undone()),
        (5, "SagaCompensated", json!({})),
    ];
    let mut announced = told.to_vec();
    announced.insert(4, (3, "StepStarted", begins("reserve_stock", "compensation")));
    announced.insert(2, (2, "StepStarted", begins("process_payment", "action")));
    announced.insert(1, (1, "StepStarted", begins("reserve_stock", "action")));
    announced.insert(0, (0, "StepStarted", begins("verify_stock", "action")));
    // Up to where the log of the one mode and that of the other stand at the same moment.
    for (told_to, announced_to) in [(0, 1), (1, 3), (2, 5), (4, 8), (6, 10)] {
        let mut choreographed = view_in(Mode::Choreographed, &told[..told_to]);
        let orchestrated = view(&announced[..announced_to]);
        assert_eq!(choreographed["mode"], "choreographed");
        choreographed["mode"] = json!("orchestrated");
        choreographed["revision"] = orchestrated["revision"].clone();
        assert_eq!(choreographed, orchestrated, "{told_to}");
    }
}

#[test]
fn a_stream_of_another_definition_is_refused() {
    let definition = Definition::parse(CHECKOUT, None).unwrap();
    let stream = stream(&definition, &[]);
    let other = Definition::parse(&CHECKOUT.replace("deadline: 2m", "deadline: 3m"), None).unwrap();
    assert!(matches!(folded(&other, &stream), Err(BadStream::WrongDefinition { .. })));
    assert!(matches!(folded(&definition, &[]), Err(BadStream::NoStart)));
}
