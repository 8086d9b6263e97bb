//! One test per rule of the machine.

use alloc::{string::String, vec};

use serde_json::json;

use super::*;
use crate::{
    decide::{CallbackOutcome, operator::Resolution},
    state::Outcome,
};

fn chain() -> Driven {
    Driven::start(&saga(vec![step("a", json!({})), step("b", json!({})), step("c", json!({}))]))
}

/// a, then the pivot p, then the retriable r; nothing after a can be undone.
fn pivoted() -> Driven {
    Driven::start(&saga(vec![
        step("a", json!({})),
        step("p", json!({"pivot": true, "compensate": null})),
        step("r", json!({"retriable": true, "compensate": null})),
    ]))
}

fn failure_code(driven: &Driven) -> &str {
    driven.state.failure.as_ref().unwrap().code.as_str()
}

fn parked_code(driven: &Driven) -> Option<String> {
    driven.state.steps.iter().find_map(|step| match &step.work.wait {
        crate::state::Wait::Parked { code, .. } => Some(code.clone()),
        _ => None,
    })
}

/// Lets every attempt of what is under way end like this until the machine stops calling.
fn exhaust(driven: &mut Driven, result: &CallResult) -> usize {
    let key = driven.calls[0].key.clone();
    let mut attempts = 0;
    while driven.calls.first().is_some_and(|call| call.key == key && call.purpose == Purpose::Attempt) {
        let call = driven.take_call();
        driven.finish(&call, result.clone());
        attempts += 1;
        if driven.calls.is_empty() && driven.state.status == Status::Running {
            driven.tick_at_timer();
        }
    }
    attempts
}

#[test]
fn steps_run_in_written_order_with_one_transition_each() {
    let mut driven = chain();
    for expected in ["a", "b", "c"] {
        assert_eq!(&*driven.calls[0].step, expected);
        driven.answer(200, json!({}));
    }
    assert_eq!(driven.state.status, Status::Completed);
    assert_eq!(
        driven.kinds(),
        [
            "SagaStarted",
            "StepStarted",
            "StepSucceeded",
            "StepStarted",
            "StepSucceeded",
            "StepStarted",
            "StepSucceeded",
            "SagaCompleted"
        ]
    );
}

#[test]
fn independent_steps_run_in_parallel_and_join() {
    let mut driven = Driven::start(&saga(vec![
        step("a", json!({"needs": []})),
        step("b", json!({"needs": []})),
        step("c", json!({"needs": ["a", "b"]})),
    ]));
    assert_eq!(driven.calls.len(), 2);
    let first = driven.calls.remove(1);
    driven.finish(&first, answered(200, json!({})));
    assert_eq!(driven.status_of("c"), StepStatus::Pending, "c waits for both");
    driven.answer(200, json!({}));
    assert_eq!(&*driven.calls[0].step, "c");
}

#[test]
fn a_step_whose_condition_is_false_is_skipped() {
    let mut driven =
        Driven::start(&saga(vec![step("a", json!({"if": "input.n > 1"})), step("b", json!({"if": "input.n == 1"}))]));
    assert_eq!(driven.status_of("a"), StepStatus::Skipped);
    driven.answer(200, json!({}));
    assert_eq!(driven.state.status, Status::Completed);
}

#[test]
fn rejected_undoes_what_succeeded_in_reverse_order() {
    let mut driven = chain();
    driven.answer(200, json!({}));
    driven.answer(200, json!({}));
    driven.answer(422, json!({"code": "declined", "detail": "no funds"}));
    assert_eq!((driven.state.status, failure_code(&driven)), (Status::Compensating, "declined"));
    driven.answer(200, json!({}));
    driven.answer(200, json!({}));
    assert_eq!(driven.undone(), ["b", "a"]);
    assert_eq!(driven.state.status, Status::Compensated);
}

#[test]
fn rejected_before_any_effect_ends_in_the_same_transition() {
    let mut driven = chain();
    driven.answer(402, json!({}));
    assert_eq!(driven.state.status, Status::Compensated);
    assert!(driven.undone().is_empty());
}

