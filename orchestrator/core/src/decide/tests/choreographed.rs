//! The choreographed machine's rules, one by one. Steps are `a`, `b`, .. in a row unless a test says otherwise.

use alloc::vec;

use super::*;

fn succeeded() -> ReportedOutcome {
    ReportedOutcome::Succeeded { output: json!({"x": 1}) }
}

fn rejected() -> ReportedOutcome {
    ReportedOutcome::Rejected { code: String::from("no"), reason: String::from("none left") }
}

fn garbled() -> ReportedOutcome {
    ReportedOutcome::OutputInvalid { reason: String::from("not JSON") }
}

fn begun(steps: Vec<Value>) -> Driven {
    Driven::start_in(Mode::Choreographed, definition(&saga(steps)))
}

fn chain() -> Driven {
    begun(vec![step("a", json!({})), step("b", json!({})), step("c", json!({}))])
}

/// `a`, then the pivot `p`, then `r`.
fn past_a_pivot(retriable: Value) -> Driven {
    let mut r = json!({"retriable": true});
    r.as_object_mut().unwrap().extend(retriable.as_object().unwrap().clone());
    let mut driven = begun(vec![step("a", json!({})), step("p", json!({"pivot": true})), step("r", r)]);
    driven.told("a", succeeded()).unwrap();
    driven.told("p", succeeded()).unwrap();
    driven
}

impl Driven {
    fn told(&mut self, step: &str, outcome: ReportedOutcome) -> Result<(), IllegalInput> {
        let operation = match outcome {
            ReportedOutcome::Compensated => Operation::Compensation,
            _ => Operation::Action,
        };
        let report = report(self, step, operation, outcome);
        self.input(reported([report]))
    }

    fn statuses(&self) -> Vec<StepStatus> {
        self.state.steps.iter().map(|step| step.status).collect()
    }

    fn after(&mut self, span: Millis) {
        self.now = self.now.plus(span);
    }

    fn parked_with(&self, step: &str) -> Option<&str> {
        match &self.state.step(step).unwrap().work.wait {
            crate::state::Wait::Parked { code, .. } => Some(code),
            _ => None,
        }
    }
}

use StepStatus::{Compensated, Compensating, Pending, Rejected, Running, Skipped, Succeeded};

#[test]
fn a_saga_begins_with_one_event_and_nobody_is_called() {
    let driven = chain();
    assert_eq!(driven.kinds(), ["SagaStarted"]);
    assert_eq!(driven.statuses(), [Running, Pending, Pending], "what needs nothing is enabled");
    assert_eq!(wake_at(&driven.definition, &driven.state), driven.state.deadline_at);
}

#[test]
fn what_succeeds_enables_what_needs_it_and_the_last_one_completes() {
    let mut driven = chain();
    for (step, statuses) in [("a", [Succeeded, Running, Pending]), ("b", [Succeeded, Succeeded, Running])] {
        driven.told(step, succeeded()).unwrap();
        assert_eq!(driven.statuses(), statuses);
    }
    driven.told("c", succeeded()).unwrap();
    assert_eq!(driven.kinds()[3..], ["StepSucceeded", "SagaCompleted"], "in one commit");
    assert_eq!((driven.state.status, driven.calls.len()), (Status::Completed, 0));
}

#[test]
fn a_failure_undoes_in_reverse_as_each_is_reported_undone() {
    let mut driven = chain();
    driven.told("a", succeeded()).unwrap();
    driven.told("b", succeeded()).unwrap();
    driven.told("c", rejected()).unwrap();
    assert_eq!(driven.kinds()[3..], ["StepRejected", "SagaFailed"]);
    assert_eq!(driven.state.failure.as_ref().unwrap().code, "no");
    assert_eq!(driven.statuses(), [Succeeded, Compensating, Rejected], "a waits for b");
    assert!(matches!(driven.told("a", ReportedOutcome::Compensated), Err(IllegalInput::NotUnderWay { .. })));
    driven.told("b", ReportedOutcome::Compensated).unwrap();
    assert_eq!(driven.statuses(), [Compensating, Compensated, Rejected]);
    driven.told("a", ReportedOutcome::Compensated).unwrap();
    assert_eq!(driven.kinds()[5..], ["StepCompensated", "StepCompensated", "SagaCompensated"]);
}

/// `a` and `b` side by side, `c` after both; `a` fails first while `b` is enabled.
fn one_of_two_failed() -> Driven {
    let mut driven = begun(vec![
        step("a", json!({"needs": []})),
        step("b", json!({"needs": []})),
        step("c", json!({"needs": ["a", "b"]})),
    ]);
    driven.told("a", rejected()).unwrap();
    assert_eq!(driven.statuses(), [Rejected, Running, Pending], "an enabled step stays its owner's");
    driven
}

