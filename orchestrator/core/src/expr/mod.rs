//! Expressions and templates: CEL inside `${...}`.
//!
//! The language is [CEL](https://cel.dev); the `cel` crate parses it, and a small evaluator here runs it directly on
//! JSON, borrowed, without converting the saga's data first. The evaluator is our own because a saga's decisions must be
//! the same on every replay and must never take the process down: the crate's iterates maps in random order, formats
//! whole values into its errors and bounds neither time nor memory. The property test in `tests/against_cel.rs` holds both to the same answers.
//!
//! What an expression may use:
//!
//! - `saga`, `input`, `steps.<id>.output` and, where an answer is read, `response`; nothing else, never a clock;
//! - the operators of CEL, `has`, the macros `all`, `exists`, `exists_one`, `map` and `filter`, the functions `size`,
//!   `contains`, `startsWith`, `endsWith`, `int`, `uint`, `double` and `string`;
//! - at most [`CHARS_MAX`] characters, 24 levels of brackets, and macros at most two deep (a macro in a macro's body).
//!   One rendering may do [`WORK_MAX`] units of work (a node evaluated, or eight bytes written); more is an error.
//!
//! Differences to standard CEL: `has(steps.x)` and `has(steps.x.output)` both say whether step `x` has an output; keys
//! of map literals are strings; macros over an object see its keys in sorted order; no bytes, types, regular
//! expressions or comments.
//!
//! Integers stay integers: JSON integers are `int`, those beyond 64-bit signed are `uint`, numbers with a fraction or an
//! exponent are `double`. A missing key, an overflow, a non-finite number are errors, never null.

mod ast;
mod compile;
mod eval;
mod flow;
mod functions;
mod lex;
mod output;
mod references;
mod relate;
mod template;
#[cfg(test)]
mod tests;
mod value;

use alloc::{borrow::ToOwned, format, string::String};

use serde_json::Value;

use self::{ast::Node, eval::Evaluation};
pub use self::{
    flow::{Hop, Origin, Purpose, Read},
    references::{Presence, References},
    template::{Placed, Template, TemplateProblem},
};

/// The longest expression, in characters.
pub const CHARS_MAX: usize = 4096;

/// The work that one evaluation, or one rendering of a template, may do.
pub const WORK_MAX: u64 = 2_000_000;

/// A compiled expression.
#[derive(Debug)]
pub struct Expr {
    source: String,
    node: Node,
}

/// What an expression can see.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    pub saga: &'a Saga<'a>,
    pub input: &'a Value,
    /// `steps.<id>.output`, of the steps that have one.
    pub outputs: &'a [(&'a str, &'a Value)],
    /// `response`: `status` and `body`; only where an answer is being read.
    pub response: Option<&'a Value>,
}

/// What an expression finds under `saga`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Saga<'a> {
    pub id: &'a str,
    pub definition: &'a str,
    pub version: u32,
    pub correlation_id: &'a str,
    /// Once it failed.
    pub failure: Option<Failed<'a>>,
}

/// What an expression finds under `saga.failure`.
#[derive(Clone, Copy, Debug)]
pub struct Failed<'a> {
    pub step: Option<&'a str>,
    pub code: &'a str,
    pub reason: &'a str,
}

/// Why an expression does not compile, or did not evaluate. Holds no data of the saga beyond names of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{expression}`: {reason}")]
pub struct ExprError {
    /// The expression's text, shortened if long.
    pub expression: String,
    pub reason: String,
}

impl ExprError {
    pub(crate) fn new(expression: &str, reason: impl Into<String>) -> Self {
        const SHOWN_MAX: usize = 200;
        let expression = match expression.char_indices().nth(SHOWN_MAX) {
            Some((cut, _)) => format!("{}…", &expression[..cut]),
            None => expression.to_owned(),
        };
        Self { expression, reason: reason.into() }
    }
}

impl Expr {
    /// Compiles the text between `${` and `}`.
    ///
    /// # Errors
    ///
    /// A syntax error, an unknown name or function, or a limit of this module exceeded.
    pub fn compile(text: &str) -> Result<Self, ExprError> {
        let source = text.trim();
        let node = compile::compile(source).map_err(|reason| ExprError::new(source, reason))?;
        Ok(Self { source: source.to_owned(), node })
    }

    /// Compiles a condition, which may be written bare or as `${...}`.
    ///
    /// # Errors
    ///
    /// As [`Expr::compile`].
    pub fn compile_condition(text: &str) -> Result<Self, ExprError> {
        let trimmed = text.trim();
        match trimmed.strip_prefix("${") {
            Some(rest) => match lex::closing_brace(rest) {
                Ok(end) if end + 1 == rest.len() => Self::compile(&rest[..end]),
                Ok(_) => Err(ExprError::new(trimmed, "a condition is one expression: nothing may follow its `}`")),
                Err(reason) => Err(ExprError::new(trimmed, reason)),
            },
            None => Self::compile(trimmed),
        }
    }

    /// The expression's text, without `${` and `}`.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Evaluates to JSON.
    ///
    /// # Errors
    ///
    /// When a key is missing, types do not fit, a number overflows or is not finite, the result would nest deeper than
    /// [`crate::json::DEPTH_MAX`], or the evaluation exceeds [`WORK_MAX`].
    pub fn eval(&self, scope: Scope<'_>) -> Result<Value, ExprError> {
        Evaluation::new(scope).json(self)
    }

    /// Evaluates a condition.
    ///
    /// # Errors
    ///
    /// As [`Expr::eval`], and when the result is not a bool.
    pub fn eval_bool(&self, scope: Scope<'_>) -> Result<bool, ExprError> {
        let result = Evaluation::new(scope).run(&self.node).and_then(|value| match value {
            value::Val::Bool(is) => Ok(is),
            other => Err(format!("a condition must be true or false, and this is {}", other.type_name())),
        });
        result.map_err(|reason| ExprError::new(&self.source, reason))
    }

    /// What the expression reads.
    #[must_use]
    pub fn references(&self) -> References {
        references::of(&self.node)
    }
}