#[test]
fn a_call_in_flight_finishes_before_it_is_undone() {
    let mut driven = Driven::start(&saga(vec![step("a", json!({"needs": []})), step("b", json!({"needs": []}))]));
    let a = driven.calls.remove(0);
    driven.answer(422, json!({}));
    assert_eq!(driven.status_of("a"), StepStatus::Running);
    driven.finish(&a, answered(200, json!({})));
    assert_eq!(driven.status_of("a"), StepStatus::Compensating);
    driven.answer(200, json!({}));
    assert_eq!(driven.state.status, Status::Compensated);
}

#[test]
fn a_failing_saga_makes_no_new_attempt_and_doubts_what_was_reached() {
    for (first, expected) in [(timed_out(), StepStatus::Compensating), (refused_connection(), StepStatus::Rejected)] {
        let mut driven = Driven::start(&saga(vec![step("a", json!({"needs": []})), step("b", json!({"needs": []}))]));
        let a = driven.calls.remove(0);
        driven.finish(&a, first);
        driven.answer(422, json!({}));
        assert_eq!(driven.status_of("a"), expected);
    }
}

#[test]
fn attempts_run_out_by_policy_and_the_outcome_depends_on_what_was_sent() {
    for (result, attempts, code, outcome) in [
        (refused_connection(), 3, "unreachable", Outcome::Rejected),
        (timed_out(), 3, "attempts_exhausted", Outcome::Unknown),
        (answered(503, json!({})), 3, "attempts_exhausted", Outcome::Unknown),
        (answered(404, json!({})), 3, "misconfigured", Outcome::Unknown),
    ] {
        let mut driven = Driven::start(&saga(vec![step("a", json!({}))]));
        assert_eq!(exhaust(&mut driven, &result), attempts, "{result:?}");
        assert_eq!((failure_code(&driven), driven.state.steps[0].outcome), (code, Some(outcome)), "{result:?}");
    }
}

#[test]
fn a_crash_since_the_intent_means_that_something_may_have_been_sent() {
    let mut driven = Driven::start(&saga(vec![step("a", json!({}))]));
    driven.crash();
    exhaust(&mut driven, &refused_connection());
    assert_eq!(driven.state.steps[0].outcome, Some(Outcome::Unknown));
}

#[test]
fn the_attempt_count_survives_a_crash() {
    let mut driven = Driven::start(&saga(vec![step("a", json!({}))]));
    let call = driven.take_call();
    driven.finish(&call, timed_out());
    driven.crash();
    assert!(driven.calls.is_empty(), "the next attempt's time has not come");
    driven.tick_at_timer();
    assert_eq!(driven.calls[0].attempt, 2);
    assert_eq!(driven.calls[0].key, call.key);
}

#[test]
fn an_unknown_outcome_is_compensated_and_the_participant_is_told() {
    let mut driven = Driven::start(&saga(vec![step("a", json!({}))]));
    exhaust(&mut driven, &timed_out());
    assert_eq!(driven.calls[0].compensates, Some(Outcome::Unknown));
}

#[test]
fn the_status_call_decides_what_attempts_could_not() {
    let with_status = json!({"status": { "call": { "service": "s", "method": "GET", "path": "/a" } }});
    for (status, expected) in [
        (200, StepStatus::Succeeded),
        (422, StepStatus::Rejected),
        (404, StepStatus::Compensating),
        (500, StepStatus::Compensating),
    ] {
        let mut driven = Driven::start(&saga(vec![step("a", with_status.clone()), step("b", json!({}))]));
        exhaust(&mut driven, &timed_out());
        while driven.calls.first().is_some_and(|call| call.purpose == Purpose::Status) {
            driven.answer(status, json!({}));
            if driven.calls.is_empty() {
                driven.tick_at_timer();
            }
        }
        assert_eq!(driven.status_of("a"), expected, "{status}");
    }
}

#[test]
fn in_flight_answers_and_deferrals_use_no_attempt() {
    let mut driven = Driven::start(&saga(vec![step("a", json!({}))]));
    for _ in 0..6 {
        driven.answer(409, json!({}));
        driven.tick_at_timer();
        let call = driven.take_call();
        let until = driven.now.plus(Millis(10));
        driven.finish(&call, CallResult::Deferred { until, why: String::from("circuit open") });
        driven.tick_at_timer();
    }
    assert_eq!(driven.calls[0].attempt, 1);
    driven.answer(200, json!({}));
    assert_eq!(driven.state.status, Status::Completed);
}

