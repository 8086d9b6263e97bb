//! Who owes what when, what an answer means, and what a follower makes of what it is told.

use alloc::{
    string::{String, ToString},
    sync::Arc,
    vec,
    vec::Vec,
};

use serde_json::{Value, json};

use crate::{
    choreography::{CannotFollow, Duty, Followed, Follower, Pinned, duties, report_of, undo_of},
    classify::Body,
    decide::{
        OperatorAction, ReportedOutcome, Target,
        tests::{Driven, definition, report, reported, saga, step},
    },
    definition::{Definition, Method},
    event::{Mode, UnreadableEvent},
    ids::Operation,
    state::{BadStream, Outcome},
};

/// `a` by the service `s`, then `b` by `t`.
fn two_services(b: Value) -> Driven {
    let mut b = step("b", b);
    b["call"]["service"] = json!("t");
    b["compensate"]["call"]["service"] = json!("t");
    let a = json!({"compensate": {"call": {
        "service": "s", "method": "POST", "path": "/a/undo", "body": {"why": "${saga.failure.code}"},
    }}});
    Driven::start_in(Mode::Choreographed, definition(&saga(vec![step("a", a), b])))
}

fn owed(driven: &Driven) -> [Vec<Duty>; 2] {
    ["s", "t"].map(|service| duties(&driven.definition, &driven.state, service))
}

fn target(path: &str, body: Option<&str>) -> Target {
    Target { method: Method::Post, path: String::from(path), headers: Vec::new(), body: body.map(String::from) }
}

fn tell(driven: &mut Driven, step: &str, operation: Operation, outcome: ReportedOutcome) {
    let report = report(driven, step, operation, outcome);
    driven.input(reported([report])).unwrap();
}

fn succeeded() -> ReportedOutcome {
    ReportedOutcome::Succeeded { output: json!({"n": 7}) }
}

