//! Tokens that were opened, and what is put in their place.

use std::{collections::HashMap, ops::Range};

use serde_json::Value;
use skald_core::personal::{ERASED, MARK, tokens_in};

use crate::storage::subjects::SubjectKey;

/// What is known of some tokens.
#[derive(Debug, Default)]
pub struct Opened {
    tokens: HashMap<String, Content>,
    /// Of one of the tokens that were opened.
    pub(super) key: Option<SubjectKey>,
}

/// What a token came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    Value(Value),
    /// Its key was destroyed.
    Erased,
}

/// Why a request cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    #[error("the personal data for this call was erased")]
    Erased,
    #[error("the call holds a sealed value that is not of this saga's subject")]
    Foreign,
    #[error("personal data within a text must be a string, a number or a bool")]
    NoText,
    #[error("personal data in a path must not be empty, `.` or `..`")]
    NoSegment,
}

impl Opened {
    pub fn note(&mut self, token: String, content: Content) {
        self.tokens.insert(token, content);
    }

    /// The values that were opened.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.tokens.values().filter_map(|content| match content {
            Content::Value(value) => Some(value),
            Content::Erased => None,
        })
    }

    /// Puts values in the place of tokens, for a reader. A token of which nothing is known is left as it is.
    pub fn show(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                let whole = is_token(text).then(|| self.tokens.get(text.as_str())).flatten();
                match whole {
                    Some(Content::Value(opened)) => *value = opened.clone(),
                    _ => self.show_text(text),
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.show(item)),
            Value::Object(fields) => {
                rename(fields, |key| self.show_text(key));
                fields.values_mut().for_each(|field| self.show(field));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// As [`Opened::show`], within a text.
    pub fn show_text(&self, text: &mut String) {
        let put = |token: &str| match self.tokens.get(token) {
            Some(Content::Value(value)) => Ok(Some(as_text(value).unwrap_or_else(|| value.to_string()))),
            Some(Content::Erased) => Ok(Some(ERASED.to_owned())),
            None => Ok(None),
        };
        let shown: Result<(), std::convert::Infallible> = replace(text, put);
        shown.unwrap_or_else(|never| match never {});
    }

    /// Puts values in the place of tokens, for a participant.
    ///
    /// # Errors
    ///
    /// When that cannot be done with each of them.
    pub fn send(&self, value: &mut Value) -> Result<(), Unopened> {
        match value {
            Value::String(text) if is_token(text) => *value = self.value(text)?.clone(),
            Value::String(text) => self.send_text(text)?,
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.send(item))?,
            Value::Object(fields) => fields.values_mut().try_for_each(|field| self.send(field))?,
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Ok(())
    }

    /// As [`Opened::send`], within a text.
    pub fn send_text(&self, text: &mut String) -> Result<(), Unopened> {
        replace(text, |token| as_text(self.value(token)?).map(Some).ok_or(Unopened::NoText))
    }

    /// As [`Opened::send`], within a path: each value stays within its segment.
    pub fn send_path(&self, path: &mut String) -> Result<(), Unopened> {
        replace(path, |token| match as_text(self.value(token)?) {
            Some(text) if matches!(&*text, "" | "." | "..") => Err(Unopened::NoSegment),
            Some(text) => Ok(Some(percent_encoded(&text))),
            None => Err(Unopened::NoText),
        })
    }

    fn value(&self, token: &str) -> Result<&Value, Unopened> {
        match self.tokens.get(token) {
            Some(Content::Value(value)) => Ok(value),
            Some(Content::Erased) => Err(Unopened::Erased),
            None => Err(Unopened::Foreign),
        }
    }
}

/// Whether the text is one token and nothing else.
#[must_use]
pub fn is_token(text: &str) -> bool {
    text.starts_with(MARK) && tokens_in(text).first().is_some_and(|token| *token == (0..text.len()))
}

/// A text as it is, a number or a bool in its JSON form.
fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn replace<E>(text: &mut String, put: impl Fn(&str) -> Result<Option<String>, E>) -> Result<(), E> {
    let ranges: Vec<Range<usize>> = tokens_in(text);
    for range in ranges.into_iter().rev() {
        if let Some(put) = put(&text[range.clone()])? {
            text.replace_range(range, &put);
        }
    }
    Ok(())
}

/// Renames the keys that `change` changes; the order stays.
pub fn rename(fields: &mut serde_json::Map<String, Value>, change: impl Fn(&mut String)) {
    let changes = |key: &String| {
        let mut changed = key.clone();
        change(&mut changed);
        changed != *key
    };
    if !fields.keys().any(changes) {
        return;
    }
    *fields = std::mem::take(fields)
        .into_iter()
        .map(|(mut key, value)| {
            change(&mut key);
            (key, value)
        })
        .collect();
}

/// All but the characters that stand for themselves in any part of a URL.
#[must_use]
pub fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let encode = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

/// None when what it stands for is no text.
#[must_use]
pub fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        let digits = (*byte == b'%').then(|| after.get(..2)).flatten();
        let encoded = digits.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        bytes.push(encoded.unwrap_or(*byte));
        rest = if encoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MAIL: &str = "~skald.sealed.1.k.mail~";
    const CARD: &str = "~skald.sealed.1.k.card~";
    const GONE: &str = "~skald.sealed.1.x.gone~";
    const FOREIGN: &str = "~skald.sealed.1.y.other~";

    fn opened() -> Opened {
        let mut opened = Opened::default();
        opened.note(MAIL.to_owned(), Content::Value(json!("a/b@c")));
        opened.note(CARD.to_owned(), Content::Value(json!({"no": 42})));
        opened.note(GONE.to_owned(), Content::Erased);
        opened
    }

    #[test]
    fn a_request_holds_values_with_their_types() {
        let sent = |mut value: Value| opened().send(&mut value).map(|()| value);
        assert_eq!(
            sent(json!({"to": MAIL, "all": [{"card": CARD}], "text": format!("for {MAIL}!"), "n": 1})),
            Ok(json!({"to": "a/b@c", "all": [{"card": {"no": 42}}], "text": "for a/b@c!", "n": 1}))
        );
        assert_eq!(sent(json!([GONE])), Err(Unopened::Erased));
        assert_eq!(sent(json!(FOREIGN)), Err(Unopened::Foreign));
        assert_eq!(sent(json!(format!("to {CARD}"))), Err(Unopened::NoText));
    }

    #[test]
    fn a_value_stays_within_its_segment_of_a_path() {
        let sent = |mut path: String| opened().send_path(&mut path).map(|()| path);
        assert_eq!(sent(format!("/mail/{MAIL}/x?to={MAIL}")), Ok("/mail/a%2Fb%40c/x?to=a%2Fb%40c".to_owned()));
        let mut opened = Opened::default();
        opened.note(MAIL.to_owned(), Content::Value(json!("..")));
        assert_eq!(opened.send_path(&mut format!("/mail/{MAIL}")), Err(Unopened::NoSegment));
        assert_eq!(percent_decoded(&percent_encoded("a/ü %41")), Some("a/ü %41".to_owned()));
        assert_eq!(percent_decoded("100%"), Some("100%".to_owned()));
    }

    #[test]
    fn a_reader_sees_what_can_be_seen() {
        let mut value = json!({"to": MAIL, "gone": GONE, "text": format!("{GONE} {MAIL} {FOREIGN}"), MAIL: FOREIGN});
        opened().show(&mut value);
        let text = format!("{ERASED} a/b@c {FOREIGN}");
        assert_eq!(value, json!({"to": "a/b@c", "gone": ERASED, "text": text, "a/b@c": FOREIGN}));
    }
}