#[test]
fn a_participant_that_is_always_still_at_it_is_not_asked_for_ever() {
    let mut driven = chain();
    driven.answer(200, json!({}));
    driven.answer(422, json!({}));
    let mut asked = 0;
    while driven.state.status == Status::Compensating {
        driven.answer(409, json!({}));
        driven.tick_at_timer();
        asked += 1;
        assert!(asked < 1000, "a compensation goes on and on");
    }
    assert_eq!((driven.state.status, parked_code(&driven).as_deref()), (Status::Parked, Some("in_flight")));

    let with_status = json!({"status": { "call": { "service": "s", "method": "GET", "path": "/a" } }});
    let mut driven = Driven::start(&saga(vec![step("a", with_status)]));
    exhaust(&mut driven, &timed_out());
    let mut asked = 0;
    while driven.calls.first().is_some_and(|call| call.purpose == Purpose::Status) {
        driven.answer(409, json!({}));
        driven.tick_at_timer();
        asked += 1;
    }
    assert_eq!((asked, driven.status_of("a")), (3, StepStatus::Compensating));
}

#[test]
fn cancelled_means_no_effect() {
    let mut driven = Driven::start(&saga(vec![step("a", json!({}))]));
    driven.answer(409, json!({"outcome": "cancelled", "code": "cancelled"}));
    assert_eq!((driven.status_of("a"), driven.state.status), (StepStatus::Rejected, Status::Compensated));
}

#[test]
fn retry_after_is_a_floor_that_never_outlives_the_deadline() {
    let busy = |seconds: u64| {
        CallResult::Answered(Answer {
            status: 503,
            retry_after: Some(Millis(seconds * 1000)),
            location: None,
            body: Body::Empty,
        })
    };
    let mut driven = Driven::start(&saga(vec![step("a", json!({}))]));
    let call = driven.take_call();
    driven.finish(&call, busy(7));
    assert_eq!(wake_at(&driven.definition, &driven.state), Some(driven.now.plus(Millis(7000))));
    driven.tick_at_timer();
    let call = driven.take_call();
    driven.finish(&call, busy(3600));
    assert_eq!(driven.status_of("a"), StepStatus::Compensating, "waiting an hour would outlive the deadline");
}

#[test]
fn a_useless_answer_took_effect_and_is_undone_as_succeeded() {
    let output = json!({"output": {"total": "${response.body.total}"}});
    for result in [
        answered(200, json!({"sum": 1})),
        CallResult::Answered(Answer {
            status: 200,
            retry_after: None,
            location: None,
            body: Body::Unusable(String::from("not JSON")),
        }),
    ] {
        let mut driven = Driven::start(&saga(vec![step("a", output.clone())]));
        let call = driven.take_call();
        driven.finish(&call, result);
        assert_eq!(failure_code(&driven), "output_invalid");
        assert_eq!(driven.calls[0].compensates, Some(Outcome::Succeeded));
    }
}

#[test]
fn an_expression_that_fails_before_the_call_is_a_rejection() {
    let mut driven = Driven::start(&saga(vec![
        step("a", json!({})),
        step("b", json!({"call": {"service": "s", "method": "POST", "path": "/b", "body": "${input.nothing}"}})),
    ]));
    driven.answer(200, json!({}));
    assert_eq!((driven.status_of("b"), failure_code(&driven)), (StepStatus::Rejected, "expression_failed"));
    assert_eq!(driven.status_of("a"), StepStatus::Compensating);
}

#[test]
fn an_expression_that_fails_in_a_compensation_parks() {
    let undo = json!({"call": {"service": "s", "method": "POST", "path": "/undo", "body": "${input.nothing}"}});
    let mut driven = Driven::start(&saga(vec![step("a", json!({"compensate": undo})), step("b", json!({}))]));
    driven.answer(200, json!({}));
    driven.answer(422, json!({}));
    assert_eq!((driven.state.status, parked_code(&driven).as_deref()), (Status::Parked, Some("expression_failed")));
}

