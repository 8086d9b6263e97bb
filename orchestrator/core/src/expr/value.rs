//! Values while an expression runs: the saga's JSON borrowed, computed values shared. A clone never copies data.

use alloc::{collections::BTreeMap, rc::Rc, vec::Vec};
use core::cmp::Ordering;

use serde_json::{Map, Value};

use super::{Failed, Saga};

#[derive(Clone, Debug)]
pub(super) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(&'a str),
    OwnText(Rc<str>),
    List(&'a [Value]),
    OwnList(Rc<[Val<'a>]>),
    Object(&'a Map<alloc::string::String, Value>),
    Saga(&'a Saga<'a>),
    OwnObject(Rc<BTreeMap<Rc<str>, Val<'a>>>),
}

impl<'a> From<&'a Value> for Val<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(is) => Self::Bool(*is),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(int), _) => Self::Int(int),
                (None, Some(uint)) => Self::Uint(uint),
                (None, None) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Self::Text(text),
            Value::Array(items) => Self::List(items),
            Value::Object(fields) => Self::Object(fields),
        }
    }
}

impl<'a> Val<'a> {
    pub(super) const fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an int",
            Self::Uint(_) => "a uint",
            Self::Double(_) => "a double",
            Self::Text(_) | Self::OwnText(_) => "a string",
            Self::List(_) | Self::OwnList(_) => "a list",
            Self::Object(_) | Self::Saga(_) | Self::OwnObject(_) => "an object",
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::OwnText(text) => Some(text),
            _ => None,
        }
    }

    /// The number of items of a list or fields of an object.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Self::List(items) => Some(items.len()),
            Self::OwnList(items) => Some(items.len()),
            Self::Object(fields) => Some(fields.len()),
            Self::Saga(saga) => Some(saga.fields().count()),
            Self::OwnObject(fields) => Some(fields.len()),
            _ => None,
        }
    }

    /// The item of a list; `None` for what is not a list, too.
    pub(super) fn item(&self, index: usize) -> Option<Val<'a>> {
        match self {
            Self::List(items) => items.get(index).map(Val::from),
            Self::OwnList(items) => items.get(index).cloned(),
            _ => None,
        }
    }

    /// The field of an object; `None` for what is not an object, too.
    pub(super) fn field(&self, name: &str) -> Option<Val<'a>> {
        match self {
            Self::Object(fields) => fields.get(name).map(Val::from),
            Self::Saga(saga) => saga.field(name),
            Self::OwnObject(fields) => fields.get(name).cloned(),
            _ => None,
        }
    }

    pub(super) const fn is_list(&self) -> bool {
        matches!(self, Self::List(_) | Self::OwnList(_))
    }

    pub(super) const fn is_object(&self) -> bool {
        matches!(self, Self::Object(_) | Self::Saga(_) | Self::OwnObject(_))
    }

    /// The keys of an object, sorted, so that a macro sees them in the same order on every run.
    pub(super) fn keys(&self) -> Vec<Val<'a>> {
        match self {
            Self::Object(fields) => {
                let mut keys: Vec<&'a str> = fields.keys().map(|key| key.as_str()).collect();
                keys.sort_unstable();
                keys.into_iter().map(Val::Text).collect()
            }
            Self::Saga(saga) => saga.fields().map(|(key, _)| Val::Text(key)).collect(),
            Self::OwnObject(fields) => fields.keys().cloned().map(Val::OwnText).collect(),
            _ => Vec::new(),
        }
    }
}

impl<'a> Saga<'a> {
    fn field(&self, name: &str) -> Option<Val<'a>> {
        match name {
            "correlation_id" => Some(Val::Text(self.correlation_id)),
            "definition" => Some(Val::Text(self.definition)),
            "failure" => self.failure.map(Val::from),
            "id" => Some(Val::Text(self.id)),
            "version" => Some(Val::Int(self.version.into())),
            _ => None,
        }
    }

    /// Sorted.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'static str, Val<'a>)> + Clone {
        let names = ["correlation_id", "definition", "failure", "id", "version"];
        names.into_iter().filter_map(|name| Some((name, self.field(name)?)))
    }
}

impl<'a> From<Failed<'a>> for Val<'a> {
    fn from(Failed { step, code, reason }: Failed<'a>) -> Self {
        let fields =
            [("step", step.map_or(Val::Null, Val::Text)), ("code", Val::Text(code)), ("reason", Val::Text(reason))];
        Self::OwnObject(Rc::new(fields.into_iter().map(|(name, value)| (Rc::from(name), value)).collect()))
    }
}

/// The order of two numbers of any of the three types, exact also where a double cannot hold the integer. `None` when
/// either is not a number, or is NaN.
pub(super) fn compare_numbers(left: &Val<'_>, right: &Val<'_>) -> Option<Ordering> {
    let whole = |value: &Val<'_>| match value {
        Val::Int(int) => Some(i128::from(*int)),
        Val::Uint(uint) => Some(i128::from(*uint)),
        _ => None,
    };
    match (left, right) {
        (Val::Double(left), Val::Double(right)) => left.partial_cmp(right),
        (Val::Double(left), right) => compare_double(*left, whole(right)?),
        (left, Val::Double(right)) => compare_double(*right, whole(left)?).map(Ordering::reverse),
        (left, right) => Some(whole(left)?.cmp(&whole(right)?)),
    }
}

fn compare_double(double: f64, whole: i128) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // The cast saturates, and truncates toward zero; both keep the order except for the fraction.
    let truncated = double as i128;
    let fraction = double - truncated as f64;
    Some(truncated.cmp(&whole).then(if fraction > 0.0 {
        Ordering::Greater
    } else if fraction < 0.0 {
        Ordering::Less
    } else {
        Ordering::Equal
    }))
}
