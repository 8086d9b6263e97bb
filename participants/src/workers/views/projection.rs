//! What a projection is: a fold of each stream, and the changes that it makes to the rows.
//!
//! Rows have a key, e.g. a customer, and under it an item, e.g. an order; the key's *summary* is the row without an item.
//! Streams lie in different shards, whose events come in no particular order. So that this does not matter, a fold knows
//! its own stream only, no two streams have a row in common, and what they do have in common, the summaries, they change
//! by adding to its numbers.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value};
use skald_kit::events::Event;

/// A read model. Its functions are pure.
pub(super) trait Projection: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;

    /// Of the streams that it is made of.
    fn category(&self) -> &'static str;

    /// The name of a key's list of items; None: a key has a summary only.
    fn items(&self) -> Option<&'static str>;

    /// The summary of a key under which there is nothing, if it is a key all the same.
    fn nothing_under(&self, _key: &str) -> Option<Value> {
        None
    }

    /// Takes in the next event of a stream. `state` is what the fold last gave back for this stream, None at first; it
    /// gives None back once no later event can matter. An event that is not of the expected form changes nothing.
    fn fold(&self, state: Option<Value>, event: &Event, changes: &mut Changes) -> Option<Value>;
}

/// Key and item; the item of a summary is empty.
pub(super) type RowKey = (String, String);

/// What a page of events does to the rows.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// None: the row goes.
    rows: BTreeMap<RowKey, Option<Value>>,
    summaries: BTreeMap<String, Summary>,
}

/// What is done to a summary that several streams share.
#[derive(Debug, Default)]
pub(super) struct Summary {
    labels: BTreeMap<&'static str, Value>,
    /// By the field and the field within it, if it has such.
    sums: BTreeMap<(&'static str, Option<String>), i64>,
}

impl Changes {
    pub(super) fn put(&mut self, key: &str, item: &str, value: Value) {
        self.rows.insert((key.to_owned(), item.to_owned()), Some(value));
    }

    pub(super) fn remove(&mut self, key: &str, item: &str) {
        self.rows.insert((key.to_owned(), item.to_owned()), None);
    }

    /// Adds to a number of the key's summary. A summary whose numbers are all 0 goes.
    pub(super) fn add(&mut self, key: &str, field: &'static str, number: i64) {
        *self.summary(key).sums.entry((field, None)).or_default() += number;
    }

    /// Adds to a number within a field of the key's summary.
    pub(super) fn add_within(&mut self, key: &str, field: &'static str, within: &str, number: i64) {
        *self.summary(key).sums.entry((field, Some(within.to_owned()))).or_default() += number;
    }

    /// Says what is the same for all streams that share the summary.
    pub(super) fn label(&mut self, key: &str, field: &'static str, value: impl Into<Value>) {
        self.summary(key).labels.insert(field, value.into());
    }

    fn summary(&mut self, key: &str) -> &mut Summary {
        self.summaries.entry(key.to_owned()).or_default()
    }

    /// The keys whose summaries must be known to make the changes.
    pub(super) fn summaries(&self) -> Vec<String> {
        self.summaries.keys().cloned().collect()
    }

    /// The rows to write, given the summaries as they are.
    pub(super) fn into_rows(self, mut known: BTreeMap<String, Value>) -> BTreeMap<RowKey, Option<Value>> {
        let mut rows = self.rows;
        for (key, summary) in self.summaries {
            let before = known.remove(&key).unwrap_or_default();
            rows.insert((key, String::new()), summary.applied(before));
        }
        rows
    }
}

impl Summary {
    fn applied(self, before: Value) -> Option<Value> {
        let Value::Object(mut fields) = (if before.is_object() { before } else { Value::Object(Map::new()) }) else {
            unreachable!("just made an object")
        };
        for (field, value) in self.labels {
            fields.insert(field.to_owned(), value);
        }
        for ((field, within), number) in self.sums {
            match within {
                None => add(&mut fields, field, number),
                Some(within) => {
                    let inner = fields.entry(field).or_insert_with(|| Value::Object(Map::new()));
                    if let Value::Object(inner) = inner {
                        add(inner, &within, number);
                        inner.retain(|_, number| *number != 0);
                    }
                }
            }
        }
        let some = fields.values().any(|value| match value {
            Value::Number(_) => *value != 0,
            Value::Object(inner) => !inner.is_empty(),
            _ => false,
        });
        some.then_some(Value::Object(fields))
    }
}

fn add(fields: &mut Map<String, Value>, field: &str, number: i64) {
    let before = fields.get(field).and_then(Value::as_i64).unwrap_or(0);
    fields.insert(field.to_owned(), before.saturating_add(number).into());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sums_are_added_and_a_summary_of_zeros_goes() {
        let change = |number: i64| {
            let mut changes = Changes::default();
            changes.add("k", "count", number);
            changes.add_within("k", "by", "x", number);
            changes.label("k", "name", "K");
            changes
        };
        let key = ("k".to_owned(), String::new());
        let first = change(2).into_rows(BTreeMap::new()).remove(&key).unwrap().unwrap();
        assert_eq!(first, json!({"name": "K", "count": 2, "by": {"x": 2}}));
        let known = BTreeMap::from([("k".to_owned(), first)]);
        assert_eq!(change(-2).into_rows(known.clone()).remove(&key), Some(None));
        let more = change(3).into_rows(known).remove(&key).unwrap().unwrap();
        assert_eq!((&more["count"], &more["by"]["x"]), (&json!(5), &json!(5)));
    }
}