#[test]
fn a_refused_or_exhausted_compensation_parks() {
    for status in [422, 402, 410] {
        let mut driven = chain();
        driven.answer(200, json!({}));
        driven.answer(422, json!({}));
        driven.answer(status, json!({}));
        assert_eq!(driven.state.status, Status::Parked, "{status}");
    }
    let undo = json!({"call": {"service": "s", "method": "POST", "path": "/u"}, "retry": {"max_attempts": 2}});
    let mut driven = Driven::start(&saga(vec![step("a", json!({"compensate": undo})), step("b", json!({}))]));
    driven.answer(200, json!({}));
    driven.answer(422, json!({}));
    driven.answer(503, json!({}));
    assert_eq!(driven.state.status, Status::Compensating);
    driven.tick_at_timer();
    driven.answer(503, json!({}));
    assert_eq!(parked_code(&driven).as_deref(), Some("compensation_exhausted"));
}

#[test]
fn past_the_pivot_a_refusal_is_retried_and_then_parked() {
    let mut driven = pivoted();
    driven.answer(200, json!({}));
    driven.answer(200, json!({}));
    assert_eq!(exhaust(&mut driven, &answered(422, json!({"code": "no"}))), 3);
    assert_eq!((driven.state.status, parked_code(&driven).as_deref()), (Status::Parked, Some("rejected")));
    driven.operate(OperatorAction::Retry { step: None }).unwrap();
    driven.answer(200, json!({}));
    assert_eq!(driven.state.status, Status::Completed);
}

#[test]
fn an_unknown_pivot_that_cannot_be_undone_parks() {
    let mut driven = pivoted();
    driven.answer(200, json!({}));
    exhaust(&mut driven, &timed_out());
    assert_eq!((driven.state.status, parked_code(&driven).as_deref()), (Status::Parked, Some("outcome_unknown")));
    assert!(!driven.tick_at_timer(), "a parked saga waits for nobody but an operator");
    let resolution = Resolution::Succeeded { output: None };
    driven.operate(OperatorAction::Resolve { step: String::from("p"), resolution }).unwrap();
    assert_eq!(&*driven.calls[0].step, "r");
}

#[test]
fn the_deadline_ends_a_saga_before_its_pivot_and_only_alerts_after() {
    let mut driven = pivoted();
    let a = driven.take_call();
    driven.now = driven.now.plus(Millis(60_000));
    driven.tick();
    assert_eq!(failure_code(&driven), "deadline_exceeded");
    driven.finish(&a, answered(200, json!({})));
    assert_eq!(driven.status_of("a"), StepStatus::Compensating);

    let mut driven = pivoted();
    driven.answer(200, json!({}));
    driven.answer(200, json!({}));
    driven.now = driven.now.plus(Millis(3_600_000));
    driven.tick();
    driven.answer(200, json!({}));
    assert_eq!(driven.state.status, Status::Completed);
}

#[test]
fn the_pivot_is_never_first_called_past_the_deadline() {
    let mut driven = pivoted();
    let a = driven.take_call();
    driven.now = driven.now.plus(Millis(60_000));
    driven.finish(&a, answered(200, json!({})));
    assert_eq!(driven.status_of("p"), StepStatus::Pending);
    assert_eq!(failure_code(&driven), "deadline_exceeded");
}

#[test]
fn a_pivot_in_flight_at_the_deadline_may_still_succeed() {
    let mut driven = pivoted();
    driven.answer(200, json!({}));
    driven.now = driven.now.plus(Millis(60_000));
    driven.tick();
    assert_eq!(driven.state.status, Status::Running);
    driven.answer(200, json!({}));
    assert_eq!(driven.status_of("p"), StepStatus::Succeeded);
}

#[test]
fn an_attempt_is_cut_to_the_time_that_is_left() {
    let mut driven = Driven::start(&saga(vec![step("a", json!({"deadline": "1500ms"}))]));
    assert_eq!(driven.calls[0].timeout, Millis(1000));
    let call = driven.take_call();
    driven.now = driven.now.plus(Millis(1000));
    driven.finish(&call, timed_out());
    driven.tick_at_timer();
    assert!(driven.calls[0].timeout <= Millis(500), "{:?}", driven.calls[0].timeout);
}