#[test]
fn an_enabled_step_ends_after_the_failure_in_every_way() {
    for (outcome, status, kinds) in [
        (succeeded(), Compensating, &["StepSucceeded"][..]),
        (garbled(), Compensating, &["StepOutputInvalid"]),
        (rejected(), Rejected, &["StepRejected", "SagaCompensated"]),
        (ReportedOutcome::Cancelled, Rejected, &["StepRejected", "SagaCompensated"]),
    ] {
        let mut driven = one_of_two_failed();
        driven.told("b", outcome.clone()).unwrap();
        assert_eq!((driven.statuses()[1], &driven.kinds()[3..]), (status, kinds), "{outcome:?}");
        let Event::StepRejected(event) = &driven.events[3].event else { continue };
        assert_eq!(event.code, if outcome == ReportedOutcome::Cancelled { "cancelled" } else { "no" });
    }
}

#[test]
fn a_report_of_what_a_step_came_to_is_harmless_and_another_is_refused() {
    let known = |first: &[(&str, ReportedOutcome)], again: ReportedOutcome, step: &str| {
        let mut driven = chain();
        for (step, outcome) in first {
            driven.told(step, outcome.clone()).unwrap();
        }
        let before = driven.state.version;
        let result = driven.told(step, again);
        assert_eq!(driven.state.version, before);
        result
    };
    let undone = [("a", succeeded()), ("b", rejected()), ("a", ReportedOutcome::Compensated)];
    for (first, again, step) in [
        (&undone[..1], succeeded(), "a"),
        (&undone[..2], succeeded(), "a"),
        (&undone[..2], rejected(), "b"),
        (&undone, succeeded(), "a"),
        (&undone, rejected(), "b"),
        (&undone, ReportedOutcome::Compensated, "a"),
    ] {
        assert_eq!(known(first, again.clone(), step), Ok(()), "{again:?} of {step} after {first:?}");
    }
    let ended = Err(IllegalInput::Ended(Status::Compensated));
    for (first, again, step, refused) in [
        (&undone[..1], rejected(), "a", None),
        (&undone[..1], ReportedOutcome::Skipped, "a", None),
        (&undone[..1], ReportedOutcome::Compensated, "a", None),
        (&undone[..1], succeeded(), "c", None),
        (&undone[..2], succeeded(), "b", None),
        (&undone[..2], succeeded(), "c", None),
        (&undone, succeeded(), "b", Some(ended.clone())),
        (&undone, succeeded(), "c", Some(ended)),
    ] {
        let found = known(first, again.clone(), step);
        match refused {
            Some(refused) => assert_eq!(found, refused, "{again:?} of {step}"),
            None => assert!(matches!(found, Err(IllegalInput::NotUnderWay { .. })), "{again:?} of {step}: {found:?}"),
        }
    }
}

#[test]
fn a_report_must_bear_its_operations_key_and_end_it() {
    let mut driven = chain();
    let good = report(&driven, "a", Operation::Action, succeeded());
    for bad in [
        Report { event_id: Arc::from("x"), ..good.clone() },
        Report { step: String::from("b"), ..good.clone() },
        Report { operation: Operation::Compensation, ..good.clone() },
        report(&driven, "a", Operation::Compensation, succeeded()),
        report(&driven, "a", Operation::Action, ReportedOutcome::Compensated),
    ] {
        let found = driven.input(reported([bad.clone()]));
        assert!(matches!(found, Err(IllegalInput::BadReport(_))), "{bad:?}: {found:?}");
    }
    driven.input(reported([good.clone()])).unwrap();
    assert_eq!(driven.kinds(), ["SagaStarted", "StepSucceeded"]);
    let zz = report(&driven, "zz", Operation::Action, succeeded());
    assert_eq!(driven.input(reported([zz])), Err(IllegalInput::NoSuchStep(String::from("zz"))));
}

#[test]
fn only_what_ends_an_operation_bears_its_name() {
    let driven = chain();
    let report = report(&driven, "a", Operation::Action, rejected());
    let name = Arc::clone(&report.event_id);
    let decision = decide(&driven.definition, &driven.state, reported([report]), driven.now).unwrap();
    let names: Vec<Option<Arc<str>>> = decision.events.iter().map(|event| event.origin.event_id.clone()).collect();
    assert_eq!(names, [Some(name), None, None], "StepRejected, SagaFailed, SagaCompensated");
}

