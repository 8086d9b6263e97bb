//! Texts that nobody would write in good faith.

use alloc::{format, vec};

use proptest::prelude::*;

use super::*;

fn reason(text: &str) -> String {
    let problems = Definition::parse(text, None).expect_err("refused").0;
    assert!(!problems.is_empty());
    problems[0].to_string()
}

#[test]
fn what_yaml_can_express_and_json_cannot_is_refused() {
    let head = "apiVersion: skald/v1\nname: t\nversion: 1\n";
    for (text, told) in [
        ("", "object"),
        ("just text", "object"),
        ("a: [", "line"),
        ("name: t\nname: u\n", "name"),
        (&format!("{head}output: {{ ? [a, b] : c }}\n"), "line"),
        (&format!("{head}output: .nan\n"), "finite"),
        (&format!("{head}output: 99999999999999999999\n"), "64 bits"),
        (&format!("{head}output: !custom x\n"), "tag"),
        (&format!("{head}output: \"\\0\"\n"), "U+0000"),
        (&format!("{head}---\na: b\n"), "document"),
        (&format!("{head}output: *unknown\n"), "unknown"),
    ] {
        let problem = reason(text);
        assert!(problem.contains(told), "{text}: {problem}");
    }
}

#[test]
fn bombs_are_refused_quickly() {
    let mut laughs = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 10].join(",")));
    }
    let deep_json = format!("{}1{}", r#"{"a":"#.repeat(50_000), "}".repeat(50_000));
    for text in [
        laughs,
        "[".repeat(200_000),
        "- ".repeat(100_000),
        "a: ".repeat(50_000),
        format!("a: {}", "{b: ".repeat(50_000)),
        deep_json,
        "x".repeat(300_000),
        format!("a: \"{}\"", "${input}".repeat(3000)),
        (0..20_000).map(|key| format!("k{key}: &a{key} 1\n")).collect(),
    ] {
        reason(&text);
    }
}

#[test]
fn a_schema_that_refers_to_itself_neither_hangs_nor_overflows() {
    for schema in [
        json!({"$ref": "#"}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        json!({"properties": {"n": {"$ref": "#"}}}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"anyOf": [{"type": "string"}, {"$ref": "#"}]}),
        json!({"not": {"$ref": "#"}}),
    ] {
        let mut input = json!(1);
        for _ in 0..crate::json::DEPTH_MAX {
            input = json!({ "n": input });
        }
        on_a_small_stack(move || {
            if let Ok(definition) = parse(&with(&[("/input/schema", schema)])) {
                let _ = definition.input.violations(&input);
            }
        });
    }
}

#[test]
fn a_pattern_cannot_stall_a_start() {
    let schema = json!({"type": "object", "properties": {"s": {"pattern": "^(a+)+$"}}});
    let definition = accepted(&[("/input/schema", schema)]);
    assert_eq!(definition.input.violations(&json!({"s": format!("{}b", "a".repeat(100_000))})).len(), 1);
}

/// Scraps that turn up in definitions, to put anywhere in one.
fn scraps() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("${"),
        Just("}"),
        Just("${input.n}"),
        Just("steps.book.output"),
        Just("{"),
        Just("["),
        Just("]"),
        Just(": "),
        Just("- "),
        Just("\n"),
        Just("  "),
        Just("'"),
        Just("\""),
        Just("&a "),
        Just("*a"),
        Just("!!int "),
        Just("<<: "),
        Just("? "),
        Just("#"),
        Just("|"),
        Just(">"),
        Just("---\n"),
        Just("\u{0}"),
        Just("\u{feff}"),
        Just("1e999"),
        Just("null"),
        Just("needs: []"),
        Just("pivot: true"),
        Just("if: has(steps.look.output)"),
        Just("\t"),
        Just("%"),
    ]
    .prop_map(String::from)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_is_refused_without_a_panic(text in "\\PC{0,100}") {
        prop_assert!(Definition::parse(&text, None).is_err());
    }

    #[test]
    fn a_mutated_text_is_read_or_refused_without_a_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..30_usize, scraps()), 1..4)
    ) {
        let mut text: Vec<char> = CHECKOUT.chars().filter(|c| *c != '#').collect();
        for (at, taken, scrap) in edits {
            let at = at.index(text.len());
            let end = (at + taken).min(text.len());
            text.splice(at..end, scrap.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(problems) = Definition::parse(&text, Some(&[])) {
            prop_assert!(!problems.0.is_empty());
        }
    }

    #[test]
    fn a_mutated_document_is_read_or_every_problem_has_a_reason(
        at in any::<prop::sample::Index>(),
        value in prop_oneof![
            Just(json!(null)), Just(json!(true)), Just(json!(-1)), Just(json!(1.5)), Just(json!("")), Just(json!("look")),
            Just(json!([])), Just(json!({})), Just(json!(["look", "pay"])), Just(json!("${steps.pay.output}")),
        ],
    ) {
        let mut pointers = Vec::new();
        places(&valid(), "", &mut pointers);
        let pointer = &pointers[at.index(pointers.len())];
        let mut document = valid();
        if let Some(found) = document.pointer_mut(pointer) {
            *found = value;
        }
        match parse(&document) {
            Ok(definition) => prop_assert_eq!(definition.steps.len(), 4),
            Err(problems) => prop_assert!(!problems.is_empty() && problems.iter().all(|problem| !problem.reason.is_empty())),
        }
    }
}

fn places(value: &Value, pointer: &str, found: &mut Vec<String>) {
    found.push(pointer.to_string());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| places(item, &format!("{pointer}/{index}"), found));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(key, item)| places(item, &format!("{pointer}/{key}"), found));
        }
        _ => {}
    }
}

#[test]
fn the_deepest_documents_are_read_within_a_small_stack() {
    let nested = |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let texts: Vec<String> = [10, 28, 31, 32, 33, 100]
        .into_iter()
        .flat_map(|depth| {
            let list = nested("[", "]", depth);
            let schema = nested(r#"{"not":"#, "}", depth).replace('1', "{}");
            [
                format!("output: {list}\n"),
                format!("{{\"output\": {list}}}"),
                with(&[("/output", serde_json::from_str(&list).expect("JSON"))]).to_string(),
                with(&[("/input/schema", serde_json::from_str(&schema).expect("JSON"))]).to_string(),
            ]
        })
        .collect();
    let run = move || {
        for text in &texts {
            if let Ok(definition) = Definition::parse(text, None) {
                let _ = definition.input.violations(&Value::Null);
            }
        }
    };
    on_a_small_stack(run);
}

/// Three quarters of what the threads of the service have.
fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(1536 * 1024).spawn(run).expect("a thread").join().expect("no panic");
}
