//! Personal data: what may be said about it, and that nothing computes with what is sealed.

use alloc::{format, string::String, vec};

use proptest::prelude::*;

use super::*;
use crate::{
    expr::{Saga, Scope, Template},
    personal::{MARK, Path, tokens_in},
};

fn personal(fields: Value) -> (&'static str, Value) {
    ("/personal", json!({"subject": "${input.n}", "fields": fields}))
}

fn free() -> (&'static str, Value) {
    ("/input", json!(null))
}

fn body(value: Value) -> (&'static str, Value) {
    ("/steps/1/call/body", value)
}

#[test]
fn fields_are_found_in_input_and_outputs() {
    let output = json!({"to": "${response.body.receipt.to}", "note": "for ${response.body.name}", "n": 1});
    let fields =
        json!(["input.s", "input.l[].e", "steps.book.output.to", "steps.book.output.note", "steps.pay.output.x"]);
    let definition = accepted(&[free(), personal(fields), ("/steps/1/output", output)]);
    let personal = definition.personal.as_ref().expect("it says so");
    let texts = |paths: Vec<&Path>| paths.into_iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(personal.input().iter().collect()), ["s", "l[].e"]);
    assert_eq!(texts(personal.output("book").collect()), ["note", "to"]);
    assert_eq!(texts(personal.answer("book").iter().collect()), ["name", "receipt.to"]);
    assert_eq!(texts(personal.answer("pay").iter().collect()), ["x"]);
    assert_eq!(texts(personal.output("look").collect()), [""; 0]);
    assert!(accepted(&[]).personal.is_none());
}

#[test]
fn the_subject_is_named_by_the_input() {
    let subject = |text: &str, input: Value| {
        let edit = ("/personal", json!({"subject": text, "fields": ["input.s"]}));
        accepted(&[free(), edit]).personal.expect("personal").subject(&input).map_err(|error| error.to_string())
    };
    assert_eq!(subject("${input.id}", json!({"id": "c-1"})), Ok("c-1".to_string()));
    assert_eq!(subject("${input.id}", json!({"id": 7})), Ok("7".to_string()));
    assert_eq!(subject("shop-${input.s + \"x\"}", json!({"s": "a"})), Ok("shop-ax".to_string()));
    for input in [json!({"id": ""}), json!({"id": 1.5}), json!({"id": [1]}), json!({"id": "x".repeat(257)}), json!({})]
    {
        assert!(subject("${input.id}", input.clone()).is_err(), "{input}");
    }
    let of = |text: &str| ("/personal", json!({"subject": text, "fields": ["input.s"]}));
    refused(&[of("customer")], "personal.subject", "must be an expression over the input");
    refused(&[of("${saga.id}")], "personal.subject", "only `input` can be read");
    refused(&[of("${has(steps.look.output) ? 'a' : 'b'}")], "personal.subject", "only `input` can be read");
    refused(&[of("${input.}")], "personal.subject", "not valid CEL");
}

#[test]
fn a_field_lies_in_the_input_or_in_an_output() {
    let field = |text: &str| personal(json!([text]));
    for text in ["saga.id", "input", "input.", "input.a..b", "steps.book", "steps.book.call", "input.a[0]"] {
        let found = problems(&with(&[field(text)]));
        assert_eq!(found.first().map(|(place, _)| place.as_str()), Some("personal.fields[0]"), "{text}: {found:?}");
    }
    refused(&[field("steps.none.output.x")], "personal.fields[0]", "there is no step `none`");
    let output = |value: &str| ("/steps/1/output", json!({"to": value}));
    let place = "personal.fields[0]";
    refused(&[field("steps.book.output.other"), output("${response.body.to}")], place, "is not in the step's `output`");
    let not_passed = "only where it is passed from `response.body`";
    refused(&[field("steps.book.output.to"), output("${response.body.a + \"x\"}")], place, not_passed);
    refused(&[field("steps.book.output.to"), output("${input.s}")], place, not_passed);
    refused(&[field("steps.book.output.to"), output("${response.body[input.s]}")], place, not_passed);
    accepted(&[personal(json!(["input.s", "steps.book.output.to"])), output("${input.s}")]);
    accepted(&[field("steps.book.output.to"), output("${has(response.body.a) ? response.body.a : null}")]);
}

#[test]
fn what_is_sealed_is_passed_on_or_tested_but_not_computed_with() {
    let fields = personal(json!(["input.s", "input.p.holder", "input.l[].e"]));
    let place = "steps[1].call.body";
    for passes in [
        "${input.s}",
        "dear ${input.s}, ${input.n}",
        "${has(input.s) ? input.s : null}",
        "${[input.s, {\"a\": input.p}]}",
        "${input}",
        "${input.p}",
        "${input.p.other + 1}",
        "${input.l[0].e}",
        "${size(input.l)}",
        "${input.l.map(i, i.e)}",
        "${input.l.filter(i, i.other > 1)}",
        "${input.l.map(i, {\"to\": i.e, \"n\": i.n * 2})}",
        "${has(input.p.holder)}",
    ] {
        accepted(&[free(), fields.clone(), body(json!(passes))]);
    }
    for computes in [
        "${input.s + \"x\"}",
        "${input.s == \"x\"}",
        "${size(input.s)}",
        "${input.s.contains(\"@\")}",
        "${input.p == input.q}",
        "${input[\"s\"] + \"x\"}",
        "${input[input.n] == 1}",
        "${input.l.exists(i, i.e == \"x\")}",
        "${input.l.filter(i, i.e != \"\")}",
        "${input.l.map(i, size(i.e))}",
        "${input.l[0].e > \"a\"}",
        "${\"x\" in input.l}",
        "${{\"k\": input.s}.k}",
        "${input.s ? 1 : 2}",
        "${input.n == 1 && input.s == \"\"}",
    ] {
        refused(&[free(), fields.clone(), body(json!(computes))], place, "not computed with");
    }
    for within in ["${input.s.first}", "${has(input.p.holder.first)}", "${input.s.map(c, c)}"] {
        let found = problems(&with(&[free(), fields.clone(), body(json!(within))]));
        assert_eq!(found.len(), 1, "{within}: {found:?}");
    }
    refused(&[free(), fields.clone(), ("/steps/1/if", json!("input.s"))], "steps[1].if", "not computed with");
    refused(&[free(), fields, ("/output", json!("${size(input.s)}"))], "output", "not computed with");
}