#[test]
fn several_reports_are_one_transition_or_none() {
    let mut driven = chain();
    let all = |driven: &Driven, steps: &[&str]| {
        steps.iter().map(|step| report(driven, step, Operation::Action, succeeded())).collect::<Vec<_>>()
    };
    let bad = all(&driven, &["a", "c"]);
    assert!(driven.input(reported(bad)).is_err());
    assert_eq!(driven.kinds(), ["SagaStarted"]);
    let whole = all(&driven, &["a", "b", "b", "c"]);
    driven.input(reported(whole)).unwrap();
    assert_eq!(driven.kinds()[1..], ["StepSucceeded", "StepSucceeded", "StepSucceeded", "SagaCompleted"]);
}

#[test]
fn an_expected_version_is_held_against_news_only() {
    let mut driven = chain();
    let at = |driven: &Driven, step: &str, expected| {
        let reports = vec![report(driven, step, Operation::Action, succeeded())];
        Input::Reported(Reported { reports, expected: Some(expected) })
    };
    let late = at(&driven, "a", 7);
    assert_eq!(driven.input(late), Err(IllegalInput::RevisionMismatch { expected: 7, actual: 1 }));
    let good = at(&driven, "a", 1);
    driven.input(good.clone()).unwrap();
    driven.input(good).unwrap();
    assert_eq!(driven.state.version, 2);
}

#[test]
fn a_step_is_skipped_only_when_its_condition_is_false() {
    let mut driven = begun(vec![step("a", json!({"if": "input.n == 2"})), step("b", json!({"if": "input.n == 1"}))]);
    driven.told("a", ReportedOutcome::Skipped).unwrap();
    assert_eq!(driven.statuses(), [Skipped, Running]);
    assert!(matches!(driven.told("b", ReportedOutcome::Skipped), Err(IllegalInput::NotNow(_))));
}

#[test]
fn nothing_is_cancelled_before_something_failed() {
    assert!(matches!(chain().told("a", ReportedOutcome::Cancelled), Err(IllegalInput::NotNow(_))));
}

#[test]
fn the_deadline_is_the_first_failure_and_a_late_success_is_undone() {
    let mut driven = chain();
    driven.told("a", succeeded()).unwrap();
    assert!(driven.tick_at_timer());
    assert_eq!(driven.kinds()[2..], ["SagaTimedOut", "SagaFailed"]);
    assert_eq!(driven.state.failure.as_ref().unwrap().code, "deadline_exceeded");
    assert_eq!(driven.statuses(), [Succeeded, Running, Pending], "a waits for what b's owner says");
    driven.told("b", succeeded()).unwrap();
    assert_eq!(driven.statuses(), [Succeeded, Compensating, Pending]);
}

#[test]
fn a_report_that_comes_after_the_deadline_comes_after_the_timeout() {
    let mut driven = chain();
    driven.after(Millis(60_000));
    driven.told("a", succeeded()).unwrap();
    assert_eq!(driven.kinds()[1..], ["SagaTimedOut", "SagaFailed", "StepSucceeded"]);
    assert_eq!(driven.statuses(), [Compensating, Pending, Pending]);
}

#[test]
fn nothing_times_out_past_the_pivot_but_silence_parks_and_a_report_goes_on() {
    let mut driven = past_a_pivot(json!({}));
    assert!(driven.tick_at_timer());
    assert_eq!((driven.state.status, driven.parked_with("r")), (Status::Parked, Some("participant_silent")));
    assert_eq!(driven.now, T0.plus(Millis(120_000)), "the deadline, and as long again");
    assert!(!driven.kinds().contains(&"SagaTimedOut"));
    assert!(!driven.tick_at_timer(), "it waits for its participant or an operator");
    driven.told("r", succeeded()).unwrap();
    assert_eq!(driven.state.status, Status::Completed);
}

#[test]
fn a_silent_participant_parks_the_way_back_too_and_retry_gives_it_as_long_again() {
    let mut driven = chain();
    driven.told("a", succeeded()).unwrap();
    assert!(driven.tick_at_timer() && driven.tick_at_timer());
    assert_eq!((driven.parked_with("b"), driven.parked_with("a")), (Some("participant_silent"), None));
    let parked_at = driven.now;
    driven.operate(OperatorAction::Retry { step: None }).unwrap();
    assert_eq!((driven.state.status, driven.calls.len()), (Status::Compensating, 0));
    assert!(driven.tick_at_timer());
    assert_eq!((driven.now, driven.parked_with("b")), (parked_at.plus(Millis(60_000)), Some("participant_silent")));
    driven.told("b", ReportedOutcome::Cancelled).unwrap();
    assert_eq!((driven.state.status, driven.statuses()), (Status::Compensating, vec![Compensating, Rejected, Pending]));
}

