//! From values back to JSON.

use alloc::{borrow::ToOwned, format, string::String};

use serde_json::{Map, Number, Value};

use super::{eval::Evaluation, value::Val};
use crate::json::DEPTH_MAX;

impl Evaluation<'_> {
    /// Copies a value out as JSON that lies `depth` levels down in its document.
    pub(super) fn to_json(&self, value: &Val<'_>, depth: usize) -> Result<Value, String> {
        self.pay(1)?;
        if depth >= DEPTH_MAX && value.len().is_some() {
            return Err(format!("the result nests deeper than {DEPTH_MAX} levels"));
        }
        Ok(match value {
            Val::Null => Value::Null,
            Val::Bool(is) => Value::Bool(*is),
            Val::Int(int) => Value::from(*int),
            Val::Uint(uint) => Value::from(*uint),
            Val::Double(double) => Value::Number(Number::from_f64(*double).ok_or("the result is not a finite number")?),
            Val::Text(text) => self.own(text)?,
            Val::OwnText(text) => self.own(text)?,
            Val::List(items) => self.array(items.iter().map(Val::from), depth)?,
            Val::OwnList(items) => self.array(items.iter().cloned(), depth)?,
            Val::Object(fields) => {
                let fields = fields.iter().map(|(key, value)| (key.as_str(), Val::from(value)));
                self.object(fields, depth)?
            }
            Val::OwnObject(fields) => self.object(fields.iter().map(|(key, value)| (&**key, value.clone())), depth)?,
        })
    }

    fn own(&self, text: &str) -> Result<Value, String> {
        self.pay(text.len() / 8)?;
        Ok(Value::String(text.to_owned()))
    }

    fn array<'v>(&self, items: impl Iterator<Item = Val<'v>>, depth: usize) -> Result<Value, String> {
        items.map(|item| self.to_json(&item, depth + 1)).collect::<Result<_, _>>().map(Value::Array)
    }

    fn object<'v>(&self, fields: impl Iterator<Item = (&'v str, Val<'v>)>, depth: usize) -> Result<Value, String> {
        let mut object = Map::new();
        for (key, value) in fields {
            self.pay(key.len() / 8)?;
            object.insert(key.to_owned(), self.to_json(&value, depth + 1)?);
        }
        Ok(Value::Object(object))
    }
}
