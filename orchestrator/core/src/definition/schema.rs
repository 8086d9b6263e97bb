//! JSON Schemas: the one of the definition format, and the one a definition gives for its input.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use jsonschema::{PatternOptions, ValidationError, Validator, error::ValidationErrorKind};
use serde_json::Value;

use super::{document, parse::Problem};
use crate::json::{push_index, push_key};

/// The JSON Schema of the definition format itself, as published for editors.
pub const FORMAT_SCHEMA: &str = include_str!("../../../../openapi/definition.schema.json");

/// How many violations are told at once.
const VIOLATIONS_MAX: usize = 20;
/// As above, for definitions.
const PROBLEMS_MAX: usize = 200;

/// The schema that an input must satisfy. Without one, any JSON is accepted.
#[derive(Debug, Default)]
pub struct InputSchema {
    schema: Option<(Arc<Value>, Validator)>,
}

impl InputSchema {
    /// Compiles a schema, without reading anything from elsewhere.
    ///
    /// # Errors
    ///
    /// Problems with their places within the schema: it is not a valid JSON Schema, or refers to what is outside it.
    pub(super) fn compile(schema: &Value) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        check_references(schema, &mut String::new(), &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        match validator(schema) {
            Ok(validator) => Ok(Self { schema: Some((Arc::new(schema.clone()), validator)) }),
            Err(error) => Err(Vec::from([Problem::new(
                document::place_of(schema, error.instance_path().as_str()),
                format!("it is not a valid JSON Schema: {}", error.masked()),
            )])),
        }
    }

    /// The schema as written.
    #[must_use]
    pub fn document(&self) -> Option<&Arc<Value>> {
        self.schema.as_ref().map(|(document, _)| document)
    }

    /// Violations as (JSON pointer into the input, reason), at most 20; empty when valid. Reasons do not repeat values.
    #[must_use]
    pub fn violations(&self, input: &Value) -> Vec<(String, String)> {
        let Some((_, validator)) = &self.schema else { return Vec::new() };
        if validator.is_valid(input) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for error in validator.iter_errors(input) {
            for (key, reason) in explain(&error, None) {
                let mut pointer = error.instance_path().as_str().to_owned();
                if let Some(key) = key {
                    pointer.push('/');
                    pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
                }
                found.push((pointer, reason));
            }
            if found.len() >= VIOLATIONS_MAX {
                break;
            }
        }
        found.truncate(VIOLATIONS_MAX);
        found
    }

    /// Whether the schema says that an input never has this property.
    pub(super) fn rules_out(&self, property: &str) -> bool {
        let Some(Value::Object(schema)) = self.document().map(|document| &**document) else { return false };
        let opens = ["$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "patternProperties", "dependentSchemas"];
        let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
        let known =
            schema.get("properties").and_then(Value::as_object).is_some_and(|known| known.contains_key(property));
        closed && !known && !opens.iter().any(|keyword| schema.contains_key(*keyword))
    }
}

/// Where a definition's document differs from the format.
pub(super) fn format_problems(definition: &Value) -> Vec<Problem> {
    let format: Value = serde_json::from_str(FORMAT_SCHEMA).expect("the published schema is valid JSON");
    let validator = validator(&format).expect("the published schema is a valid JSON Schema");
    let mut problems = Vec::new();
    for error in validator.iter_errors(definition).take(PROBLEMS_MAX) {
        let place = document::place_of(definition, error.instance_path().as_str());
        for (key, reason) in explain(&error, Some(&format)) {
            let mut place = place.clone();
            if let Some(key) = key {
                push_key(&mut place, &key);
            }
            problems.push(Problem::new(place, reason));
        }
    }
    problems
}

fn validator(schema: &Value) -> Result<Validator, ValidationError<'static>> {
    // The linear-time engine: a definition's pattern must not be able to stall a start.
    jsonschema::options().offline().with_pattern_options(PatternOptions::regex()).build(schema)
}

/// A violation in words: one or several (key below the violating value, reason). `format` adds what the format's own
/// schema says of the place.
fn explain(error: &ValidationError<'_>, format: Option<&Value>) -> Vec<(Option<String>, String)> {
    let sibling = |keyword: &str| {
        let path = error.schema_path().as_str();
        let parent = &path[..path.rfind('/').unwrap_or(0)];
        format.and_then(|format| format.pointer(parent)).and_then(|schema| schema.get(keyword))
    };
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let key = property.as_str().unwrap_or_default().to_owned();
            Vec::from([(Some(key), "is required, and missing".to_owned())])
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let known = sibling("properties")
                .and_then(Value::as_object)
                .map(|known| known.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
            let reason = match known {
                Some(known) => format!("is not a known field; known are: {known}"),
                None => "is not a known field".to_owned(),
            };
            unexpected.iter().map(|key| (Some(key.clone()), reason.clone())).collect()
        }
        ValidationErrorKind::Pattern { .. } => {
            let reason = match sibling("description").and_then(Value::as_str) {
                Some(description) => format!("does not have the right form: {description}"),
                None => error.masked().to_string(),
            };
            Vec::from([(None, reason)])
        }
        _ => Vec::from([(None, error.masked().to_string())]),
    }
}

/// Refuses references to other documents; nothing is ever fetched.
fn check_references(schema: &Value, place: &mut String, problems: &mut Vec<Problem>) {
    let start = place.len();
    match schema {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                push_index(place, index);
                check_references(item, place, problems);
                place.truncate(start);
            }
        }
        Value::Object(fields) => {
            for (key, value) in fields {
                push_key(place, key);
                let reference = matches!(key.as_str(), "$ref" | "$dynamicRef" | "$recursiveRef");
                if let (true, Some(target)) = (reference, value.as_str())
                    && !target.starts_with('#')
                {
                    let reason = "references must stay within the schema: move it to $defs and write #/$defs/..";
                    problems.push(Problem::new(place.clone(), reason.to_owned()));
                }
                check_references(value, place, problems);
                place.truncate(start);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
