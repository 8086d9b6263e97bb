//! A definition's expressions over what a saga knows: the same for who calls and for who acts on events.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use serde_json::{Value, json};
use uuid::fmt::Hyphenated;

use super::Target;
use crate::{
    definition::{Call, Step},
    expr::{ExprError, Failed, Saga, Scope, Template},
    state::{Failure, SagaState},
};

/// The request that a call makes.
pub fn render(state: &SagaState, call: &Call) -> Result<Target, ExprError> {
    with_scope(state, None, |scope| {
        Ok(Target {
            method: call.method,
            path: call.path.render_path(scope)?,
            headers: call
                .headers
                .iter()
                .map(|(name, value)| Ok((name.clone(), value.render_text(scope)?)))
                .collect::<Result<_, ExprError>>()?,
            body: call.body.as_ref().map(|body| body.render_json(scope)).transpose()?,
        })
    })
}

/// Evaluates a template, over `response` too where an answer is being read.
pub fn evaluate(state: &SagaState, template: &Template, response: Option<&Value>) -> Result<Value, ExprError> {
    with_scope(state, response, |scope| template.render(scope))
}

/// Whether the step is to be done at all.
pub fn condition_holds(state: &SagaState, step: &Step) -> Result<bool, ExprError> {
    let Some(condition) = &step.condition else { return Ok(true) };
    with_scope(state, None, |scope| condition.eval_bool(scope))
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

/// What a saga knows.
fn with_scope<T>(state: &SagaState, response: Option<&Value>, see: impl FnOnce(Scope<'_>) -> T) -> T {
    let mut id = [0; Hyphenated::LENGTH];
    let saga = Saga {
        id: state.id.write(&mut id),
        definition: &state.definition,
        version: state.definition_version,
        correlation_id: &state.correlation_id,
        failure: state.failure.as_ref().map(|Failure { step, code, reason }| Failed {
            step: step.as_deref(),
            code,
            reason,
        }),
    };
    let outputs: Vec<(&str, &Value)> =
        state.steps.iter().filter_map(|step| Some((&*step.id, &**step.output.as_ref()?))).collect();
    see(Scope { saga: &saga, input: &state.input, outputs: &outputs, response })
}