#[test]
fn what_is_passed_on_stays_sealed_where_it_goes() {
    let fields = personal(json!(["input.s", "steps.look.output.email"]));
    let passes =
        ("/steps/1/output", json!({"a": {"b": "to ${input.s}"}, "all": "${steps.look.output}", "n": "${input.n}"}));
    let next = |text: &str| ("/steps/2/call/body", json!(text));
    let definition = accepted(&[free(), fields.clone(), passes.clone(), next("${steps.book.output.a}")]);
    let sealed: Vec<String> = definition.personal.expect("personal").output("book").map(ToString::to_string).collect();
    assert_eq!(sealed, ["a.b", "all.email"]);
    for text in ["${steps.book.output.a.b == \"x\"}", "${steps.book.output.all.email + \"\"}"] {
        refused(&[free(), fields.clone(), passes.clone(), next(text)], "steps[2].call.body", "not computed with");
    }
    for text in ["${steps.book.output.all.total * 2}", "${steps.book.output.n + 1}"] {
        accepted(&[free(), fields.clone(), passes.clone(), next(text)]);
    }
    let answer = ("/steps/1/output", json!({"to": "${response.body.to}", "n": "${size(response.body.to)}"}));
    refused(&[personal(json!(["steps.book.output.to"])), answer], "steps[1].output.n", "not computed with");
}

#[test]
fn personal_data_is_not_choreographed() {
    let definition = accepted(&[personal(json!(["input.s"])), ("/deadline", json!("1m"))]);
    assert!(definition.not_choreographable().iter().any(|problem| problem.place == "personal"));
}

/// An expression of some depth over `input`, of which `s` and `l[].e` are personal.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("input.s"),
        Just("input.n"),
        Just("input.l"),
        Just("input.l[0]"),
        Just("input.l[1].e"),
        Just("input.l[0].n"),
        Just("input.o"),
        Just("input"),
        Just("\"a@b\""),
        Just("has(input.s)"),
        Just("has(input.gone)"),
    ]
    .prop_map(String::from);
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} == {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} + {b})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(c, a, b)| format!("({c} ? {a} : {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {{\"k\": {b}}}]")),
            inner.clone().prop_map(|a| format!("size({a})")),
            inner.clone().prop_map(|a| format!("input.l.map(i, [i.e, {a}])")),
            inner.clone().prop_map(|a| format!("input.l.filter(i, i.n == 1 || i.e == {a})")),
            inner.clone().prop_map(|a| format!("{a}.exists(i, i == {a})")),
            inner.prop_map(|a| format!("{a}.k")),
        ]
    })
}

/// A token that holds its value in the open.
fn token(value: &Value) -> String {
    let hex: String = value.to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{MARK}k.{hex}~")
}

fn opened(token: &str) -> Value {
    let hex = &token[MARK.len() + 2..token.len() - 1];
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    let json: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    serde_json::from_slice(&json).expect("JSON")
}

fn open(value: Value) -> Value {
    match value {
        Value::String(text) => match tokens_in(&text).as_slice() {
            [range] if range.len() == text.len() => opened(&text),
            ranges => {
                let mut whole = text.clone();
                for range in ranges.iter().rev() {
                    let value = opened(&text[range.clone()]);
                    let piece = value.as_str().map_or_else(|| value.to_string(), String::from);
                    whole.replace_range(range.clone(), &piece);
                }
                Value::String(whole)
            }
        },
        Value::Array(items) => items.into_iter().map(open).collect(),
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(key, value)| (key, open(value))).collect()),
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// The rule is sound: what it accepts comes out the same over tokens as over the values themselves.
    #[test]
    fn what_is_accepted_means_the_same_over_tokens(text in expression(), is_text in any::<bool>(), personal_number in any::<bool>()) {
        let template = json!(if is_text { format!("to ${{{text}}}!") } else { format!("${{{text}}}") });
        let fields = personal(json!(["input.s", "input.l[].e"]));
        let accepted = parse(&with(&[free(), fields, body(template.clone())])).is_ok();
        if accepted {
            let value = if personal_number { json!(42) } else { json!("a@b") };
            let plain = json!({"s": value, "n": 1, "o": {"k": "v"}, "l": [{"e": "a@b", "n": 1}, {"e": "x", "n": 2}]});
            let mut sealed = plain.clone();
            for path in ["s", "l[].e"] {
                path.parse::<Path>().expect("a path").each(&mut sealed, &mut |value| *value = json!(token(value)));
            }
            let template = Template::compile(&template).expect("it was accepted");
            let over = |input: &Value| {
                template.render(Scope { saga: &Saga::default(), input, outputs: &[], response: None }).map_err(|_| ())
            };
            prop_assert_eq!(over(&plain), over(&sealed).map(open), "{}", text);
        }
    }
}
