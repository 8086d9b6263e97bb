//! From text to a JSON document: YAML or JSON, with the same strictness.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec::Vec,
};

use serde_json::Value;
use serde_saphyr::{MergeKeyPolicy, options::DuplicateKeyPolicy};
use sha2::{Digest, Sha256};

use super::parse::Problem;
use crate::json::{Limits, Strict, parse_strict, push_index, push_key};

/// The largest definition, in bytes.
pub(super) const BYTES_MAX: usize = 256 * 1024;
/// Nested lists and objects in a definition: well within what the YAML reader can do on a thread's stack.
pub(super) const DEPTH_MAX: usize = 32;
/// Expressions in one definition.
const EXPRESSIONS_MAX: usize = 2000;

/// Reads the document. What begins with `{` is JSON, all else YAML.
pub(super) fn read(text: &str) -> Result<Value, Problem> {
    let whole = |reason: String| Problem::new(String::new(), reason);
    if text.len() > BYTES_MAX {
        return Err(whole(format!("the definition is larger than {BYTES_MAX} bytes")));
    }
    if text.matches("${").count() > EXPRESSIONS_MAX {
        return Err(whole(format!("the definition holds more than {EXPRESSIONS_MAX} expressions")));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') {
        let limits = Limits { bytes_max: BYTES_MAX, depth_max: DEPTH_MAX };
        return parse_strict(text.as_bytes(), limits)
            .map_err(|problem| Problem::new(dotted(&problem.place), problem.reason));
    }
    read_yaml(text)
}

pub(super) fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_documents: 1,
            max_nodes: 50_000,
            max_events: 200_000,
            max_aliases: 1_000,
            max_anchors: 200,
            max_merge_keys: 200,
            max_recorded_anchor_events: 100_000,
            max_recorded_anchor_bytes: 4 * BYTES_MAX,
            max_total_scalar_bytes: 4 * BYTES_MAX,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Merge,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 20_000, max_replay_stack_depth: 8 },
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

fn read_yaml(text: &str) -> Result<Value, Problem> {
    let strict = Strict::new(DEPTH_MAX);
    let value =
        serde_saphyr::with_deserializer_from_str_with_options(text, yaml_options(), |yaml| strict.deserialize(yaml))
            .map_err(|error| Problem::new(strict.dotted_place(), error.to_string()))?;
    if strict.saw_huge_number() {
        let reason = "a number in it does not fit 64 bits; write it as a string, in quotes";
        return Err(Problem::new(String::new(), reason.to_owned()));
    }
    Ok(value)
}

/// A JSON pointer as `steps[2].call.path`; a number is taken for an index.
fn dotted(pointer: &str) -> String {
    let mut place = String::new();
    for segment in pointer.split('/').skip(1) {
        match segment.parse() {
            Ok(index) => push_index(&mut place, index),
            Err(_) => push_key(&mut place, &segment.replace("~1", "/").replace("~0", "~")),
        }
    }
    place
}

/// A JSON pointer into `document` as `steps[2].call.path`.
pub(super) fn place_of(document: &Value, pointer: &str) -> String {
    let mut place = String::new();
    let mut at = Some(document);
    for segment in pointer.split('/').skip(1) {
        let key = segment.replace("~1", "/").replace("~0", "~");
        at = match (at, key.parse::<usize>()) {
            (Some(Value::Array(items)), Ok(index)) => {
                push_index(&mut place, index);
                items.get(index)
            }
            (at, _) => {
                push_key(&mut place, &key);
                at.and_then(|value| value.get(&key))
            }
        };
    }
    place
}

/// SHA-256, in hex, of the document with sorted keys and no blanks.
pub(super) fn hash(document: &Value) -> String {
    let mut canonical = String::new();
    write_canonical(document, &mut canonical);
    let digest = Sha256::digest(canonical.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_canonical(value: &Value, into: &mut String) {
    match value {
        Value::Array(items) => {
            into.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    into.push(',');
                }
                write_canonical(item, into);
            }
            into.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            into.push('{');
            for (index, (key, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    into.push(',');
                }
                into.push_str(&Value::from(key.as_str()).to_string());
                into.push(':');
                write_canonical(value, into);
            }
            into.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => into.push_str(&value.to_string()),
    }
}
