//! The specification is the committed one, hangs together, and its examples are true.

use std::{collections::BTreeSet, path::Path};

use super::*;

const CHECKOUT: &str = include_str!("../../../../definitions/checkout.yaml");
const ORDER_FIRST: &str = include_str!("../../../../definitions/order-first.yaml");

fn checkout() -> Value {
    specification(&[Arc::new(Definition::parse(CHECKOUT, None).unwrap())])
}

fn operations(document: &Value) -> Vec<(&String, &String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(method, of)| (path, method, of)))
        .collect()
}

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_committed_specification_is_this_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi/skald.json");
    let bundled = [CHECKOUT, ORDER_FIRST].map(|text| Arc::new(Definition::parse(text, None).unwrap()));
    let text = serde_json::to_string_pretty(&specification(&bundled)).unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "openapi/skald.json is out of date: run the tests once with UPDATE_OPENAPI=1");
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let document = checkout();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(found.contains(&*format!("#/components/schemas/{name}")), "{name} is not used");
    }
}

#[test]
fn every_operation_is_named_once_tagged_and_tells_its_problems() {
    let document = checkout();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} twice");
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric()) && id.as_bytes()[0].is_ascii_lowercase(), "{id}");
        assert!(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{method} {path}");
        assert!(operation["summary"].is_string(), "{method} {path}");
        let responses = operation["responses"].as_object().unwrap();
        for (status, response) in responses {
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{id} {status}");
            assert!(response["headers"]["X-Correlation-Id"].is_object(), "{id} {status}");
            let is_problem = response["content"]["application/problem+json"].is_object();
            let is_error = status.as_bytes()[0] >= b'4' && (id, &**status) != ("getReadiness", "503");
            assert_eq!(is_problem, is_error, "{id} {status}");
        }
        for status in ["400", "500"] {
            assert!(responses.contains_key(status), "{id} {status}");
        }
    }
}

#[test]
fn schemas_are_flat_enough_for_clean_clients() {
    fn visit(value: &Value, place: &str) {
        if let Value::Object(fields) = value {
            for union in ["oneOf", "anyOf", "allOf"] {
                assert!(!fields.contains_key(union), "{union} at {place}");
            }
            fields.iter().for_each(|(key, value)| visit(value, &format!("{place}/{key}")));
        }
        if let Value::Array(items) = value {
            items.iter().for_each(|value| visit(value, place));
        }
    }
    let document = checkout();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{name}");
        // Inputs are what the definitions make them.
        if !name.ends_with("Input") {
            visit(schema, name);
        }
    }
    for (path, _, operation) in operations(&document) {
        visit(operation, path);
    }
}

#[test]
fn a_definitions_own_references_still_lead_to_their_targets() {
    let text = CHECKOUT.replace(
        "customer_id: { type: string, minLength: 1, maxLength: 64 }",
        "customer_id: { $ref: '#/$defs/customer' }",
    );
    let text = text.replacen("    type: object\n", "    $defs: { customer: { type: string } }\n    type: object\n", 1);
    let document = specification(&[Arc::new(Definition::parse(&text, None).unwrap())]);
    let reference = document["components"]["schemas"]["CheckoutInput"]["properties"]["customer_id"]["$ref"].as_str();
    assert_eq!(reference, Some("#/components/schemas/CheckoutInput/$defs/customer"));
    assert!(document.pointer(&reference.unwrap()[1..]).is_some());
}

#[test]
fn the_document_says_which_version_of_openapi_it_is() {
    let document = checkout();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["paths"]["/sagas/checkout"]["post"]["operationId"], "startCheckout");
    assert_eq!(pascal_case("order-first"), "OrderFirst");
}
