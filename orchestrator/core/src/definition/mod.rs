//! What a saga is: its steps, their calls, what undoes them, and the rules between them.
//!
//! A [`Definition`] that exists is valid: [`Definition::parse`] is the only way to make one. It reads YAML or JSON,
//! reports every problem with its place, and compiles schema and expressions once.

mod ahead;
mod check;
mod choreographable;
mod document;
mod lines;
mod order;
mod parse;
mod personal;
mod read;
mod reader;
mod references;
mod schema;
#[cfg(test)]
mod tests;

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    sync::Arc,
    vec::Vec,
};
use core::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::{
    parse::{Problem, Problems},
    personal::{NoSubject, Personal},
    schema::{FORMAT_SCHEMA, InputSchema},
};
use crate::{
    classify::Class,
    expr::{Expr, Template},
    retry::RetryPolicy,
    time::Millis,
};

/// A checked, immutable version of a saga's description.
#[derive(Debug)]
pub struct Definition {
    pub name: String,
    pub version: u32,
    /// SHA-256, in hex, of the document in canonical form (sorted keys): equal content, equal hash.
    pub hash: String,
    /// The document as registered, as JSON.
    pub document: Arc<Value>,
    pub description: Option<String>,
    pub input: InputSchema,
    /// From the start of a saga until it must be past its pivot or completed.
    pub deadline: Option<Millis>,
    pub states: SagaStates,
    /// In a topological order that keeps the written order where it can: a step's needs come before it.
    pub steps: Vec<Step>,
    pub output: Option<Template>,
    pub emits: SagaEmits,
    /// What of it is a person's.
    pub personal: Option<Personal>,
}

/// One action and what undoes it. Other steps are named by their index in [`Definition::steps`].
#[derive(Debug)]
pub struct Step {
    pub id: String,
    pub needs: Vec<usize>,
    /// The steps that need this one.
    pub dependents: Vec<usize>,
    pub states: StepStates,
    /// `if`: the step is skipped when this is false.
    pub condition: Option<Expr>,
    pub call: Call,
    /// False for `effect: none`: there is nothing to undo.
    pub has_effect: bool,
    /// From the answer (`response.body`, `response.status`) to the step's output; without it the body is the output.
    pub output: Option<Template>,
    /// Whether some expression, other than this step's own compensation, fails if this step ends without an output.
    pub output_is_referenced: bool,
    pub compensation: Option<Compensation>,
    /// A read-only call that says what became of the action.
    pub status_call: Option<StatusCall>,
    pub kind: StepKind,
    /// Steps that must have succeeded, durably, before this one can be announced ahead of the others that it needs; None
    /// when it is only ever announced by its own intent.
    pub ahead_after: Option<Vec<usize>>,
    pub timeout: Millis,
    /// From the first intent until the step must have an outcome, over all attempts.
    pub deadline: Option<Millis>,
    pub retry: RetryPolicy,
    /// How often a 202 is polled when its answer does not say.
    pub poll: Millis,
    /// Answers whose meaning the definition changes, by HTTP status.
    pub classify: BTreeMap<u16, Class>,
    pub emits: StepEmits,
}

/// Where a step stands to the point of no return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Upstream of the pivot, or in a definition without one.
    Compensable,
    /// The point of no return.
    Pivot,
    /// Downstream of the pivot: retried, then parked, never refused.
    Retriable,
}

#[derive(Debug)]
pub struct Compensation {
    pub call: Call,
    pub timeout: Millis,
    pub retry: RetryPolicy,
    pub poll: Millis,
}

#[derive(Debug)]
pub struct StatusCall {
    pub call: Call,
    pub timeout: Millis,
}

/// A request to a participant. The service is a name from the server's configuration, never a URL.
#[derive(Debug)]
pub struct Call {
    pub service: String,
    pub method: Method,
    /// Each expression's value is percent-encoded into its place.
    pub path: Template,
    /// Further request headers; the contract's own cannot be set.
    pub headers: BTreeMap<String, Template>,
    pub body: Option<Template>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names of the machine's states at saga level; the defaults are the status in capitals (`COMPLETED`), for `completed` the
/// `done` that the last written step names, if it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaStates {
    pub pending: String,
    pub completed: String,
    pub compensating: String,
    pub compensated: String,
    pub parked: String,
}

/// Names of the machine's states per step; the defaults derive from the step's id (`RESERVE_STOCK_DOING`, `_DONE`,
/// `_FAILED`, `_UNDOING`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepStates {
    pub doing: String,
    pub done: String,
    pub failed: String,
    pub undoing: String,
}

/// Domain names of the saga's own events; an event without one is named by its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SagaEmits {
    pub started: Option<String>,
    pub completed: Option<String>,
    pub failed: Option<String>,
    pub compensated: Option<String>,
    pub abandoned: Option<String>,
    pub parked: Option<String>,
}

/// Domain names of a step's events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepEmits {
    pub started: Option<String>,
    pub succeeded: Option<String>,
    pub rejected: Option<String>,
    pub unknown: Option<String>,
    pub skipped: Option<String>,
    pub compensating: Option<String>,
    pub compensated: Option<String>,
}

impl Definition {
    /// The step with this id and its index.
    #[must_use]
    pub fn step(&self, id: &str) -> Option<(usize, &Step)> {
        self.steps.iter().enumerate().find(|(_, step)| step.id == id)
    }

    /// The steps that need this one, directly or through others.
    #[must_use]
    pub fn downstream(&self, index: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open = self.steps[index].dependents.clone();
        while let Some(next) = open.pop() {
            if found.insert(next) {
                open.extend(&self.steps[next].dependents);
            }
        }
        found
    }
}
