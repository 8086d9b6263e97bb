//! Reading single values out of the document, each with its place.

use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
    vec::Vec,
};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::parse::Problem;
use crate::{
    json::{push_index, push_key},
    time::Millis,
};

/// A value of the document and its place.
pub(super) struct Cursor<'d> {
    pub(super) place: String,
    pub(super) value: &'d Value,
}

impl<'d> Cursor<'d> {
    pub(super) fn get(&self, key: &str) -> Option<Cursor<'d>> {
        let value = self.value.get(key)?;
        Some(Cursor { place: self.below(key), value })
    }

    pub(super) fn below(&self, key: &str) -> String {
        let mut place = self.place.clone();
        push_key(&mut place, key);
        place
    }

    pub(super) fn items(&self) -> Vec<Cursor<'d>> {
        let items = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
        let at = |(index, value)| {
            let mut place = self.place.clone();
            push_index(&mut place, index);
            Cursor { place, value }
        };
        items.iter().enumerate().map(at).collect()
    }

    pub(super) fn fields(&self) -> Vec<(&'d str, Cursor<'d>)> {
        let at = |(key, value): (&'d String, &'d Value)| (key.as_str(), Cursor { place: self.below(key), value });
        self.value.as_object().map(|fields| fields.iter().map(at).collect()).unwrap_or_default()
    }
}

/// Collects problems while values are read; what cannot be read becomes `None` or a placeholder.
pub(super) struct Reader<'p> {
    pub(super) problems: &'p mut Vec<Problem>,
}

impl Reader<'_> {
    pub(super) fn report(&mut self, place: String, reason: impl Into<String>) {
        self.problems.push(Problem::new(place, reason.into()));
    }

    /// Tells that a value cannot be used, unless the format's schema has told so already.
    pub(super) fn unreadable(&mut self, place: String, reason: impl Into<String>) {
        let told = |problem: &Problem| {
            problem
                .place
                .strip_prefix(place.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if !self.problems.iter().any(told) {
            self.report(place, reason);
        }
    }

    pub(super) fn text(&mut self, cursor: &Cursor<'_>) -> Option<String> {
        let text = cursor.value.as_str().map(ToOwned::to_owned);
        if text.is_none() {
            self.unreadable(cursor.place.clone(), "must be a string");
        }
        text
    }

    pub(super) fn required_text(&mut self, parent: &Cursor<'_>, key: &str) -> String {
        match parent.get(key) {
            Some(cursor) => self.text(&cursor).unwrap_or_default(),
            None => {
                self.unreadable(parent.below(key), "is required, and missing");
                String::new()
            }
        }
    }

    pub(super) fn flag(&mut self, cursor: Option<Cursor<'_>>) -> bool {
        let Some(cursor) = cursor else { return false };
        match cursor.value {
            Value::Bool(is) => *is,
            _ => {
                self.unreadable(cursor.place, "must be true or false");
                false
            }
        }
    }

    pub(super) fn typed<T: DeserializeOwned>(&mut self, cursor: Option<Cursor<'_>>) -> Option<T> {
        let cursor = cursor?;
        match serde_json::from_value(cursor.value.clone()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.unreadable(cursor.place, error.to_string());
                None
            }
        }
    }

    pub(super) fn version(&mut self, root: &Cursor<'_>) -> u32 {
        // A float such as 1.0 is an integer to JSON Schema, but not here.
        match root.get("version").map(|version| version.value.as_u64()) {
            Some(Some(version)) if (1..=i32::MAX as u64).contains(&version) => version as u32,
            _ => {
                self.unreadable(root.below("version"), "must be a whole number from 1 to 2147483647");
                0
            }
        }
    }

    /// A duration, zero included.
    pub(super) fn wait(&mut self, cursor: Option<Cursor<'_>>) -> Option<Millis> {
        let cursor = cursor?;
        match cursor.value.as_str().unwrap_or_default().parse() {
            Ok(span) => Some(span),
            Err(error) => {
                self.unreadable(cursor.place, ToString::to_string(&error));
                None
            }
        }
    }

    /// A duration above zero.
    pub(super) fn span(&mut self, cursor: Option<Cursor<'_>>) -> Option<Millis> {
        let place = cursor.as_ref().map(|cursor| cursor.place.clone()).unwrap_or_default();
        let span = self.wait(cursor)?;
        if span == Millis(0) {
            self.report(place, "must be longer than zero");
        }
        Some(span)
    }
}
