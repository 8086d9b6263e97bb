//! A definition's expressions over what a saga knows: the same for who calls and for who acts on events.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use serde_json::{Value, json};

use super::Target;
use crate::{
    definition::{Call, Step},
    expr::{ExprError, Scope, Template},
    state::SagaState,
};

/// The request that a call makes.
pub fn render(state: &SagaState, call: &Call) -> Result<Target, ExprError> {
    let saga = saga_value(state);
    let outputs = outputs(state);
    let scope = Scope { saga: &saga, input: &state.input, outputs: &outputs, response: None };
    Ok(Target {
        method: call.method,
        path: call.path.render_path(scope)?,
        headers: call
            .headers
            .iter()
            .map(|(name, value)| Ok((name.clone(), value.render_text(scope)?)))
            .collect::<Result<_, ExprError>>()?,
        body: call.body.as_ref().map(|body| body.render(scope).map(|body| body.to_string())).transpose()?,
    })
}

/// Evaluates a template, over `response` too where an answer is being read.
pub fn evaluate(state: &SagaState, template: &Template, response: Option<&Value>) -> Result<Value, ExprError> {
    let saga = saga_value(state);
    let outputs = outputs(state);
    template.render(Scope { saga: &saga, input: &state.input, outputs: &outputs, response })
}

/// Whether the step is to be done at all.
pub fn condition_holds(state: &SagaState, step: &Step) -> Result<bool, ExprError> {
    let Some(condition) = &step.condition else { return Ok(true) };
    let saga = saga_value(state);
    let outputs = outputs(state);
    condition.eval_bool(Scope { saga: &saga, input: &state.input, outputs: &outputs, response: None })
}

/// The step's output, from the answer to its action.
pub fn output_of(state: &SagaState, step: &Step, body: Value, http_status: Option<u16>) -> Result<Value, String> {
    match &step.output {
        None => Ok(body),
        Some(template) => {
            let response = json!({ "status": http_status, "body": body });
            evaluate(state, template, Some(&response)).map_err(|error| error.to_string())
        }
    }
}

fn saga_value(state: &SagaState) -> Value {
    let mut saga = json!({
        "id": state.id,
        "definition": &*state.definition,
        "version": state.definition_version,
        "correlation_id": &*state.correlation_id,
    });
    if let Some(failure) = &state.failure {
        saga["failure"] = json!({ "step": failure.step, "code": failure.code, "reason": failure.reason });
    }
    saga
}

fn outputs(state: &SagaState) -> Vec<(&str, &Value)> {
    state.steps.iter().filter_map(|step| Some((&*step.id, &**step.output.as_ref()?))).collect()
}
