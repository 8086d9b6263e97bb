//! Where an expression takes its values from, and what it does with them: whether a value only passes through, so that any
//! other could stand in its place, or is computed with.

use alloc::{string::String, vec::Vec};

use super::{
    Expr,
    ast::{Function, MacroKind, Node, Root},
};

/// One value that an expression reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub origin: Origin,
    /// Below its origin, as far as it is a chain of fields and items.
    pub path: Vec<Hop>,
    pub purpose: Purpose,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Saga,
    Input,
    /// The output of this step.
    Output(String),
    Response,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    Key(String),
    Item,
    /// A field or an item that is known only when the expression is evaluated.
    Unknown,
}

/// What a value is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To become the expression's value, or a part of it, as it is.
    Passed,
    /// To see whether it is there.
    Tested,
    /// For how many items it has, or to go through them.
    Walked,
    /// For anything that depends on what it is.
    Computed,
}

impl Expr {
    /// Every value that the expression reads.
    #[must_use]
    pub fn reads(&self) -> Vec<Read> {
        let mut flow = Flow::default();
        flow.visit(&self.node, Purpose::Passed);
        flow.reads
    }

    /// Whether the expression is nothing but a chain of fields and items: its value is what lies there.
    #[must_use]
    pub fn is_chain(&self) -> bool {
        Flow::default().chain(&self.node).is_some()
    }
}

type Chain = (Origin, Vec<Hop>);

#[derive(Default)]
struct Flow {
    /// What the variables of the macros around stand for; the innermost is last.
    locals: Vec<Option<Chain>>,
    reads: Vec<Read>,
}

impl Flow {
    fn visit(&mut self, node: &Node, purpose: Purpose) {
        if let Some((origin, path)) = self.chain(node) {
            self.reads.push(Read { origin, path, purpose });
            return self.visit_indices(node);
        }
        match node {
            Node::Null
            | Node::Bool(_)
            | Node::Int(_)
            | Node::Uint(_)
            | Node::Double(_)
            | Node::Text(_)
            | Node::Local(_)
            | Node::Root(_)
            | Node::Output(_)
            | Node::HasOutput(_) => {}
            Node::Has(operand, field) => match self.chain(operand) {
                Some((origin, mut path)) => {
                    path.push(Hop::Key(field.clone()));
                    self.reads.push(Read { origin, path, purpose: Purpose::Tested });
                    self.visit_indices(operand);
                }
                None => self.visit(operand, Purpose::Computed),
            },
            Node::Field(operand, _) | Node::Not(operand) | Node::Negate(operand) => {
                self.visit(operand, Purpose::Computed);
            }
            Node::Index(left, right) | Node::And(left, right) | Node::Or(left, right) => {
                self.visit(left, Purpose::Computed);
                self.visit(right, Purpose::Computed);
            }
            Node::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                self.visit(condition, Purpose::Computed);
                self.visit(yes, purpose);
                self.visit(no, purpose);
            }
            Node::Binary(_, operands) => operands.iter().for_each(|operand| self.visit(operand, Purpose::Computed)),
            Node::List(items) => items.iter().for_each(|item| self.visit(item, purpose)),
            Node::Map(entries) => {
                for (key, value) in entries {
                    self.visit(key, Purpose::Computed);
                    self.visit(value, purpose);
                }
            }
            Node::Call(Function::Size, operands) if operands.iter().all(|operand| self.chain(operand).is_some()) => {
                operands.iter().for_each(|operand| self.visit(operand, Purpose::Walked));
            }
            Node::Call(_, operands) => operands.iter().for_each(|operand| self.visit(operand, Purpose::Computed)),
            Node::Macro(call) => {
                let range = self.chain(&call.range);
                self.visit(&call.range, if range.is_some() { Purpose::Walked } else { Purpose::Computed });
                self.locals.push(range.map(|(origin, mut path)| {
                    path.push(Hop::Item);
                    (origin, path)
                }));
                call.filter.iter().for_each(|filter| self.visit(filter, Purpose::Computed));
                let body = if call.kind == MacroKind::Collect { purpose } else { Purpose::Computed };
                self.visit(&call.body, body);
                self.locals.pop();
            }
        }
    }

    /// What the indices of a chain read.
    fn visit_indices(&mut self, chain: &Node) {
        match chain {
            Node::Field(operand, _) => self.visit_indices(operand),
            Node::Index(operand, index) => {
                self.visit_indices(operand);
                self.visit(index, Purpose::Computed);
            }
            _ => {}
        }
    }

    fn chain(&self, node: &Node) -> Option<Chain> {
        match node {
            Node::Root(Root::Saga) => Some((Origin::Saga, Vec::new())),
            Node::Root(Root::Input) => Some((Origin::Input, Vec::new())),
            Node::Root(Root::Response) => Some((Origin::Response, Vec::new())),
            Node::Output(step) => Some((Origin::Output(step.clone()), Vec::new())),
            Node::Local(up) => self.locals.iter().rev().nth(*up)?.clone(),
            Node::Field(operand, field) => {
                let (origin, mut path) = self.chain(operand)?;
                path.push(Hop::Key(field.clone()));
                Some((origin, path))
            }
            Node::Index(operand, index) => {
                let (origin, mut path) = self.chain(operand)?;
                path.push(match &**index {
                    Node::Text(key) => Hop::Key(key.clone()),
                    Node::Int(_) | Node::Uint(_) => Hop::Item,
                    _ => Hop::Unknown,
                });
                Some((origin, path))
            }
            _ => None,
        }
    }
}
