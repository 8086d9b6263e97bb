//! Reading JSON from outside: inputs, definitions, participants' answers, operators' outputs.
//!
//! What this accepts can be stored by every backend and read back the same: valid UTF-8, bounded size and depth, no
//! `\u0000` (PostgreSQL's text cannot hold it), no number that would lose its value, no key twice.

use alloc::{
    borrow::ToOwned,
    boxed::Box,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{cell::RefCell, fmt};

use serde::{
    Deserialize, Serialize, Serializer,
    de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value, map::Entry, value::RawValue};

/// Nested lists and objects in any document that Skald reads or makes.
pub const DEPTH_MAX: usize = 64;

/// What a document may be at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bytes_max: usize,
    /// At most 100; [`DEPTH_MAX`] unless there is a reason.
    pub depth_max: usize,
}

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", if .place.is_empty() { String::new() } else { format!("{place}: ") })]
pub struct JsonProblem {
    /// A JSON pointer to the value; empty for the document itself.
    pub place: String,
    /// What is wrong, with line and column where they are known.
    pub reason: String,
}

/// A JSON document: its text, as it came, and what it says. Clones share both.
#[derive(Clone, Debug)]
pub struct Document {
    text: Arc<RawValue>,
    value: Arc<Value>,
}

impl Document {
    /// `value` is what the text says.
    #[must_use]
    pub fn new(text: Box<RawValue>, value: Value) -> Self {
        Self { text: text.into(), value: Arc::new(value) }
    }

    #[must_use]
    pub fn text(&self) -> &RawValue {
        &self.text
    }

    #[must_use]
    pub const fn value(&self) -> &Arc<Value> {
        &self.value
    }

    #[must_use]
    pub fn into_parts(self) -> (Arc<RawValue>, Value) {
        (self.text, Arc::unwrap_or_clone(self.value))
    }
}

impl From<Value> for Document {
    fn from(value: Value) -> Self {
        Self::new(serde_json::value::to_raw_value(&value).expect("JSON has string keys"), value)
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let value = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        Ok(Self::new(text, value))
    }
}

/// Reads a whole JSON document.
///
/// Takes time linear in its size, and stack only up to the depth limit, whatever the bytes.
///
/// # Errors
///
/// The first problem, by its place.
pub fn parse_strict(bytes: &[u8], limits: Limits) -> Result<Value, JsonProblem> {
    let whole = |reason: String| JsonProblem { place: String::new(), reason };
    if bytes.len() > limits.bytes_max {
        return Err(whole(format!("the document is larger than {} bytes", limits.bytes_max)));
    }
    let text = core::str::from_utf8(bytes)
        .map_err(|error| whole(format!("it is not valid UTF-8 (at byte {})", error.valid_up_to())))?;
    let strict = Strict::new(limits.depth_max);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = strict
        .deserialize(&mut deserializer)
        .map_err(|error| JsonProblem { place: strict.place(), reason: error.to_string() })?;
    deserializer.end().map_err(|error| whole(error.to_string()))?;
    strict.check_huge_numbers(text)?;
    Ok(value)
}

/// Reads one value by the rules of this module from any self-describing format, noting where it is.
pub(crate) struct Strict {
    depth_max: usize,
    /// Where reading stands; after an error, where it happened.
    path: RefCell<Vec<Step>>,
    /// Places of numbers beyond 64 bits. Only their text tells an integer, which would lose its value, from a float.
    huge: RefCell<Vec<String>>,
}

enum Step {
    Key(String),
    Index(usize),
}

