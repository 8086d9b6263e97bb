//! What an expression reads, and whether it makes sure first that it is there.

use alloc::{
    borrow::ToOwned,
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

use super::{
    Expr,
    ast::{Node, Root},
};

/// What an expression, or all expressions of a template, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Paths into the input, as far as they are constant: `input.items[0].id` is `["items"]`, `input` alone is `[]`.
    pub inputs: BTreeSet<Vec<String>>,
    /// Steps whose output is read or tested.
    pub steps: BTreeMap<String, Presence>,
    /// Whether `saga.failure` is read or tested.
    pub failure: bool,
    /// Whether `response` is read or tested.
    pub response: bool,
}

/// Whether an output is known to be there wherever the expression reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// Only tested, or read where a `has(steps.<id>.output)` in the expression holds.
    Guarded,
    /// Read without a test: evaluation fails if the step has no output.
    Assumed,
}

impl References {
    /// Adds what another expression reads.
    pub fn merge(&mut self, other: Self) {
        self.inputs.extend(other.inputs);
        for (step, presence) in other.steps {
            self.note(&step, presence);
        }
        self.failure |= other.failure;
        self.response |= other.response;
    }

    fn note(&mut self, step: &str, presence: Presence) {
        match self.steps.get_mut(step) {
            Some(noted) => *noted = (*noted).max(presence),
            None => {
                self.steps.insert(step.to_owned(), presence);
            }
        }
    }
}

impl Expr {
    /// The steps that certainly have an output when this condition is true.
    #[must_use]
    pub fn assures(&self) -> BTreeSet<String> {
        facts(&self.node, true).into_iter().map(ToOwned::to_owned).collect()
    }
}

pub(super) fn of(node: &Node) -> References {
    let mut references = References::default();
    visit(node, &BTreeSet::new(), &mut references);
    references
}

type Facts<'n> = BTreeSet<&'n str>;

fn visit<'n>(node: &'n Node, known: &Facts<'n>, found: &mut References) {
    match node {
        Node::Null
        | Node::Bool(_)
        | Node::Int(_)
        | Node::Uint(_)
        | Node::Double(_)
        | Node::Text(_)
        | Node::Local(_)
        | Node::Root(Root::Saga) => {}
        Node::Root(Root::Input) => {
            found.inputs.insert(Vec::new());
        }
        Node::Root(Root::Response) => found.response = true,
        Node::Output(step) if known.contains(step.as_str()) => found.note(step, Presence::Guarded),
        Node::Output(step) => found.note(step, Presence::Assumed),
        Node::HasOutput(step) => found.note(step, Presence::Guarded),
        Node::Field(operand, field) | Node::Has(operand, field) => {
            found.failure |= matches!(**operand, Node::Root(Root::Saga)) && field == "failure";
            match input_path(operand) {
                Some(mut path) => {
                    path.push(field.clone());
                    found.inputs.insert(path);
                }
                None => visit(operand, known, found),
            }
        }
        Node::Not(operand) | Node::Negate(operand) => visit(operand, known, found),
        Node::Index(operand, index) => {
            visit(operand, known, found);
            visit(index, known, found);
        }
        Node::And(left, right) => {
            visit(left, known, found);
            visit(right, &(known | &facts(left, true)), found);
        }
        Node::Or(left, right) => {
            visit(left, known, found);
            visit(right, &(known | &facts(left, false)), found);
        }
        Node::Conditional(parts) => {
            let [condition, yes, no] = &**parts;
            visit(condition, known, found);
            visit(yes, &(known | &facts(condition, true)), found);
            visit(no, &(known | &facts(condition, false)), found);
        }
        Node::Binary(_, operands) => operands.iter().for_each(|operand| visit(operand, known, found)),
        Node::List(items) | Node::Call(_, items) => items.iter().for_each(|item| visit(item, known, found)),
        Node::Map(entries) => {
            for (key, value) in entries {
                visit(key, known, found);
                visit(value, known, found);
            }
        }
        Node::Macro(call) => {
            visit(&call.range, known, found);
            call.filter.iter().chain([&call.body]).for_each(|part| visit(part, known, found));
        }
    }
}

/// The path of a chain of fields that begins at `input`.
fn input_path(node: &Node) -> Option<Vec<String>> {
    match node {
        Node::Root(Root::Input) => Some(Vec::new()),
        Node::Field(operand, field) => {
            let mut path = input_path(operand)?;
            path.push(field.clone());
            Some(path)
        }
        _ => None,
    }
}

/// The steps that have an output whenever the condition's value is `outcome`.
fn facts(condition: &Node, outcome: bool) -> Facts<'_> {
    match condition {
        Node::HasOutput(step) if outcome => Facts::from([step.as_str()]),
        Node::Not(operand) => facts(operand, !outcome),
        Node::And(left, right) if outcome => &facts(left, true) | &facts(right, true),
        Node::Or(left, right) if !outcome => &facts(left, false) | &facts(right, false),
        Node::And(left, right) | Node::Or(left, right) => &facts(left, outcome) & &facts(right, outcome),
        _ => Facts::new(),
    }
}
