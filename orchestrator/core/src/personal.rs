//! Personal data as the engine sees it: paths to where it lies, and the tokens that stand for it.
//!
//! Personal values are sealed before the engine sees them: a token, which is a text, takes the value's place. The engine
//! carries tokens along and never looks into them; who holds the keys lies outside. What a token holds is written here
//! only as far as its form, so that texts are not cut in the middle of one.
//!
//! A token is `~skald.sealed.1.<key>.<payload>~`, where key and payload are base64url. It consists of characters that stand
//! for themselves in a URL, in a header and in JSON, and ends with one that occurs in no payload.

use alloc::{
    borrow::ToOwned,
    collections::BTreeSet,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, ops::Range, str::FromStr};

use serde_json::Value;

/// How every token begins.
pub const MARK: &str = "~skald.sealed.1.";
/// How every token ends.
pub const END: char = '~';

/// What readers see of a value whose key was destroyed.
pub const ERASED: &str = "[erased]";
/// What readers see of a value where no key is asked for.
pub const HIDDEN: &str = "[personal]";

/// A way down into a JSON document.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    Key(String),
    /// Each item of a list: `[]`.
    Items,
}

/// What an operation on a saga with personal data needs to know to open and seal it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sealed {
    /// Whose data it is: only tokens under this subject's keys may be opened.
    pub subject: alloc::sync::Arc<str>,
    /// The tokens in the saga's input and outputs, each once.
    pub tokens: Vec<String>,
    /// Where personal data lies in the body of an answer.
    pub answer: alloc::sync::Arc<[Path]>,
}

impl FromStr for Path {
    type Err = String;

    /// Reads `payment.holder` or `contacts[].email`. The empty text is the document itself.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut path = Vec::new();
        for part in text.split('.').filter(|_| !text.is_empty()) {
            let name = part.trim_end_matches("[]");
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'$');
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(format!("`{part}` is no name of a field, which may be followed by `[]` for each item"));
            }
            path.push(Segment::Key(name.to_owned()));
            path.extend((0..(part.len() - name.len()) / 2).map(|_| Segment::Items));
        }
        Ok(Self(path))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if at == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Items => f.write_str("[]")?,
            }
        }
        Ok(())
    }
}

impl Path {
    /// The path that goes on from here by `rest`.
    #[must_use]
    pub fn then(&self, rest: &[Segment]) -> Self {
        Self(self.0.iter().chain(rest).cloned().collect())
    }

    /// Hands over every value at this path; null and what is missing are left out.
    ///
    /// Where the document has another form than the path expects, the value that does not fit is handed over whole:
    /// what is personal may lie in it.
    pub fn each<'v>(&self, document: &'v mut Value, take: &mut dyn FnMut(&'v mut Value)) {
        each(&self.0, document, take);
    }
}

fn each<'v>(path: &[Segment], value: &'v mut Value, take: &mut dyn FnMut(&'v mut Value)) {
    match (path.split_first(), value) {
        (_, Value::Null) => {}
        (Some((Segment::Key(key), rest)), Value::Object(fields)) => {
            if let Some(field) = fields.get_mut(key) {
                each(rest, field, take);
            }
        }
        (Some((Segment::Items, rest)), Value::Array(items)) => items.iter_mut().for_each(|item| each(rest, item, take)),
        (_, value) => take(value),
    }
}

/// Where tokens are in a text. What begins like a token and does not end is none.
#[must_use]
pub fn tokens_in(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(begin) = text[from..].find(MARK).map(|at| from + at) {
        let inside = begin + MARK.len();
        let rest = &text[inside..];
        let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')));
        match length {
            Some(length) if rest[length..].starts_with(END) => {
                found.push(begin..inside + length + END.len_utf8());
                from = inside + length + END.len_utf8();
            }
            _ => from = inside,
        }
    }
    found
}

/// Adds every token in the strings and keys of a document.
pub fn collect_tokens(value: &Value, into: &mut BTreeSet<String>) {
    let mut add = |text: &str| into.extend(tokens_in(text).into_iter().map(|range| text[range].to_string()));
    match value {
        Value::String(text) => add(text),
        Value::Array(items) => items.iter().for_each(|item| collect_tokens(item, into)),
        Value::Object(fields) => {
            fields.keys().for_each(|key| add(key));
            fields.values().for_each(|field| collect_tokens(field, into));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The byte at which to cut a text so that `cut` or fewer bytes are left and no token is cut in two.
#[must_use]
pub fn cut_before_token(text: &str, cut: usize) -> usize {
    let through = tokens_in(text).into_iter().find(|token| token.start < cut && cut < token.end);
    through.map_or(cut, |token| token.start)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use serde_json::json;

    use super::*;

    fn at(path: &str, mut document: Value) -> Vec<Value> {
        let mut found = Vec::new();
        path.parse::<Path>().expect("a path").each(&mut document, &mut |value| found.push(value.take()));
        found
    }

    #[test]
    fn a_path_finds_what_lies_there() {
        let input = json!({"a": {"b": 1}, "l": [{"e": "x"}, {"e": null}, {}, {"e": "y"}], "ll": [[1], [2, 3]]});
        for (path, found) in [
            ("a.b", vec![json!(1)]),
            ("a", vec![json!({"b": 1})]),
            ("a.c", vec![]),
            ("l[].e", vec![json!("x"), json!("y")]),
            ("ll[][]", vec![json!(1), json!(2), json!(3)]),
            ("none.at[].all", vec![]),
        ] {
            assert_eq!(at(path, input.clone()), found, "{path}");
        }
    }

    #[test]
    fn what_does_not_have_the_expected_form_is_taken_whole() {
        for (path, document) in [
            ("a.b", json!({"a": "text"})),
            ("a.b", json!({"a": [{"b": 1}]})),
            ("a[].b", json!({"a": {"b": 1}})),
            ("a[]", json!({"a": 7})),
        ] {
            assert_eq!(at(path, document.clone()), [document["a"].clone()], "{path}");
        }
    }

    #[test]
    fn a_path_reads_as_it_is_written() {
        for text in ["a", "a.b-c", "contacts[].email", "x[][].y", ""] {
            assert_eq!(text.parse::<Path>().expect(text).to_string(), text);
        }
        for text in [".", "a.", "a..b", "[]", "a[0]", "a b", "a[", "a.[]"] {
            assert!(text.parse::<Path>().is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_are_found_and_never_cut() {
        let token = format!("{MARK}key.pay_load-1~");
        let text = format!("for {token}, and {token}{token} but not {MARK}open or {MARK}br oken~");
        let found: Vec<&str> = tokens_in(&text).into_iter().map(|range| &text[range]).collect();
        assert_eq!(found, [&token, &token, &token]);
        assert_eq!(cut_before_token(&text, 10), 4);
        assert_eq!(cut_before_token(&text, 4), 4);
        assert_eq!(cut_before_token(&text, 4 + token.len()), 4 + token.len());
        let mut tokens = BTreeSet::new();
        collect_tokens(&json!({"a": [text], token.clone(): 1, "n": null}), &mut tokens);
        assert_eq!(Vec::from_iter(tokens), [token]);
    }
}