impl Strict {
    pub(crate) const fn new(depth_max: usize) -> Self {
        Self { depth_max, path: RefCell::new(Vec::new()), huge: RefCell::new(Vec::new()) }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(&self, deserializer: D) -> Result<Value, D::Error> {
        ValueSeed { strict: self }.deserialize(deserializer)
    }

    /// A JSON pointer to where reading stands.
    pub(crate) fn place(&self) -> String {
        let mut place = String::new();
        for step in self.path.borrow().iter() {
            place.push('/');
            match step {
                Step::Key(key) => place.push_str(&key.replace('~', "~0").replace('/', "~1")),
                Step::Index(index) => place.push_str(&index.to_string()),
            }
        }
        place
    }

    /// Where reading stands, as `steps[2].call.path`.
    pub(crate) fn dotted_place(&self) -> String {
        let mut place = String::new();
        for step in self.path.borrow().iter() {
            match step {
                Step::Key(key) => push_key(&mut place, key),
                Step::Index(index) => push_index(&mut place, *index),
            }
        }
        place
    }

    /// Whether a number too large for 64 bits was read.
    pub(crate) fn saw_huge_number(&self) -> bool {
        !self.huge.borrow().is_empty()
    }

    /// Refuses integers that became floats. The n-th huge number token of the text is the n-th huge number read.
    fn check_huge_numbers(&self, text: &str) -> Result<(), JsonProblem> {
        let huge = self.huge.borrow();
        if huge.is_empty() {
            return Ok(());
        }
        let mut places = huge.iter();
        for token in number_tokens(text) {
            let place = if token.parse().is_ok_and(is_huge) { places.next() } else { None };
            let whole = !token.contains(['.', 'e', 'E']);
            if whole && token.parse::<i64>().is_err() && token.parse::<u64>().is_err() {
                let reason = "the integer does not fit 64 bits and would lose its value; send it as a string";
                return Err(JsonProblem { place: place.cloned().unwrap_or_default(), reason: reason.to_owned() });
            }
        }
        Ok(())
    }
}

/// Whether a number may be an integer that does not fit 64 bits.
fn is_huge(number: f64) -> bool {
    number >= u64::MAX as f64 || number <= i64::MIN as f64
}

/// The numbers of a valid JSON text, in order.
fn number_tokens(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    core::iter::from_fn(move || {
        while at < bytes.len() {
            match bytes[at] {
                b'"' => {
                    at += 1;
                    while at < bytes.len() && bytes[at] != b'"' {
                        at += if bytes[at] == b'\\' { 2 } else { 1 };
                    }
                    at += 1;
                }
                b'-' | b'0'..=b'9' => {
                    let start = at;
                    while at < bytes.len() && matches!(bytes[at], b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') {
                        at += 1;
                    }
                    return Some(&text[start..at]);
                }
                _ => at += 1,
            }
        }
        None
    })
}

struct ValueSeed<'s> {
    strict: &'s Strict,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl ValueSeed<'_> {
    fn enter<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.strict.path.borrow().len() >= self.strict.depth_max {
            return Err(E::custom(format!("the document nests deeper than {} levels", self.strict.depth_max)));
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, is: bool) -> Result<Value, E> {
        Ok(Value::Bool(is))
    }

    fn visit_i64<E>(self, int: i64) -> Result<Value, E> {
        Ok(Value::from(int))
    }

    fn visit_u64<E>(self, uint: u64) -> Result<Value, E> {
        Ok(Value::from(uint))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        if is_huge(number) {
            self.strict.huge.borrow_mut().push(self.strict.place());
        }
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("the number is not finite"))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        without_nul(text).map(|text| Value::String(text.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Value, E> {
        without_nul(&text)?;
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.enter()?;
        let path = &self.strict.path;
        let mut list = Vec::new();
        path.borrow_mut().push(Step::Index(0));
        while let Some(item) = items.next_element_seed(ValueSeed { strict: self.strict })? {
            list.push(item);
            if let Some(Step::Index(index)) = path.borrow_mut().last_mut() {
                *index = list.len();
            }
        }
        path.borrow_mut().pop();
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        self.enter()?;
        let path = &self.strict.path;
        let mut object = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            without_nul(&key)?;
            path.borrow_mut().push(Step::Key(key));
            let value = fields.next_value_seed(ValueSeed { strict: self.strict })?;
            let Some(Step::Key(key)) = path.borrow_mut().pop() else {
                unreachable!("each takes away what it put there")
            };
            match object.entry(key) {
                Entry::Vacant(entry) => entry.insert(value),
                Entry::Occupied(entry) => {
                    return Err(A::Error::custom(format!("the key `{}` occurs twice", entry.key())));
                }
            };
        }
        Ok(Value::Object(object))
    }
}

fn without_nul<E: serde::de::Error>(text: &str) -> Result<&str, E> {
    if text.contains('\0') { Err(E::custom("it holds the character U+0000, which cannot be stored")) } else { Ok(text) }
}

/// Appends `[index]` to a place.
pub(crate) fn push_index(place: &mut String, index: usize) {
    place.push_str(&format!("[{index}]"));
}

/// Appends `.key` to a place, or `["key"]` when the key is not a plain name.
pub(crate) fn push_key(place: &mut String, key: &str) {
    let plain =
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'$'));
    if plain {
        if !place.is_empty() {
            place.push('.');
        }
        place.push_str(key);
    } else {
        place.push_str(&format!("[{}]", Value::from(key)));
    }
}

#[cfg(test)]
mod tests;
