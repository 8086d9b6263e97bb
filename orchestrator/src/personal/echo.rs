//! Personal values in what a participant or an operator says, wherever they stand.
//!
//! Found are texts, and whole numbers of at least [`DIGITS_MIN`] digits, of at least [`CHARS_MIN`] characters, also within a
//! longer text, also percent-encoded, and whatever the case of their ASCII letters. Texts shorter than [`ANYWHERE_MIN`]
//! are only found as words of their own: `Ann` is not in `Annulled`. What a participant made of a value in any other way
//! (cut, hashed, translated) is not found.

use std::ops::Range;

use serde_json::Value;
use skald_core::personal::{MARK, Path};

use super::{
    opened::{Opened, is_token, percent_decoded, percent_encoded, rename},
    token,
};
use crate::storage::subjects::SubjectKey;

const CHARS_MIN: usize = 3;
const ANYWHERE_MIN: usize = 8;
const DIGITS_MIN: usize = 6;

/// Words of the contract with participants, which mean something only as they are.
const OUTCOMES: [&str; 2] = ["rejected", "cancelled"];

/// Seals what is found.
#[derive(Debug)]
pub struct Echo {
    key: SubjectKey,
    /// In lower case; the longest first.
    texts: Vec<String>,
    numbers: Vec<String>,
}

impl Echo {
    #[must_use]
    pub fn new(key: SubjectKey, opened: &Opened) -> Self {
        let mut echo = Self { key, texts: Vec::new(), numbers: Vec::new() };
        opened.values().for_each(|value| echo.know(value));
        echo.texts.sort_unstable_by(|one, other| (other.len(), one).cmp(&(one.len(), other)));
        echo.texts.dedup();
        echo
    }