#[test]
fn after_the_pivot_nothing_is_refused() {
    let mut driven = past_a_pivot(json!({}));
    assert!(matches!(driven.told("r", rejected()), Err(IllegalInput::NotNow(_))));
    driven.told("r", garbled()).unwrap();
    assert_eq!((driven.state.status, driven.parked_with("r")), (Status::Parked, Some("output_invalid")));
    let version = driven.state.version;
    driven.told("r", garbled()).unwrap();
    assert_eq!(driven.state.version, version, "known");
    driven.operate(OperatorAction::Compensate).unwrap();
    driven.told("r", garbled()).unwrap();
    assert_eq!(driven.statuses(), [Succeeded, Succeeded, Compensating], "it took effect and is undone");
}

#[test]
fn what_nobody_can_carry_out_is_parked_at_once() {
    let mut driven = past_a_pivot(json!({"if": "input.missing == 1"}));
    assert_eq!(driven.parked_with("r"), Some("expression_failed"));
    driven.operate(OperatorAction::Skip { step: String::from("r"), output: None }).unwrap();
    assert_eq!(driven.state.status, Status::Completed);

    let mut driven = past_a_pivot(json!({"compensate": null}));
    driven.told("a", succeeded()).unwrap();
    driven.operate(OperatorAction::Compensate).unwrap();
    driven.told("r", succeeded()).unwrap();
    assert_eq!(driven.parked_with("r"), Some("no_compensation"));

    let undo = json!({"call": {"service": "s", "method": "POST", "path": "/undo", "body": "${input.missing}"}});
    let mut driven = begun(vec![step("a", json!({"compensate": undo})), step("b", json!({}))]);
    driven.told("a", succeeded()).unwrap();
    driven.told("b", rejected()).unwrap();
    assert_eq!(driven.parked_with("a"), Some("expression_failed"));
    driven.operate(OperatorAction::Skip { step: String::from("a"), output: None }).unwrap();
    assert_eq!(driven.state.status, Status::Abandoned);
}

#[test]
fn operators_decide_while_the_owner_is_still_at_it() {
    let step = || String::from("a");
    let resolved = |resolution| OperatorAction::Resolve { step: step(), resolution };
    for (action, status, same, other) in [
        (OperatorAction::Skip { step: step(), output: None }, Skipped, ReportedOutcome::Skipped, succeeded()),
        (resolved(Resolution::Succeeded { output: None }), Succeeded, succeeded(), rejected()),
    ] {
        let mut driven = chain();
        driven.operate(action.clone()).unwrap();
        assert_eq!((driven.statuses()[0], driven.statuses()[1]), (status, Running), "{action:?}");
        assert_eq!(driven.told("a", same), Ok(()), "{action:?}");
        assert!(matches!(driven.told("a", other), Err(IllegalInput::NotUnderWay { .. })), "{action:?}");
    }
    let mut driven = chain();
    driven.operate(resolved(Resolution::Rejected)).unwrap();
    assert_eq!(driven.kinds()[1..], ["OperatorActed", "StepRejected", "SagaFailed", "SagaCompensated"]);
    assert_eq!(driven.told("a", succeeded()), Err(IllegalInput::Ended(Status::Compensated)), "its owner undoes it");
}

#[test]
fn forced_compensation_leaves_what_is_enabled_to_its_owner() {
    let mut driven = chain();
    driven.told("a", succeeded()).unwrap();
    driven.operate(OperatorAction::Compensate).unwrap();
    assert_eq!(driven.kinds()[2..], ["OperatorActed", "SagaFailed"]);
    assert_eq!(driven.statuses(), [Succeeded, Running, Pending]);
    driven.told("b", ReportedOutcome::Cancelled).unwrap();
    driven.told("a", ReportedOutcome::Compensated).unwrap();
    assert_eq!(driven.state.status, Status::Compensated);
}

#[test]
fn who_is_called_does_not_report_and_who_reports_is_not_called_back() {
    let mut orchestrated = Driven::start(&saga(vec![step("a", json!({}))]));
    assert!(matches!(orchestrated.told("a", succeeded()), Err(IllegalInput::NotNow(_))));
    let callback = Callback {
        step: String::from("a"),
        operation: Operation::Action,
        outcome: CallbackOutcome::Succeeded { output: json!({}) },
    };
    assert!(matches!(chain().input(Input::Callback(callback)), Err(IllegalInput::NotNow(_))));
}
