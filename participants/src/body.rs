//! From bytes to a request: JSON that is what the call takes, and texts that a database can hold.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use skald_kit::Problem;

use crate::codes;

const ID_CHARS_MAX: usize = 128;

/// Reads a JSON body. No body at all is read as `{}`.
///
/// # Errors
/// A problem that names the field: no JSON, unknown or missing fields, wrong types, `\u0000`.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    if bytes.windows(6).any(|window| window == b"\\u0000") {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| not_json(&error))?;
        if let Some(field) = find_nul(&value, String::new()) {
            let detail = format!("{field}: \\u0000 can't be stored");
            return Err(Problem::new(codes::INVALID_BODY, detail).with("field", field));
        }
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let body = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data if field == "." => Problem::new(codes::INVALID_BODY, inner.to_string()),
            serde_json::error::Category::Data => {
                Problem::new(codes::INVALID_BODY, format!("{field}: {inner}")).with("field", field)
            }
            _ => not_json(&inner),
        }
    })?;
    json.end().map_err(|error| not_json(&error))?;
    Ok(body)
}

fn not_json(error: &serde_json::Error) -> Problem {
    Problem::new(codes::INVALID_JSON, error.to_string())
}

fn find_nul(value: &Value, path: String) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then_some(path),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, item)| find_nul(item, format!("{path}[{index}]")))
        }
        Value::Object(members) => members.iter().find_map(|(name, member)| {
            let dot = if path.is_empty() { "" } else { "." };
            let path = format!("{path}{dot}{}", name.replace('\0', "\\u0000"));
            if name.contains('\0') { Some(path) } else { find_nul(member, path) }
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// An id given from outside: 1 to 128 characters, none of them a control character.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Id(String);

impl Id {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Id {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        let fits = (1..=ID_CHARS_MAX).contains(&text.chars().count());
        if fits && !text.chars().any(char::is_control) { Ok(Self(text)) } else { Err(InvalidId) }
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("an id has 1 to {ID_CHARS_MAX} characters and no control characters")]
pub(crate) struct InvalidId;

#[cfg(test)]
mod tests {
    use skald_kit::Answer;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only its parsing is of interest")]
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        #[expect(dead_code, reason = "only its parsing is of interest")]
        id: Id,
    }

    fn problem(body: &str) -> Value {
        let answer = Answer::from(parse::<Sample>(body.as_bytes()).expect_err("a bad body"));
        serde_json::from_slice(&answer.body).unwrap()
    }

    #[test]
    fn a_bad_body_names_its_field() {
        for (body, code, field) in [
            ("{", "invalid_json", None),
            (r#"{"items":[]} x"#, "invalid_json", None),
            (r#"{"items":[],"x":1}"#, "invalid_body", Some("x")),
            (r#"{"items":[{"id":1}]}"#, "invalid_body", Some("items[0].id")),
            (r#"{"items":[{"id":""}]}"#, "invalid_body", Some("items[0].id")),
            (r#"{"items":[{"id":"a\u0000"}]}"#, "invalid_body", Some("items[0].id")),
            (r#"{"items":[{"id":"a","no\u0000":1}]}"#, "invalid_body", Some("items[0].no\\u0000")),
            ("[]", "invalid_body", None),
        ] {
            let problem = problem(body);
            assert_eq!(problem["code"], code, "{body}: {problem}");
            if let Some(field) = field {
                assert_eq!(problem["field"], field, "{body}: {problem}");
            }
        }
        assert!(problem("")["detail"].as_str().unwrap().contains("items"));
    }

    #[test]
    fn an_escaped_backslash_before_u0000_is_no_nul() {
        assert!(parse::<Sample>(br#"{"items":[{"id":"\\u0000"}]}"#).is_ok());
    }
}