#[test]
fn accepted_waits_for_its_callback_which_may_beat_the_202() {
    let accepted = CallResult::Answered(Answer { status: 202, retry_after: None, location: None, body: Body::Empty });
    let done = |output: Value| {
        Input::Callback(Callback {
            step: String::from("a"),
            operation: Operation::Action,
            outcome: CallbackOutcome::Succeeded { output },
        })
    };
    let output = json!({"output": {"total": "${response.body.total}"}});
    for callback_first in [false, true] {
        let mut driven = Driven::start(&saga(vec![step("a", output.clone()), step("b", json!({}))]));
        let call = driven.take_call();
        if callback_first {
            driven.input(done(json!({"total": 5}))).unwrap();
            driven.finish(&call, accepted.clone());
        } else {
            driven.finish(&call, accepted.clone());
            driven.reload();
            driven.input(done(json!({"total": 5}))).unwrap();
        }
        assert_eq!(driven.state.step("a").unwrap().output.as_deref(), Some(&json!({"total": 5})));
        let version = driven.state.version;
        driven.input(done(json!({"total": 6}))).unwrap();
        assert_eq!(driven.state.version, version, "a repeat changes nothing");
        let rejected = CallbackOutcome::Rejected { code: String::new(), reason: String::new() };
        let late = Callback { step: String::from("a"), operation: Operation::Action, outcome: rejected };
        assert!(driven.input(Input::Callback(late)).is_err(), "another outcome is too late");
    }
}

#[test]
fn accepted_with_a_location_is_polled_until_it_ends() {
    let mut driven = Driven::start(&saga(vec![step("a", json!({"poll": "2s"}))]));
    let call = driven.take_call();
    let location = Some(String::from("/jobs/1"));
    driven.finish(&call, CallResult::Answered(Answer { status: 202, retry_after: None, location, body: Body::Empty }));
    for _ in 0..3 {
        driven.tick_at_timer();
        let poll = driven.take_call();
        assert_eq!((poll.purpose, poll.target.path.as_str()), (Purpose::Poll, "/jobs/1"));
        let versions = driven.state.version;
        driven.finish(&poll, answered(404, json!({})));
        assert_eq!(driven.state.version, versions, "a poll that tells nothing writes nothing");
    }
    driven.tick_at_timer();
    driven.answer(200, json!({"done": true}));
    assert_eq!(driven.state.status, Status::Completed);
}

#[test]
fn force_compensate_undoes_even_past_the_pivot_and_parks_what_cannot_be_undone() {
    let mut driven = pivoted();
    driven.answer(200, json!({}));
    driven.answer(200, json!({}));
    driven.operate(OperatorAction::Compensate).unwrap();
    assert_eq!((driven.state.status, driven.status_of("r")), (Status::Compensating, StepStatus::Running));
    driven.answer(422, json!({}));
    assert_eq!((driven.state.status, parked_code(&driven).as_deref()), (Status::Parked, Some("no_compensation")));
    driven.operate(OperatorAction::Skip { step: String::from("p"), output: None }).unwrap();
    driven.answer(200, json!({}));
    assert_eq!((driven.undone(), driven.state.status), (vec![String::from("a")], Status::Abandoned));
}

#[test]
fn operators_are_told_what_they_cannot_do() {
    let mut driven = chain();
    let step = || String::from("a");
    for (action, expected) in [
        (OperatorAction::Abandon, "only a parked saga"),
        (OperatorAction::Retry { step: None }, "nothing is parked"),
        (OperatorAction::Skip { step: step(), output: None }, "being called right now"),
        (OperatorAction::Resolve { step: step(), resolution: Resolution::Rejected }, "being called right now"),
        (OperatorAction::Skip { step: String::from("c"), output: None }, "is pending"),
        (OperatorAction::Skip { step: String::from("zz"), output: None }, "not in the definition"),
    ] {
        let refused = driven.operate(action.clone()).unwrap_err().to_string();
        assert!(refused.contains(expected), "{action:?}: {refused}");
    }
    driven.answer(422, json!({}));
    assert_eq!(driven.operate(OperatorAction::Compensate), Err(IllegalInput::Ended(Status::Compensated)));
}

