//! From values back to JSON: to a value, or straight to its text.
//!
//! What is written is serialized piece by piece, so that a text is made without a value of it. A serializer's errors are
//! its own: why one was stopped lies in [`Evaluation::failed`] meanwhile.

use alloc::{
    format,
    string::{String, ToString},
};

use serde::ser::{Error, Serialize, Serializer};
use serde_json::Value;

use super::{Expr, ExprError, eval::Evaluation, value::Val};
use crate::json::DEPTH_MAX;

/// What an expression came to, where it is to stand: `depth` levels down in its document.
pub(super) struct Written<'e, 'a> {
    pub evaluation: &'e Evaluation<'a>,
    pub expr: &'a Expr,
    pub value: Val<'a>,
    pub depth: usize,
}

impl<'a> Evaluation<'a> {
    pub(super) fn value_of(&self, expr: &'a Expr) -> Result<Val<'a>, ExprError> {
        self.run(&expr.node).map_err(|reason| ExprError::new(expr.source(), reason))
    }

    /// What an expression comes to, as JSON.
    pub(super) fn json(&self, expr: &'a Expr) -> Result<Value, ExprError> {
        let value = self.value_of(expr)?;
        self.finish(serde_json::to_value(Written { evaluation: self, expr, value, depth: 0 }))
    }

    /// Stops a serializer.
    pub(super) fn fail<E: Error>(&self, error: ExprError) -> E {
        let stopped = E::custom(&error.reason);
        self.failed.replace(Some(error));
        stopped
    }

    /// Says why a serializer stopped, if one did.
    pub(super) fn finish<T>(&self, written: serde_json::Result<T>) -> Result<T, ExprError> {
        written.map_err(|error| self.failed.take().unwrap_or_else(|| ExprError::new("", error.to_string())))
    }
}

impl<'e, 'a> Written<'e, 'a> {
    fn below(&self, value: Val<'a>) -> Written<'e, 'a> {
        Written { evaluation: self.evaluation, expr: self.expr, value, depth: self.depth + 1 }
    }

    fn or_fail<T, E: Error>(&self, result: Result<T, String>) -> Result<T, E> {
        result.map_err(|reason| self.evaluation.fail(ExprError::new(self.expr.source(), reason)))
    }

    fn pay<E: Error>(&self, units: usize) -> Result<(), E> {
        self.or_fail(self.evaluation.pay(units))
    }

    fn text<S: Serializer>(&self, text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        self.pay(text.len() / 8)?;
        serializer.serialize_str(text)
    }

    fn object<'v, S: Serializer>(
        &self,
        fields: impl Iterator<Item = (&'v str, Val<'a>)> + Clone,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        self.pay(fields.clone().map(|(key, _)| key.len() / 8).sum())?;
        serializer.collect_map(fields.map(|(key, value)| (key, self.below(value))))
    }
}

impl Serialize for Written<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.pay(1)?;
        if self.depth >= DEPTH_MAX && self.value.len().is_some() {
            return self.or_fail(Err(format!("the result nests deeper than {DEPTH_MAX} levels")));
        }
        match &self.value {
            Val::Null => serializer.serialize_unit(),
            Val::Bool(is) => serializer.serialize_bool(*is),
            Val::Int(int) => serializer.serialize_i64(*int),
            Val::Uint(uint) => serializer.serialize_u64(*uint),
            Val::Double(double) if !double.is_finite() => {
                self.or_fail(Err("the result is not a finite number".to_string()))
            }
            Val::Double(double) => serializer.serialize_f64(*double),
            Val::Text(text) => self.text(text, serializer),
            Val::OwnText(text) => self.text(text, serializer),
            Val::List(items) => serializer.collect_seq(items.iter().map(|item| self.below(Val::from(item)))),
            Val::OwnList(items) => serializer.collect_seq(items.iter().map(|item| self.below(item.clone()))),
            Val::Object(fields) => {
                self.object(fields.iter().map(|(key, value)| (key.as_str(), Val::from(value))), serializer)
            }
            Val::Saga(saga) => self.object(saga.fields(), serializer),
            Val::OwnObject(fields) => {
                self.object(fields.iter().map(|(key, value)| (&**key, value.clone())), serializer)
            }
        }
    }
}
