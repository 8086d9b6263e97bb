//! What a valid definition becomes.

use alloc::vec;

use super::*;
use crate::{
    classify::Class,
    decide::tests::{definition, saga, step},
    expr::{Failed, Saga, Scope},
};

#[test]
fn checkout_is_read_as_written() {
    let checkout = Definition::parse(CHECKOUT, None).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let ids: Vec<&str> = checkout.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["verify_stock", "reserve_stock", "process_payment", "confirm_order", "commit_stock"]);
    let kinds: Vec<StepKind> = checkout.steps.iter().map(|step| step.kind).collect();
    let compensable = StepKind::Compensable;
    assert_eq!(kinds, [compensable, compensable, compensable, StepKind::Pivot, StepKind::Retriable]);
    assert_eq!((checkout.name.as_str(), checkout.version, checkout.deadline), ("checkout", 1, Some(Millis(120_000))));
    let [verify, reserve, pay, ..] = checkout.steps.as_slice() else { panic!("steps") };
    assert_eq!((verify.has_effect, verify.states.failed.as_str()), (false, "STOCK_INSUFFICIENT"));
    assert_eq!((reserve.output_is_referenced, pay.output_is_referenced), (true, false));
    assert_eq!(pay.timeout, Millis(3000));
    let undo = pay.compensation.as_ref().expect("a refund");
    let patient = RetryPolicy { max_attempts: 12, initial: Millis(200), factor: 2.0, max: Millis(300_000) };
    assert_eq!((&undo.retry, undo.timeout), (&patient, Millis(3000)));
    assert_eq!(checkout.emits.compensated.as_deref(), Some("CheckoutFailed"));
}

#[test]
fn checkout_renders_its_calls() {
    let checkout = Definition::parse(CHECKOUT, None).expect("valid");
    let failure = Failed { step: Some("x"), code: "c", reason: "too late" };
    let saga = Saga { id: "s-1", failure: Some(failure), ..Saga::default() };
    let mut input = json!({"customer_id": "c-1", "items": [{"product_id": "p-1", "quantity": 2}],
        "payment": {"method": "card", "token": "tok_ok"}});
    assert_eq!(checkout.input.violations(&input), []);
    let total = json!({"total": 500});
    let outputs = [("reserve_stock", &total)];
    let scope = Scope { saga: &saga, input: &input, outputs: &outputs, response: None };
    let body = |call: &Call| call.body.as_ref().expect("a body").render(scope).expect("renders");
    assert_eq!(body(&checkout.steps[0].call), json!({"store_id": null, "items": input["items"]}));
    assert_eq!(body(&checkout.steps[2].call)["amount"], json!(500));
    assert_eq!(checkout.steps[3].call.path.render_path(scope).as_deref(), Ok("/orders/s-1"));
    let undo = checkout.steps[3].compensation.as_ref().expect("a cancellation");
    assert_eq!(body(&undo.call), json!({"reason": "too late"}));
    let output = checkout.output.as_ref().expect("an output").render(scope).expect("renders");
    assert_eq!(output, json!({"order_id": "s-1", "total": 500}));
    input["items"][0]["quantity"] = json!(0);
    input["extra"] = json!(1);
    let places: Vec<String> = checkout.input.violations(&input).into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, ["/items/0/quantity", "/extra"]);
}

#[test]
fn what_is_left_out_has_its_documented_default() {
    let definition = accepted(&[]);
    let book = &definition.steps[1];
    assert_eq!((book.timeout, book.poll, book.deadline, definition.deadline), (Millis(3000), Millis(1000), None, None));
    assert_eq!(book.retry, RetryPolicy { max_attempts: 4, initial: Millis(200), factor: 2.0, max: Millis(5000) });
    let undo = book.compensation.as_ref().expect("an undo");
    assert_eq!(undo.retry, RetryPolicy { max_attempts: 12, initial: Millis(200), factor: 2.0, max: Millis(60_000) });
    assert_eq!((undo.timeout, undo.poll), (Millis(3000), Millis(1000)));
    assert_eq!(book.states.doing, "BOOK_DOING");
    assert_eq!((definition.states.pending.as_str(), definition.states.parked.as_str()), ("PENDING", "PARKED"));
    assert!(book.output.is_none() && definition.output.is_none() && book.classify.is_empty());
}

#[test]
fn defaults_reach_the_steps_and_steps_override_single_keys() {
    let definition = accepted(&[
        (
            "/defaults",
            json!({
                "timeout": "1s", "retry": {"max": "9s", "max_attempts": 2},
                "compensation": {"timeout": "4s", "retry": {"factor": 3}},
            }),
        ),
        ("/steps/1/retry", json!({"initial": "1s"})),
        ("/steps/1/poll", json!("2s")),
        ("/steps/1/compensate/retry", json!({"max": "2m"})),
        ("/steps/2/timeout", json!("7s")),
        ("/steps/2/status", json!({"call": {"service": "b", "method": "GET", "path": "/pay"}})),
        ("/steps/2/classify", json!({"404": "rejected", "201": "retry"})),
    ]);
    let [_, book, pay, _] = definition.steps.as_slice() else { panic!("steps") };
    assert_eq!(book.retry, RetryPolicy { max_attempts: 2, initial: Millis(1000), factor: 2.0, max: Millis(9000) });
    let undo = book.compensation.as_ref().expect("an undo");
    assert_eq!(undo.retry, RetryPolicy { max_attempts: 12, initial: Millis(200), factor: 3.0, max: Millis(120_000) });
    assert_eq!((book.timeout, undo.timeout, undo.poll), (Millis(1000), Millis(4000), Millis(2000)));
    assert_eq!(pay.status_call.as_ref().map(|status| status.timeout), Some(Millis(7000)));
    assert_eq!(pay.classify, BTreeMap::from([(404, Class::Rejected), (201, Class::Retry)]));
}