#[test]
fn duties_follow_the_stream() {
    let b = json!({"call": {"service": "t", "method": "POST", "path": "/b", "body": "${steps.a.output.n}"}});
    let mut driven = two_services(b);
    let (a, b) = (|| Arc::from("a"), || Arc::from("b"));
    assert_eq!(owed(&driven), [vec![Duty::Act { step: a(), target: target("/a", None) }], vec![]]);
    tell(&mut driven, "a", Operation::Action, succeeded());
    assert_eq!(owed(&driven), [vec![], vec![Duty::Act { step: b(), target: target("/b", Some("7")) }]]);
    driven.operate(OperatorAction::Compensate).unwrap();
    assert_eq!(owed(&driven), [vec![], vec![Duty::Cancel { step: b() }]]);
    tell(&mut driven, "b", Operation::Action, ReportedOutcome::Cancelled);
    let undo = target("/a/undo", Some(r#"{"why":"force_compensated"}"#));
    assert_eq!(owed(&driven)[0], [Duty::Undo { step: a(), target: undo, outcome: Outcome::Succeeded }]);
    tell(&mut driven, "a", Operation::Compensation, ReportedOutcome::Compensated);
    assert_eq!(owed(&driven), [vec![], vec![]]);
}

#[test]
fn a_step_whose_request_cannot_be_made_is_skipped_rejected_or_after_the_pivot_the_writers() {
    for (extra, expected) in [
        (json!({"if": "input.n == 2"}), "skip"),
        (json!({"if": "input.missing == 2"}), "reject"),
        (json!({"call": {"service": "t", "method": "POST", "path": "/b/${input.missing}"}}), "reject"),
    ] {
        let mut driven = two_services(extra);
        tell(&mut driven, "a", Operation::Action, succeeded());
        let found = match &owed(&driven)[1][..] {
            [Duty::Skip { .. }] => "skip",
            [Duty::Reject { code, .. }] if code == "expression_failed" => "reject",
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expected);
    }
}

#[test]
fn an_orchestrated_saga_is_nobodys_duty() {
    let driven = Driven::start(&saga(vec![step("a", json!({}))]));
    assert_eq!(duties(&driven.definition, &driven.state, "s"), []);
}

#[test]
fn what_is_parked_is_still_owed() {
    let mut driven = two_services(json!({}));
    assert!(driven.tick_at_timer() && driven.tick_at_timer(), "timed out, then silent");
    assert_eq!(owed(&driven)[0], [Duty::Cancel { step: Arc::from("a") }]);
}

#[test]
fn an_answer_is_an_outcome_or_none() {
    let pivot = step("p", json!({"pivot": true, "output": {"n": "${response.body.n}", "s": "${response.status}"}}));
    let steps = vec![pivot, step("r", json!({"retriable": true}))];
    let mut driven = Driven::start_in(Mode::Choreographed, definition(&saga(steps)));
    let meant = |driven: &Driven, step: &str, operation, status, body: Value| {
        report_of(&driven.definition, &driven.state, step, operation, status, Body::Json(body))
    };
    let action = Operation::Action;
    let good = ReportedOutcome::Succeeded { output: json!({"n": 1, "s": 201}) };
    assert_eq!(meant(&driven, "p", action, 201, json!({"n": 1})), Some(good));
    let garbled = meant(&driven, "p", action, 200, json!({}));
    assert!(matches!(garbled, Some(ReportedOutcome::OutputInvalid { .. })), "{garbled:?}");
    let refused = ReportedOutcome::Rejected { code: String::from("no"), reason: String::from("none left") };
    let refusal = || json!({"code": "no", "detail": "none left"});
    assert_eq!(meant(&driven, "p", action, 422, refusal()), Some(refused.clone()));
    for status in [202, 302, 404, 409, 429, 500] {
        assert_eq!(meant(&driven, "p", action, status, json!({})), None, "{status}");
    }
    assert_eq!(meant(&driven, "r", action, 422, refusal()), None, "after the pivot nothing is refused");
    let undo = Operation::Compensation;
    assert_eq!(meant(&driven, "r", undo, 204, Value::Null), Some(ReportedOutcome::Compensated));
    assert_eq!(meant(&driven, "r", undo, 410, json!({})), None);
    driven.operate(OperatorAction::Compensate).unwrap();
    assert_eq!(meant(&driven, "r", action, 422, refusal()), Some(refused), "the saga is undone anyway");
    assert_eq!(undo_of(&driven.definition, &driven.state, "r"), Some(target("/r/undo", None)));
}

fn follow(follower: &mut Follower, driven: &Driven, version: usize) -> Result<Followed, CannotFollow> {
    let recorded = &driven.events[version - 1];
    follower.follow(recorded.version, recorded.event.kind(), &recorded.event.data(), recorded.occurred_at)
}

#[test]
fn a_follower_skips_what_it_knows_and_tells_of_gaps() {
    let mut driven = two_services(json!({}));
    tell(&mut driven, "a", Operation::Action, succeeded());
    tell(&mut driven, "b", Operation::Action, succeeded());
    let mut follower = Follower::new(driven.state.id, Arc::clone(&driven.definition));
    let gap = |expected| Ok(Followed::Gap { expected });
    for (version, expected) in [
        (2, gap(1)),
        (1, Ok(Followed::Applied)),
        (1, Ok(Followed::Old)),
        (3, gap(2)),
        (2, Ok(Followed::Applied)),
        (3, Ok(Followed::Applied)),
        (2, Ok(Followed::Old)),
        (4, Ok(Followed::Applied)),
    ] {
        assert_eq!(follow(&mut follower, &driven, version), expected, "{version}");
    }
    assert_eq!(
        follower.state().map(|state| state.row(follower.definition())),
        Some(driven.state.row(&driven.definition))
    );
}

#[test]
fn a_follower_reads_times_as_the_api_tells_them() {
    let driven = two_services(json!({}));
    let text = driven.events[0].event.data();
    let mut data: Value = serde_json::from_str(&text).unwrap();
    data["deadline_at"] = json!("2027-01-15T08:01:00Z");
    let mut follower = Follower::new(driven.state.id, Arc::clone(&driven.definition));
    follower.follow(1, "SagaStarted", &data.to_string(), driven.now).unwrap();
    assert_eq!(follower.state(), Some(&driven.state));
    let pinned = Pinned::by("SagaStarted", &text).unwrap();
    let Definition { name, version, hash, .. } = &*driven.definition;
    assert_eq!((&pinned.definition, &pinned.version, &pinned.hash), (name, version, hash));
}

#[test]
fn what_a_follower_cannot_read_it_does_not_act_on() {
    let driven = two_services(json!({}));
    let mut follower = Follower::new(driven.state.id, Arc::clone(&driven.definition));
    assert_eq!(
        follower.follow(1, "SagaFailed", r#"{"code": "", "reason": ""}"#, driven.now),
        Err(CannotFollow::Broken(BadStream::NoStart))
    );
    follow(&mut follower, &driven, 1).unwrap();
    let unknown = follower.follow(2, "SagaReborn", "{}", driven.now);
    assert_eq!(unknown, Err(CannotFollow::Unreadable(UnreadableEvent::Kind(String::from("SagaReborn")))));
    for data in ["", "[]", "{}", r#"{"deadline_at": "soon"}"#] {
        assert!(follower.follow(2, "StepSucceeded", data, driven.now).is_err(), "{data}");
    }
    assert_eq!(follower.version(), 1);
    let other = definition(&saga(vec![step("x", json!({}))]));
    let mut stranger = Follower::new(driven.state.id, other);
    let found = follow(&mut stranger, &driven, 1);
    assert!(matches!(found, Err(CannotFollow::Broken(BadStream::WrongDefinition { .. }))), "{found:?}");
}
