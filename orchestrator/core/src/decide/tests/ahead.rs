//! Steps that are announced ahead: which, and what becomes of those that a process that died may have called.

use alloc::{string::String, vec, vec::Vec};

use serde_json::json;

use super::*;

fn announced(driven: &Driven) -> Vec<(&str, Vec<&str>)> {
    let started = driven.events.iter().filter_map(|recorded| match &recorded.event {
        Event::StepStarted(event) => Some((&*event.step, event.ahead.iter().map(|step| &**step).collect())),
        _ => None,
    });
    started.collect()
}

/// What the saga's start announces, by step, of these steps.
#[track_caller]
fn at_start(steps: Vec<Value>, expected: &[(&str, &[&str])]) {
    let driven = Driven::start(&saga(steps));
    let expected: Vec<_> = expected.iter().map(|(step, ahead)| (*step, ahead.to_vec())).collect();
    assert_eq!(announced(&driven), expected);
}

fn reading(id: &str, read: &str, extra: Value) -> Value {
    let mut step = step(id, extra);
    step["call"]["body"] = json!({ "number": alloc::format!("${{steps.{read}.output.number}}") });
    step
}

#[test]
fn what_follows_is_announced_up_to_where_it_could_not_be_undone_or_not_be_said_again() {
    let none = || json!({});
    let looks = json!({"effect": "none", "compensate": null});
    at_start(vec![step("a", none()), step("b", none()), step("c", none())], &[("a", &["b", "c"])]);
    // A pivot, and what comes after it.
    let pivot = json!({"pivot": true});
    let after = json!({"retriable": true});
    at_start(vec![step("a", none()), step("b", none()), step("p", pivot), step("r", after)], &[("a", &["b"])]);
    // A condition.
    at_start(vec![step("a", none()), step("b", json!({"if": "input.big"})), step("c", none())], &[("a", &[])]);
    // Answers that are kept, and those that need not be.
    at_start(vec![step("a", none()), reading("b", "a", none()), step("c", none())], &[("a", &["b", "c"])]);
    at_start(vec![step("a", looks.clone()), reading("b", "a", none()), step("c", none())], &[("a", &[])]);
    at_start(vec![step("a", looks), step("b", none()), reading("c", "a", none())], &[("a", &["b"])]);
    // An undoing that would lack what it reads.
    let undo = json!({"call": {"service": "s", "method": "POST", "path": "/undo/${steps.a.output.number}"}});
    at_start(vec![step("a", none()), step("b", json!({"compensate": undo}))], &[("a", &[])]);
    let status = json!({"call": {"service": "s", "method": "GET", "path": "/b/${steps.a.output.number}"}});
    at_start(vec![step("a", none()), step("b", json!({"status": status}))], &[("a", &[])]);
}

#[test]
fn a_join_is_announced_when_all_that_it_needs_is_under_way() {
    let alone = json!({"needs": []});
    let join = json!({"needs": ["a", "b"]});
    at_start(vec![step("a", alone.clone()), step("b", alone), step("c", join)], &[("a", &[]), ("b", &["c"])]);
}

#[test]
fn what_waited_for_a_durable_success_is_announced_after_it() {
    let pivot = json!({"pivot": true});
    let after = || json!({"retriable": true});
    let mut driven = Driven::start(&saga(vec![step("p", pivot), step("r", after()), step("s", after())]));
    driven.answer(200, json!({}));
    assert_eq!(announced(&driven), [("p", vec![]), ("r", vec!["s"])]);
}

/// a is under way, b and c are announced.
fn chain() -> Driven {
    Driven::start(&saga(vec![step("a", json!({})), step("b", json!({})), step("c", json!({}))]))
}

fn kinds_since(driven: &Driven, version: usize) -> Vec<(&'static str, String)> {
    let of = |recorded: &Recorded| match &recorded.event {
        Event::StepUnknown(event) => event.step.to_string(),
        Event::StepStarted(event) => event.step.to_string(),
        Event::StepRejected(event) => event.step.to_string(),
        _ => String::new(),
    };
    driven.events[version..].iter().map(|recorded| (recorded.event.kind(), of(recorded))).collect()
}

#[test]
fn a_saga_that_fails_undoes_what_the_dead_may_have_called_and_nothing_else() {
    let mut lived = chain();
    lived.answer(422, json!({}));
    assert_eq!(lived.state.status, Status::Compensated, "b and c were not called");
    let mut died = chain();
    died.crash();
    let version = died.events.len();
    died.answer(422, json!({}));
    let named = |step: &str| String::from(step);
    assert_eq!(
        kinds_since(&died, version),
        [
            ("StepRejected", named("a")),
            ("SagaFailed", String::new()),
            ("StepUnknown", named("b")),
            ("StepUnknown", named("c")),
            ("StepStarted", named("c")),
        ]
    );
    assert_eq!(died.calls[0].compensates, Some(Outcome::Unknown));
    died.answer(200, json!({}));
    died.answer(200, json!({}));
    assert_eq!((died.state.status, died.undone()), (Status::Compensated, vec![named("c"), named("b")]));
}

#[test]
fn a_crash_after_the_failure_makes_nothing_of_what_was_announced_before() {
    let mut driven = chain();
    driven.answer(200, json!({}));
    driven.answer(422, json!({}));
    driven.crash();
    driven.answer(200, json!({}));
    assert_eq!((driven.state.status, driven.undone()), (Status::Compensated, vec![String::from("a")]));
}

#[test]
fn a_step_that_the_dead_may_have_called_is_not_taken_for_unreachable() {
    let mut driven = chain();
    driven.crash();
    driven.answer(200, json!({}));
    while driven.status_of("b") == StepStatus::Running {
        let call = driven.take_call();
        driven.finish(&call, refused_connection());
        if driven.calls.is_empty() {
            driven.tick_at_timer();
        }
    }
    assert_eq!(driven.state.step("b").unwrap().outcome, Some(Outcome::Unknown));
}

#[test]
fn abandoning_tells_what_the_dead_may_have_called() {
    let mut driven = chain();
    for _ in 0..TAKEOVERS_MAX {
        driven.crash();
    }
    assert_eq!(driven.state.status, Status::Parked);
    driven.operate(OperatorAction::Abandon).unwrap();
    assert_eq!((driven.status_of("b"), driven.status_of("c")), (StepStatus::Unknown, StepStatus::Unknown));
}