#[test]
fn an_operator_must_give_the_output_that_others_read() {
    let mut driven = Driven::start(&saga(vec![
        step("a", json!({})),
        step("b", json!({"call": {"service": "s", "method": "POST", "path": "/b", "body": "${steps.a.output.x}"}})),
    ]));
    let call = driven.take_call();
    driven.finish(&call, timed_out());
    let skip = |output| OperatorAction::Skip { step: String::from("a"), output };
    assert!(matches!(driven.operate(skip(None)), Err(IllegalInput::MissingOutput(_))));
    driven.operate(skip(Some(json!({"x": 9})))).unwrap();
    assert_eq!(driven.calls[0].target.body.as_deref(), Some("9"));
}

#[test]
fn an_outdated_revision_is_refused() {
    let mut driven = chain();
    let command = OperatorCommand {
        actor: String::from("ada"),
        reason: String::from("x"),
        request_id: None,
        correlation_id: None,
        expected_revision: Some(1),
        action: OperatorAction::Compensate,
    };
    let refused = driven.input(Input::Operator(command));
    assert_eq!(refused, Err(IllegalInput::RevisionMismatch { expected: 1, actual: 2 }));
}

#[test]
fn abandoning_a_parked_saga_ends_it_as_it_stands() {
    let mut driven = chain();
    driven.answer(200, json!({}));
    driven.answer(422, json!({}));
    driven.answer(422, json!({}));
    driven.operate(OperatorAction::Abandon).unwrap();
    assert_eq!(driven.state.status, Status::Abandoned);
    let acted = driven.events.iter().find(|recorded| recorded.event.kind() == "OperatorActed").unwrap();
    assert_eq!(acted.actor.as_deref(), Some("ada"));
}

#[test]
fn a_late_report_of_an_earlier_life_is_ignored() {
    let mut driven = chain();
    let old = driven.take_call();
    driven.crash();
    let version = driven.state.version;
    driven.finish(&old, answered(422, json!({})));
    assert_eq!(driven.state.version, version);
    assert_eq!(driven.calls.len(), 1);
}

#[test]
fn a_saga_whose_processes_die_again_and_again_is_parked_and_an_operator_can_retry_it() {
    let mut driven = chain();
    for takeovers in 1..TAKEOVERS_MAX {
        driven.crash();
        assert_eq!((driven.state.takeovers, driven.calls.len()), (takeovers, 1), "recorded, and called again");
    }
    driven.crash();
    assert_eq!((driven.state.status, parked_code(&driven).as_deref()), (Status::Parked, Some("process_died")));
    assert!(driven.calls.is_empty());
    driven.crash();
    assert_eq!(*driven.kinds().last().unwrap(), "StepParked", "what waits for an operator takes no process down");
    driven.operate(OperatorAction::Retry { step: None }).unwrap();
    assert_eq!((driven.state.takeovers, driven.calls.len()), (0, 1));
}

#[test]
fn progress_resets_the_count_of_takeovers() {
    let mut driven = chain();
    driven.crash();
    driven.crash();
    driven.answer(503, json!({}));
    assert_eq!(driven.state.takeovers, 0);
    driven.tick_at_timer();
    driven.crash();
    driven.crash();
    assert_eq!((driven.state.status, driven.state.takeovers), (Status::Running, 2));
}

#[test]
fn a_saga_that_had_nothing_in_progress_is_not_counted() {
    let mut driven = chain();
    driven.answer(503, json!({}));
    let waiting = driven.state.version;
    driven.crash();
    assert_eq!(driven.state.version, waiting, "its next attempt's time had not come");
}

fn command(request_id: &str, action: OperatorAction) -> OperatorCommand {
    OperatorCommand {
        actor: String::from("ada"),
        reason: String::from("because"),
        request_id: Some(String::from(request_id)),
        correlation_id: None,
        expected_revision: None,
        action,
    }
}

