//! Each kind of wrong that ledgers can show, on a definition of three steps: `book` and `pay` need nothing but the step
//! before, `look` has no effect.

use std::sync::Arc;

use serde_json::json;
use skald_core::{ids::Shard, time::Timestamp};

use super::*;

fn definition() -> Arc<Definition> {
    let step = |id: &str, service: &str| {
        json!({"id": id, "call": {"service": service, "method": "POST", "path": "/do"},
               "compensate": {"call": {"service": service, "method": "POST", "path": "/undo"}}})
    };
    let look = json!({"id": "look", "effect": "none", "call": {"service": "stock", "method": "GET", "path": "/"}});
    let steps = json!([look, step("book", "stock"), step("pay", "bank")]);
    let document = json!({"apiVersion": "skald/v1", "name": "trip", "version": 1, "steps": steps});
    Arc::new(Definition::parse(&document.to_string(), None).unwrap())
}

fn saga() -> SagaId {
    SagaId::new(Timestamp::from_micros(1_760_000_000_000_000), [1; 10], Shard(0), 1)
}

/// An entry at the time that its number says.
fn entry(id: i64, step: &str, operation: &str, detail: &str) -> Effect {
    let service = if step == "pay" { "bank" } else { "stock" };
    Effect {
        saga: saga().to_string(),
        service: service.to_owned(),
        id,
        at_us: id * 1000,
        step: step.to_owned(),
        operation: operation.to_owned(),
        effect: format!("{step}_{operation}"),
        detail: detail.to_owned(),
    }
}

fn done(id: i64, step: &str) -> Effect {
    entry(id, step, "action", r#"{"amount": 5, "by": "card"}"#)
}

fn undone(id: i64, step: &str) -> Effect {
    entry(id, step, "compensation", r#"{"amount": 5, "reason": "x"}"#)
}

fn ended(status: Status) -> EndedSaga {
    let steps = vec![StepStatus::Succeeded; 3];
    EndedSaga { definition: definition(), status, steps, decided_by_operator: BTreeSet::new() }
}

fn judge(ended: Option<EndedSaga>, mut effects: Vec<Effect>, asked: &[&str], skew: u64) -> String {
    effects.sort_by_key(|effect| (effect.saga.clone(), effect.service.clone(), effect.id));
    let known = BTreeMap::from([(saga(), ended)]);
    let asked = asked.iter().map(|name| (*name).to_owned()).collect();
    let mut findings = Findings::new(100);
    let mut reconciler = Reconciler::new(&known, &[], &asked, Millis(skew), &mut findings);
    for effect in effects {
        reconciler.next(effect);
    }
    reconciler.end();
    findings.told().iter().map(|violation| format!("{violation}\n")).collect()
}

fn judged(status: Status, effects: Vec<Effect>) -> String {
    judge(Some(ended(status)), effects, &["stock", "bank"], 0)
}

#[test]
fn what_must_have_happened_is_no_violation() {
    use Status::{Abandoned, Compensated, Completed};
    for (status, effects) in [
        (Completed, vec![done(1, "book"), done(2, "pay")]),
        (Compensated, vec![done(1, "book"), done(2, "pay"), undone(3, "pay"), undone(4, "book")]),
        (Compensated, vec![done(1, "book"), entry(2, "book", "expiry", r#"{"amount": 5}"#)]),
        (Compensated, vec![]),
        (Abandoned, vec![done(1, "book")]),
    ] {
        assert_eq!(judged(status, effects), "");
    }
}

#[test]
fn each_kind_of_wrong_is_told_with_its_invariant_and_saga() {
    use Status::{Compensated, Completed};
    let book = || done(1, "book");
    for (invariant, words, found) in [
        (3, "`pay` took effect never", judged(Completed, vec![book()])),
        (3, "`pay` took effect twice", judged(Completed, vec![book(), done(2, "pay"), done(3, "pay")])),
        (3, "no effect, as the definition says", judged(Completed, vec![book(), done(2, "pay"), done(3, "look")])),
        (3, "one effect and no undo", judged(Completed, vec![book(), done(2, "pay"), undone(3, "pay")])),
        (3, "effects of the definition's steps", judged(Compensated, vec![done(1, "swim")])),
        (4, "as many undos as effects", judged(Compensated, vec![book()])),
        (4, "no undo of what had no effect", judged(Compensated, vec![undone(1, "pay")])),
        (4, "one undo at most", judged(Compensated, vec![book(), undone(2, "book"), undone(3, "book")])),
        (5, "no effect after the compensation", judged(Compensated, vec![undone(1, "book"), done(2, "book")])),
        (
            4,
            "`pay` undone before `book`",
            judged(Compensated, vec![book(), done(2, "pay"), undone(3, "book"), undone(4, "pay")]),
        ),
        (
            1,
            "gives back what the effect took",
            judged(Compensated, vec![book(), entry(2, "book", "compensation", r#"{"amount": 4}"#)]),
        ),
    ] {
        let line = found.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("`{words}`: {found}"));
        assert!(line.starts_with(&format!("invariant {invariant}, saga {}", saga())), "{line}");
    }
}

#[test]
fn sagas_that_the_log_does_not_know_are_told_once_each() {
    let strange = |saga: &str, id| Effect { saga: saga.to_owned(), ..done(id, "book") };
    let found = judge(None, vec![strange("x", 1), strange("x", 2), strange("y", 3)], &["stock"], 0);
    assert_eq!(found.lines().count(), 2, "{found}");
    assert!(found.contains("saga x") && found.contains("saga y"), "{found}");
}

#[test]
fn what_is_not_known_to_be_over_is_not_judged() {
    assert_eq!(judge(None, vec![done(1, "book")], &["stock", "bank"], 0), "");
    // The bank has no ledger.
    assert_eq!(judge(Some(ended(Status::Completed)), vec![done(1, "book")], &["stock"], 0), "");
    let mut decided = ended(Status::Completed);
    decided.decided_by_operator.insert("pay".to_owned());
    assert_eq!(judge(Some(decided), vec![done(1, "book")], &["stock", "bank"], 0), "");
}

#[test]
fn a_skipped_step_must_have_had_no_effect() {
    let mut skipped = ended(Status::Completed);
    skipped.steps[2] = StepStatus::Skipped;
    assert_eq!(judge(Some(skipped.clone()), vec![done(1, "book")], &["stock", "bank"], 0), "");
    let found = judge(Some(skipped), vec![done(1, "book"), done(2, "pay")], &["stock", "bank"], 0);
    assert!(found.contains("no effect of a step that was skipped"), "{found}");
}

#[test]
fn clocks_that_differ_by_less_than_was_said_prove_nothing() {
    let effects = || vec![done(1, "book"), done(2, "pay"), undone(3, "book"), undone(4, "pay")];
    assert!(!judge(Some(ended(Status::Compensated)), effects(), &["stock", "bank"], 0).is_empty());
    assert_eq!(judge(Some(ended(Status::Compensated)), effects(), &["stock", "bank"], 1), "");
}
