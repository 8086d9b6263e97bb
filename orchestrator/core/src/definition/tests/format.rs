//! The form of the document, and how its problems are told.

use super::*;

#[test]
fn fields_have_the_form_that_the_schema_says() {
    for (pointer, value, place, reason) in [
        ("/apiVersion", json!("skald/v2"), "apiVersion", "skald/v1"),
        ("/name", json!("Trip"), "name", "a lower-case letter"),
        ("/name", json!("a".repeat(65)), "name", "at most 63"),
        ("/name", json!(7), "name", "not of type \"string\""),
        ("/name", json!(null), "name", "is required"),
        ("/version", json!(0), "version", "minimum"),
        ("/version", json!(1.5), "version", "integer"),
        ("/version", json!(1.0), "version", "whole number"),
        ("/version", json!(2_147_483_648_u64), "version", "maximum"),
        ("/extra", json!(1), "extra", "known are: apiVersion, name"),
        ("/steps/1/extra", json!(1), "steps[1].extra", "known are: id, needs"),
        ("/steps/1/call/url", json!("http://x"), "steps[1].call.url", "known are: service"),
        ("/steps/1/call/method", json!("get"), "steps[1].call.method", "GET"),
        ("/steps/1/call/path", json!(7), "steps[1].call.path", "string"),
        ("/steps/1/call/headers", json!({"X": 1}), "steps[1].call.headers.X", "string"),
        ("/steps/1/id", json!("Book"), "steps[1].id", "lower-case letter"),
        ("/steps/1/id", json!(null), "steps[1].id", "is required"),
        ("/steps/1/call", json!(null), "steps[1].call", "is required"),
        ("/steps/1/needs", json!("look"), "steps[1].needs", "array"),
        ("/steps/1/effect", json!("some"), "steps[1].effect", "none"),
        ("/steps/2/pivot", json!("yes"), "steps[2].pivot", "boolean"),
        ("/steps/1/timeout", json!("3 s"), "steps[1].timeout", "such as 200ms"),
        ("/steps/1/timeout", json!(3), "steps[1].timeout", "string"),
        ("/steps/1/retry", json!({"max_attempts": 0}), "steps[1].retry.max_attempts", "minimum"),
        ("/steps/1/retry", json!({"max_attempts": 1001}), "steps[1].retry.max_attempts", "maximum"),
        ("/steps/1/retry", json!({"factor": 0.5}), "steps[1].retry.factor", "minimum"),
        ("/steps/1/retry", json!({"factor": 11}), "steps[1].retry.factor", "maximum"),
        ("/steps/1/states", json!({"doing": "booking"}), "steps[1].states.doing", "A capital letter"),
        ("/steps/1/emits", json!({"succeeded": "Is-Booked"}), "steps[1].emits.succeeded", "letters and digits"),
        ("/steps/1/emits", json!({"done": "X"}), "steps[1].emits.done", "known are: started"),
        ("/steps/1/classify", json!({"600": "retry"}), "steps[1].classify.600", "known field"),
        ("/steps/1/classify", json!({"404": "ignore"}), "steps[1].classify.404", "succeeded"),
        ("/steps/1/compensate", json!({}), "steps[1].compensate.call", "is required"),
        ("/steps/1/status", json!({"timeout": "1s"}), "steps[1].status.call", "is required"),
        ("/input", json!({"type": "object"}), "input.type", "known are: schema"),
        ("/defaults", json!({"retries": 3}), "defaults.retries", "known are: timeout"),
    ] {
        let found = problems(&with(&[(pointer, value.clone())]));
        let told = found.iter().any(|(at, why)| at == place && why.contains(reason));
        assert!(told, "{pointer} = {value}: {found:#?}");
        let once = found.iter().filter(|(at, _)| at == place).count();
        assert_eq!(once, 1, "{pointer} = {value}: {found:#?}");
    }
    assert_eq!(problems(&with(&[("/steps", json!([]))])).len(), 1);
}

#[test]
fn every_property_of_the_published_schema_is_described_and_closed() {
    fn walk(schema: &Value, place: &str) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            assert_eq!(schema["additionalProperties"], json!(false), "{place} is open");
            for (name, property) in properties {
                assert!(property["description"].is_string(), "{place}.{name} has no description");
                walk(property, name);
            }
        }
        for (name, definition) in schema.get("$defs").and_then(Value::as_object).into_iter().flatten() {
            walk(definition, name);
        }
    }
    let schema: Value = serde_json::from_str(FORMAT_SCHEMA).expect("JSON");
    assert_eq!(schema["$schema"], json!("https://json-schema.org/draft/2020-12/schema"));
    walk(&schema, "definition");
}

#[test]
fn every_problem_is_told_in_one_go_with_its_line() {
    let text = r#"
apiVersion: skald/v1
name: Trip
version: 0
retries: 3
input: { schema: { $ref: "https://example.org/input.json" } }
steps:
  - id: look
    call: { service: a, method: GET, path: look }
  - id: book
    call: { service: nowhere, method: POST, path: "/book/${saga.ID}", body: "${steps.pay.output}" }
    timeout: 3 seconds
    compensate:
      call: { service: a, method: POST, path: /undo, body: "${steps.book.output.id}" }
  - id: pay
    needs: [book, bank]
    retriable: true
    call: { service: b, method: POST, path: /pay, headers: { Saga-Id: x } }
"#;
    let services = ["a".to_string(), "b".to_string()];
    let problems = Definition::parse(text, Some(&services)).expect_err("full of problems").0;
    let places: Vec<(u64, &str)> =
        problems.iter().map(|problem| (problem.line.expect("a line"), problem.place.as_str())).collect();
    assert_eq!(
        places,
        [
            (3, "name"),
            (4, "version"),
            (5, "retries"),
            (6, "input.schema.$ref"),
            (8, "steps[0].compensate"),
            (9, "steps[0].call.path"),
            (11, "steps[1].call.path"),
            (11, "steps[1].call.service"),
            (11, "steps[1].call.body"),
            (12, "steps[1].timeout"),
            (14, "steps[1].compensate.call.body"),
            (15, "steps[2].compensate"),
            (16, "steps[2].needs[1]"),
            (17, "steps[2].retriable"),
            (18, "steps[2].call.headers.Saga-Id"),
        ],
        "{problems:#?}"
    );
}

#[test]
fn a_problem_reads_as_place_line_and_reason() {
    let problem =
        &Definition::parse("apiVersion: skald/v1\nname: t\nversion: 1\nsteps: 7\n", None).expect_err("no steps").0[0];
    assert_eq!(problem.to_string(), "steps (line 4): value is not of type \"array\"");
    // A missing field is looked for where it should be.
    let json = "{\n \"apiVersion\": \"skald/v1\", \"version\": 1,\n \"steps\": [\n  {\"id\": \"a\"}]}";
    let problems = Definition::parse(json, None).expect_err("no call").0;
    let told: Vec<(&str, Option<u64>)> =
        problems.iter().map(|problem| (problem.place.as_str(), problem.line)).collect();
    assert_eq!(told[..2], [("name", Some(1)), ("steps[0].call", Some(4))]);
}