fn named(request_id: &str, action: OperatorAction) -> Input {
    Input::Operator(command(request_id, action))
}

/// Parked, with `a` waiting to be undone by an operator.
fn parked() -> Driven {
    let mut driven = chain();
    driven.answer(200, json!({}));
    driven.answer(422, json!({}));
    driven.answer(422, json!({}));
    assert_eq!(driven.state.status, Status::Parked);
    driven
}

#[test]
fn a_repeated_command_is_one_command_whatever_it_led_to() {
    let step = || String::from("a");
    let succeeded = || Resolution::Succeeded { output: None };
    for (action, status) in [
        (OperatorAction::Retry { step: None }, Status::Compensating),
        (OperatorAction::Resolve { step: step(), resolution: succeeded() }, Status::Compensated),
        (OperatorAction::Skip { step: step(), output: None }, Status::Abandoned),
        (OperatorAction::Abandon, Status::Abandoned),
    ] {
        let mut driven = parked();
        driven.input(named("r-1", action.clone())).unwrap();
        assert_eq!(driven.state.status, status, "{action:?}");
        for _ in 0..2 {
            let version = driven.state.version;
            driven.input(named("r-1", action.clone())).unwrap();
            assert_eq!(driven.state.version, version, "{action:?}");
            // The next owner knows it too.
            driven.crash();
        }
        assert_eq!(driven.kinds().iter().filter(|kind| **kind == "OperatorActed").count(), 1, "{action:?}");
    }
    let mut driven = chain();
    driven.input(named("r-1", OperatorAction::Compensate)).unwrap();
    driven.input(named("r-1", OperatorAction::Compensate)).unwrap();
    assert_eq!(driven.kinds().iter().filter(|kind| **kind == "OperatorActed").count(), 1);
}

#[test]
fn a_repeated_command_is_not_held_to_the_revision_that_it_moved_on() {
    let mut driven = parked();
    let expected_revision = Some(driven.state.version);
    let abandon = OperatorCommand { expected_revision, ..command("r-1", OperatorAction::Abandon) };
    driven.input(Input::Operator(abandon.clone())).unwrap();
    driven.input(Input::Operator(abandon)).unwrap();
    assert_eq!(driven.state.status, Status::Abandoned);
}

#[test]
fn another_request_id_is_another_command() {
    let retry = || OperatorAction::Retry { step: None };
    let mut driven = parked();
    driven.input(named("r-1", retry())).unwrap();
    driven.answer(422, json!({}));
    driven.input(named("r-2", retry())).unwrap();
    driven.answer(422, json!({}));
    assert_eq!(driven.kinds().iter().filter(|kind| **kind == "OperatorActed").count(), 2);
    driven.input(named("r-3", OperatorAction::Abandon)).unwrap();
    let late = driven.input(named("r-4", OperatorAction::Abandon));
    assert_eq!(late, Err(IllegalInput::Ended(Status::Abandoned)));
}

#[test]
fn a_request_id_stands_for_one_command_only() {
    let mut driven = parked();
    driven.input(named("r-1", OperatorAction::Retry { step: None })).unwrap();
    let taken = Err(IllegalInput::RequestIdTaken(String::from("retry")));
    assert_eq!(driven.input(named("r-1", OperatorAction::Abandon)), taken);
    assert_eq!(driven.input(named("r-1", OperatorAction::Retry { step: Some(String::from("a")) })), taken);
}

#[test]
fn a_command_reads_back_as_it_was_written() {
    for output in [None, Some(Value::Null), Some(json!({"n": 1.5}))] {
        let step = || String::from("a");
        for action in [
            OperatorAction::Retry { step: None },
            OperatorAction::Resolve { step: step(), resolution: Resolution::Succeeded { output: output.clone() } },
            OperatorAction::Resolve { step: step(), resolution: Resolution::Rejected },
            OperatorAction::Skip { step: step(), output: output.clone() },
            OperatorAction::Compensate,
            OperatorAction::Abandon,
        ] {
            let command = command("r-1", action);
            let text = serde_json::to_string(&command).unwrap();
            assert_eq!(serde_json::from_str::<OperatorCommand>(&text).unwrap(), command, "{text}");
        }
    }
}