    fn know(&mut self, value: &Value) {
        let text = match value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Array(items) => return items.iter().for_each(|item| self.know(item)),
            Value::Object(fields) => return fields.values().for_each(|field| self.know(field)),
            Value::Null | Value::Bool(_) => return,
        };
        if value.is_number() && text.len() >= DIGITS_MIN {
            self.numbers.push(text.clone());
        }
        if text.chars().count() >= CHARS_MIN {
            self.texts.push(percent_encoded(&text).to_ascii_lowercase());
            self.texts.push(text.to_ascii_lowercase());
        }
    }

    /// Seals the values at these paths, and every personal value elsewhere.
    pub fn seal(&self, value: &mut Value, paths: &[Path]) {
        let mut made = Vec::new();
        for path in paths {
            path.each(value, &mut |value| {
                if !value.as_str().is_some_and(|text| made.iter().any(|made| made == text)) {
                    let token = token::seal(&self.key, value);
                    made.push(token.clone());
                    *value = Value::String(token);
                }
            });
        }
        self.seal_all(value, &made);
    }

    fn seal_all(&self, value: &mut Value, made: &[String]) {
        match value {
            Value::String(text) if made.contains(text) => {}
            Value::String(text) => self.seal_text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.seal_all(item, made)),
            Value::Object(fields) => {
                rename(fields, |key| self.seal_text(key));
                fields.values_mut().for_each(|field| self.seal_all(field, made));
            }
            Value::Number(number) => {
                if self.numbers.contains(&number.to_string()) {
                    *value = Value::String(token::seal(&self.key, value));
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// As [`Echo::seal`], for the body of an answer: its `outcome` decides about the step.
    pub fn seal_answer(&self, body: &mut Value, paths: &[Path]) {
        let outcome =
            body.get("outcome").filter(|outcome| outcome.as_str().is_some_and(|word| OUTCOMES.contains(&word)));
        let outcome = outcome.cloned();
        self.seal(body, paths);
        if let (Some(outcome), Value::Object(fields)) = (outcome, body) {
            fields.insert("outcome".to_owned(), outcome);
        }
    }

    /// Seals every personal value within a text.
    pub fn seal_text(&self, text: &mut String) {
        // Nobody outside has tokens. A text with one is sealed whole, so that nobody takes it for ours.
        if text.contains(MARK) {
            *text = token::seal(&self.key, &Value::String(text.clone()));
            return;
        }
        for range in self.find(text).into_iter().rev() {
            let token = token::seal(&self.key, &Value::from(&text[range.clone()]));
            text.replace_range(range, &token);
        }
    }

    /// As [`Echo::seal_text`], for a path or a URL, in which values are percent-encoded again when they are put back.
    pub fn seal_path(&self, path: &mut String) {
        if is_token(path) || path.contains(MARK) {
            return;
        }
        for range in self.find(path).into_iter().rev() {
            let found = &path[range.clone()];
            let token =
                token::seal(&self.key, &Value::from(percent_decoded(found).unwrap_or_else(|| found.to_owned())));
            path.replace_range(range, &token);
        }
    }

    /// Where personal values are, in order and apart from each other.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        let lower = text.to_ascii_lowercase();
        let mut found: Vec<Range<usize>> = Vec::new();
        for known in &self.texts {
            for (at, _) in lower.match_indices(known.as_str()) {
                let range = at..at + known.len();
                let stands = known.len() >= ANYWHERE_MIN || is_word(&lower, &range);
                // The longest are looked for first: what lies within one that was found is found.
                if stands && !found.iter().any(|other| other.start < range.end && range.start < other.end) {
                    found.push(range);
                }
            }
        }
        found.sort_unstable_by_key(|range| range.start);
        found
    }
}

fn is_word(text: &str, range: &Range<usize>) -> bool {
    let before = text[..range.start].chars().next_back();
    let after = text[range.end..].chars().next();
    ![before, after].into_iter().flatten().any(char::is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{super::opened::Content, *};

    fn echo(values: &[Value]) -> Echo {
        let mut opened = Opened::default();
        for (at, value) in values.iter().enumerate() {
            opened.note(at.to_string(), Content::Value(value.clone()));
        }
        Echo::new(token::fresh_key(), &opened)
    }

    /// What a reader with the key sees.
    fn shown(echo: &Echo, mut value: Value) -> Value {
        let mut tokens = std::collections::BTreeSet::new();
        skald_core::personal::collect_tokens(&value, &mut tokens);
        let mut opened = Opened::default();
        for token in tokens {
            let value = token::open(&echo.key.bytes, &token).expect("our own token");
            opened.note(token, Content::Value(value));
        }
        opened.show(&mut value);
        value
    }

    #[test]
    fn a_value_is_found_wherever_it_stands_and_reads_as_before() {
        let echo = echo(&[json!("jane@example.org"), json!({"name": "Ann", "no": 12_345_678}), json!("ok"), json!(7)]);
        let answer = json!({
            "detail": "no account for JANE@example.org (Ann)",
            "nested": [{"jane@example.org": 12_345_678}],
            "link": "/x?to=jane%40example.org",
            "outcome": "rejected",
            "fine": ["Annulled", "ok", 7, "Hannah"],
        });
        let mut sealed = answer.clone();
        echo.seal_answer(&mut sealed, &[]);
        let text = sealed.to_string().to_lowercase();
        for secret in ["jane@", "jane%40", "(ann)", "12345678"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        assert_eq!((&sealed["fine"], &sealed["outcome"]), (&answer["fine"], &answer["outcome"]));
        assert_eq!(shown(&echo, sealed), answer);
    }

    #[test]
    fn fields_that_are_declared_are_sealed_whatever_they_hold() {
        let echo = echo(&[json!("jane@example.org")]);
        let answer = json!({"to": "someone else", "list": [{"n": 1}, {"n": null}], "same": "jane@example.org", "x": 1});
        let mut sealed = answer.clone();
        let paths = ["to", "list[].n", "same", "none", "to"].map(|path| path.parse().unwrap());
        echo.seal(&mut sealed, &paths);
        assert!(is_token(sealed["to"].as_str().unwrap()) && is_token(sealed["list"][0]["n"].as_str().unwrap()));
        assert_eq!((&sealed["list"][1]["n"], &sealed["x"]), (&json!(null), &json!(1)));
        assert_eq!(shown(&echo, sealed), answer);
    }

    #[test]
    fn a_foreign_token_is_a_text_like_any_other() {
        let echo = echo(&[]);
        let foreign = token::seal(&token::fresh_key(), &json!("another's"));
        let answer = json!({"a": foreign, "b": format!("x {foreign}"), "c": format!("{MARK}open")});
        let mut sealed = answer.clone();
        echo.seal(&mut sealed, &["b".parse().unwrap()]);
        assert!(!sealed.to_string().contains(&foreign));
        assert_eq!(shown(&echo, sealed), answer);
    }

    #[test]
    fn a_path_is_the_same_again_when_values_are_put_back() {
        let echo = echo(&[json!("jane@example.org")]);
        for (path, again) in [
            ("/receipts/jane@example.org", "/receipts/jane%40example.org"),
            ("/receipts/jane%40example.org?x=1", "/receipts/jane%40example.org?x=1"),
            ("/receipts/7", "/receipts/7"),
        ] {
            let mut sealed = path.to_owned();
            echo.seal_path(&mut sealed);
            let mut opened = Opened::default();
            for range in skald_core::personal::tokens_in(&sealed) {
                let token = &sealed[range];
                opened.note(token.to_owned(), Content::Value(token::open(&echo.key.bytes, token).unwrap()));
            }
            opened.send_path(&mut sealed).unwrap();
            assert_eq!(sealed, again);
        }
    }

    proptest! {
        /// Nothing of at least eight characters gets past, and nothing is changed for whoever has the key.
        #[test]
        fn long_values_never_get_past(secret in "[a-z@.é ]{8,20}", before in ".{0,9}", after in ".{0,9}", key in any::<bool>()) {
            let echo = echo(&[json!(secret)]);
            let text = format!("{before}{secret}{after}");
            let answer = if key { json!({text: 1}) } else { json!([{"t": text}]) };
            let mut sealed = answer.clone();
            echo.seal(&mut sealed, &[]);
            prop_assert!(!sealed.to_string().contains(secret.trim()) || secret.trim().chars().count() < 8);
            prop_assert_eq!(shown(&echo, sealed), answer);
        }
    }
}
