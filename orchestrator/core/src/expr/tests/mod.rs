//! What expressions and templates do, by example and against the `cel` crate's own evaluator.

mod against_cel;
mod examples;
mod limits;

use alloc::{
    string::{String, ToString},
    vec,
    vec::Vec,
};

use serde_json::{Value, json};

use super::*;

/// A saga to evaluate on.
struct World {
    saga: Value,
    input: Value,
    outputs: Vec<(String, Value)>,
    response: Option<Value>,
}

impl World {
    fn new() -> Self {
        Self {
            saga: json!({"id": "s-1", "definition": "d", "version": 3, "correlation_id": "c",
                "failure": {"step": "pay", "code": "declined", "reason": "no money"}}),
            input: json!({
                "n": 7, "zero": 0, "neg": -3, "big": i64::MAX, "min": i64::MIN, "uint": u64::MAX, "f": 1.5, "whole": 2.0,
                "s": "abc", "uni": "žluť", "empty": "", "yes": true, "no": false, "nil": null,
                "list": [3, 1, 2], "mixed": [1, "a", null, 2.5], "none": [],
                "items": [{"id": "p-1", "qty": 2}, {"id": "p-2", "qty": 5}],
                "obj": {"b": 1, "a": {"c": "deep"}, "x y": "blank"},
            }),
            outputs: vec![("one".to_string(), json!({"total": 42, "ref": "r/1"})), ("two".to_string(), Value::Null)],
            response: Some(json!({"status": 200, "body": {"total": 5}})),
        }
    }

    fn with<T>(&self, see: impl FnOnce(Scope<'_>) -> T) -> T {
        let outputs: Vec<(&str, &Value)> = self.outputs.iter().map(|(id, output)| (id.as_str(), output)).collect();
        let text = |name: &str| self.saga[name].as_str().unwrap_or_default();
        let of_failure = |name: &str| self.saga["failure"][name].as_str().unwrap_or_default();
        let saga = Saga {
            id: text("id"),
            definition: text("definition"),
            version: self.saga["version"].as_u64().and_then(|version| version.try_into().ok()).unwrap_or_default(),
            correlation_id: text("correlation_id"),
            failure: Some(Failed {
                step: Some(of_failure("step")),
                code: of_failure("code"),
                reason: of_failure("reason"),
            }),
        };
        see(Scope { saga: &saga, input: &self.input, outputs: &outputs, response: self.response.as_ref() })
    }

    fn eval(&self, text: &str) -> Result<Value, String> {
        let expr = Expr::compile(text).map_err(|error| format!("compile: {}", error.reason))?;
        self.with(|scope| expr.eval(scope)).map_err(|error| error.reason)
    }

    fn render(&self, template: Value) -> Result<Value, String> {
        let template = Template::compile(&template).map_err(|problems| problems[0].error.reason.clone())?;
        let rendered = self.with(|scope| template.render(scope));
        let text = self.with(|scope| template.render_json(scope));
        assert_eq!(text, rendered.clone().map(|value| value.to_string()), "the text is the value's");
        rendered.map_err(|error| error.reason)
    }

    fn path(&self, text: &str) -> Result<String, String> {
        let template = Template::compile(&text.into()).map_err(|problems| problems[0].error.reason.clone())?;
        self.with(|scope| template.render_path(scope)).map_err(|error| error.reason)
    }

    fn header(&self, text: &str) -> Result<String, String> {
        let template = Template::compile(&text.into()).map_err(|problems| problems[0].error.reason.clone())?;
        self.with(|scope| template.render_text(scope)).map_err(|error| error.reason)
    }
}