#[test]
fn steps_are_ordered_by_their_needs_and_otherwise_as_written() {
    let definition = accepted(&[
        ("/steps/0/needs", json!(["book"])),
        ("/steps/1/needs", json!([])),
        ("/steps/2/needs", json!(["look", "book"])),
    ]);
    let ids: Vec<&str> = definition.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["book", "look", "pay", "tell"]);
    let needs: Vec<&[usize]> = definition.steps.iter().map(|step| step.needs.as_slice()).collect();
    assert_eq!(needs, [&[][..], &[0], &[0, 1], &[2]]);
    let dependents: Vec<&[usize]> = definition.steps.iter().map(|step| step.dependents.as_slice()).collect();
    assert_eq!(dependents, [&[1, 2][..], &[2], &[3], &[]]);
}

#[test]
fn the_hash_is_that_of_the_content_whatever_the_writing() {
    let yaml = "version: 1\napiVersion: skald/v1\n# a comment\nname: t\nsteps:\n- {effect: none, id: a, call: {path: /, service: s, method: GET}}\n";
    let json = r#"{"apiVersion":"skald/v1","name":"t","version":1,"steps":[{"id":"a","call":{"service":"s","method":"GET","path":"/"},"effect":"none"}]}"#;
    let [yaml, json] =
        [yaml, json].map(|text| Definition::parse(text, None).unwrap_or_else(|problems| panic!("{problems:#?}")));
    assert_eq!((yaml.hash.as_str(), yaml.hash.len()), (json.hash.as_str(), 64));
    assert_ne!(accepted(&[]).hash, accepted(&[("/version", json!(2))]).hash);
}

#[test]
fn yaml_spells_values_as_json_has_them() {
    let yaml = "apiVersion: skald/v1\nname: t\nversion: 1\nsteps:\n- id: a\n  effect: none\n  classify: {404: rejected}\n  \
                call: {service: s, method: POST, path: /, body: {no: no, yes: true, n: 0x10, f: 1.5, nothing: ~, s: '1', big: 18446744073709551615}}\n";
    let definition = Definition::parse(yaml, None).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let body = &definition.document["steps"][0]["call"]["body"];
    assert_eq!(body, &json!({"no": "no", "yes": true, "n": 16, "f": 1.5, "nothing": null, "s": "1", "big": u64::MAX}));
    assert_eq!(definition.steps[0].classify.get(&404), Some(&Class::Rejected));
}

#[test]
fn an_output_counts_as_read_when_an_expression_would_fail_without_it() {
    let read = |edits: &[(&str, Value)]| accepted(edits).steps[1].output_is_referenced;
    assert!(!read(&[]));
    assert!(read(&[("/steps/2/call/body", json!("${steps.book.output.x}"))]));
    assert!(read(&[("/output", json!(["${steps.book.output.x}"]))]));
    assert!(!read(&[("/output", json!("${has(steps.book.output) ? steps.book.output : null}"))]));
    assert!(!read(&[("/steps/1/compensate/call/body", json!("${has(steps.book.output) ? 1 : 2}"))]));
}

#[test]
fn checkout_can_be_choreographed() {
    assert_eq!(Definition::parse(CHECKOUT, None).expect("valid").not_choreographable(), []);
}

#[test]
fn what_needs_a_conductor_is_told_with_its_place() {
    let get = json!({"call": {"service": "s", "method": "GET", "path": "/x"}});
    let with_header = json!({"service": "s", "method": "POST", "path": "/x", "headers": {"X-A": "1"}});
    let elsewhere = json!({"call": {"service": "t", "method": "POST", "path": "/x"}});
    for (extra, place) in [
        (json!({"status": get}), "steps[1].status"),
        (json!({"classify": {"404": "rejected"}}), "steps[1].classify"),
        (json!({"deadline": "2s"}), "steps[1].deadline"),
        (json!({"call": with_header}), "steps[1].call.headers"),
        (json!({"compensate": {"call": with_header}}), "steps[1].compensate.call.headers"),
        (json!({"compensate": elsewhere}), "steps[1].compensate.call.service"),
        (json!({"pivot": true, "compensate": null}), "steps[1].compensate"),
    ] {
        let document = saga(vec![step("a", json!({})), step("b", extra.clone())]);
        let found = definition(&document).not_choreographable();
        let places: Vec<&str> = found.iter().map(|problem| problem.place.as_str()).collect();
        assert_eq!(places, [place], "{extra}");
    }
    let mut endless = saga(vec![step("a", json!({}))]);
    endless.as_object_mut().expect("an object").remove("deadline");
    assert_eq!(definition(&endless).not_choreographable()[0].place, "deadline");
    let pivot = json!({"pivot": true, "compensate": null, "effect": "none"});
    let harmless = saga(vec![step("p", pivot), step("r", json!({"retriable": true, "compensate": null}))]);
    assert_eq!(definition(&harmless).not_choreographable(), [], "what cannot fail any more needs no undo");
}
