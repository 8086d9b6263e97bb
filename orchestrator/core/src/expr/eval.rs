//! Runs a [`Node`] on a [`Scope`]. Every node, item and written byte is paid from one purse of work, so that neither time
//! nor memory can run away whatever the input.

use alloc::{borrow::ToOwned, collections::BTreeMap, format, rc::Rc, string::String, vec::Vec};
use core::{
    cell::{Cell, RefCell},
    cmp::Ordering,
};

use serde_json::Value;

use super::{
    ExprError, Scope, WORK_MAX,
    ast::{Macro, MacroKind, Node, Operator, Root},
    functions,
    value::Val,
};

pub(super) type Evaluated<'a> = Result<Val<'a>, String>;

/// One rendering: the data it sees and the work it has left.
pub(super) struct Evaluation<'a> {
    scope: Scope<'a>,
    work_left: Cell<u64>,
    /// Why its result cannot be written, once that is so.
    pub(super) failed: RefCell<Option<ExprError>>,
}

/// The variable of a macro, innermost first.
struct Frame<'f, 'a> {
    value: Val<'a>,
    outer: Locals<'f, 'a>,
}

type Locals<'f, 'a> = Option<&'f Frame<'f, 'a>>;

impl<'a> Evaluation<'a> {
    pub(super) const fn new(scope: Scope<'a>) -> Self {
        Self { scope, work_left: Cell::new(WORK_MAX), failed: RefCell::new(None) }
    }

    pub(super) fn run(&self, node: &'a Node) -> Evaluated<'a> {
        self.eval(node, None)
    }

    /// Pays for work.
    pub(super) fn pay(&self, units: usize) -> Result<(), String> {
        match self.work_left.get().checked_sub(units as u64) {
            Some(left) => {
                self.work_left.set(left);
                Ok(())
            }
            None => Err("it takes too much work: its lists or texts are too large".to_owned()),
        }
    }

    fn eval(&self, node: &'a Node, locals: Locals<'_, 'a>) -> Evaluated<'a> {
        self.pay(1)?;
        match node {
            Node::Null => Ok(Val::Null),
            Node::Bool(is) => Ok(Val::Bool(*is)),
            Node::Int(int) => Ok(Val::Int(*int)),
            Node::Uint(uint) => Ok(Val::Uint(*uint)),
            Node::Double(double) => Ok(Val::Double(*double)),
            Node::Text(text) => Ok(Val::Text(text)),
            Node::Root(Root::Saga) => Ok(Val::Saga(self.scope.saga)),
            Node::Root(Root::Input) => Ok(Val::from(self.scope.input)),
            Node::Root(Root::Response) => {
                self.scope.response.map(Val::from).ok_or_else(|| "there is no `response` here".to_owned())
            }
            Node::Output(step) => {
                self.output(step).map(Val::from).ok_or_else(|| format!("step `{step}` has no output"))
            }
            Node::HasOutput(step) => Ok(Val::Bool(self.output(step).is_some())),
            Node::Local(up) => local(locals, *up),
            Node::Field(operand, name) => field(&self.eval(operand, locals)?, name),
            Node::Has(operand, name) => has(&self.eval(operand, locals)?, name),
            Node::Index(operand, index) => index_into(&self.eval(operand, locals)?, &self.eval(index, locals)?),
            Node::List(items) => {
                let items: Result<Vec<_>, _> = items.iter().map(|item| self.eval(item, locals)).collect();
                Ok(Val::OwnList(items?.into()))
            }
            Node::Map(entries) => self.map(entries, locals),
            Node::Not(operand) => Ok(Val::Bool(!self.eval_bool(operand, locals, "!")?)),
            Node::Negate(operand) => negate(&self.eval(operand, locals)?),
            Node::And(left, right) => self.decide(left, right, locals, Connective::And),
            Node::Or(left, right) => self.decide(left, right, locals, Connective::Or),
            Node::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                self.eval(if self.eval_bool(condition, locals, "?:")? { yes } else { no }, locals)
            }
            Node::Binary(operator, operands) => {
                let [left, right] = &**operands;
                let (left, right) = (self.eval(left, locals)?, self.eval(right, locals)?);
                self.binary(*operator, &left, &right)
            }
            Node::Call(function, args) => {
                let args: Result<Vec<_>, _> = args.iter().map(|arg| self.eval(arg, locals)).collect();
                functions::call(*function, &args?, self)
            }
            Node::Macro(call) => self.run_macro(call, locals),
        }
    }

    fn output(&self, step: &str) -> Option<&'a Value> {
        self.scope.outputs.iter().find(|(id, _)| *id == step).map(|(_, output)| *output)
    }

    fn eval_bool(&self, node: &'a Node, locals: Locals<'_, 'a>, operator: &str) -> Result<bool, String> {
        match self.eval(node, locals)? {
            Val::Bool(is) => Ok(is),
            other => Err(format!("`{operator}` takes a bool, not {}", other.type_name())),
        }
    }

    /// `&&` and `||`: CEL lets either side decide, so that an error on one side is overruled by the other.
    fn decide(&self, left: &'a Node, right: &'a Node, locals: Locals<'_, 'a>, connective: Connective) -> Evaluated<'a> {
        let first = self.eval_bool(left, locals, connective.symbol());
        if first == Ok(connective.decisive()) {
            return first.map(Val::Bool);
        }
        let second = self.eval_bool(right, locals, connective.symbol());
        if second == Ok(connective.decisive()) {
            return second.map(Val::Bool);
        }
        first.and(second).map(Val::Bool)
    }

    fn map(&self, entries: &'a [(Node, Node)], locals: Locals<'_, 'a>) -> Evaluated<'a> {
        let mut fields = BTreeMap::new();
        for (key, value) in entries {
            let key: Rc<str> = match self.eval(key, locals)? {
                Val::OwnText(text) => text,
                other => match other.as_text() {
                    Some(text) => self.pay(text.len() / 8).map(|()| text.into())?,
                    None => return Err(format!("keys of a map must be strings, not {}", other.type_name())),
                },
            };
            if fields.contains_key(&key) {
                return Err(format!("a map has the key `{key}` twice"));
            }
            fields.insert(key, self.eval(value, locals)?);
        }
        Ok(Val::OwnObject(Rc::new(fields)))
    }

    fn run_macro(&self, call: &'a Macro, locals: Locals<'_, 'a>) -> Evaluated<'a> {
        let range = self.eval(&call.range, locals)?;
        let keys = match &range {
            list if list.is_list() => None,
            object if object.is_object() => Some(object.keys()),
            other => return Err(format!("a macro takes a list or an object, not {}", other.type_name())),
        };
        let mut fold = Fold { collected: Vec::new(), matches: 0, pending: None };
        for index in 0..range.len().unwrap_or(0) {
            self.pay(1)?;
            let item = match &keys {
                Some(keys) => keys.get(index).cloned(),
                None => range.item(index),
            };
            let frame = Frame { value: item.unwrap_or(Val::Null), outer: locals };
            if let Some(filter) = &call.filter
                && !self.eval_bool(filter, Some(&frame), "filter")?
            {
                continue;
            }
            let body = self.eval(&call.body, Some(&frame));
            if let Some(decided) = fold.step(call.kind, body)? {
                return Ok(Val::Bool(decided));
            }
        }
        fold.finish(call.kind)
    }

    fn binary(&self, operator: Operator, left: &Val<'a>, right: &Val<'a>) -> Evaluated<'a> {
        let mismatch =
            || format!("`{}` does not take {} and {}", operator.symbol(), left.type_name(), right.type_name());
        let ordered = |accept: fn(Ordering) -> bool| {
            self.compare(left, right)?.map(|order| Val::Bool(accept(order))).ok_or_else(mismatch)
        };
        match operator {
            Operator::Equal => self.equal(left, right).map(Val::Bool),
            Operator::NotEqual => self.equal(left, right).map(|equal| Val::Bool(!equal)),
            Operator::Less => ordered(Ordering::is_lt),
            Operator::LessOrEqual => ordered(Ordering::is_le),
            Operator::Greater => ordered(Ordering::is_gt),
            Operator::GreaterOrEqual => ordered(Ordering::is_ge),
            Operator::In => self.contains(right, left)?.map(Val::Bool).ok_or_else(mismatch),
            Operator::Add => match self.concatenate(left, right)? {
                Some(joined) => Ok(joined),
                None => functions::arithmetic(operator, left, right).ok_or_else(mismatch)?,
            },
            Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Modulo => {
                functions::arithmetic(operator, left, right).ok_or_else(mismatch)?
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Connective {
    And,
    Or,
}

impl Connective {
    const fn symbol(self) -> &'static str {
        match self {
            Self::And => "&&",
            Self::Or => "||",
        }
    }

    /// The operand that decides the result whatever the other side is.
    const fn decisive(self) -> bool {
        matches!(self, Self::Or)
    }
}

/// What a macro has gathered so far.
struct Fold<'a> {
    collected: Vec<Val<'a>>,
    matches: usize,
    /// An error that a later item may still overrule, as with `&&` and `||`.
    pending: Option<String>,
}

impl<'a> Fold<'a> {
    /// Takes one item's result; `Some` ends the macro.
    fn step(&mut self, kind: MacroKind, body: Evaluated<'a>) -> Result<Option<bool>, String> {
        let decisive = match kind {
            MacroKind::Collect => {
                self.collected.push(body?);
                return Ok(None);
            }
            MacroKind::ExistsOne => {
                match body? {
                    Val::Bool(is) => self.matches += usize::from(is),
                    other => return Err(not_a_condition(&other)),
                }
                return Ok(None);
            }
            MacroKind::All => false,
            MacroKind::Exists => true,
        };
        match body {
            Ok(Val::Bool(is)) if is == decisive => return Ok(Some(decisive)),
            Ok(Val::Bool(_)) => {}
            Ok(other) => self.pending = Some(not_a_condition(&other)),
            Err(reason) => self.pending = Some(reason),
        }
        Ok(None)
    }

    fn finish(self, kind: MacroKind) -> Evaluated<'a> {
        if let Some(reason) = self.pending {
            return Err(reason);
        }
        Ok(match kind {
            MacroKind::Collect => Val::OwnList(self.collected.into()),
            MacroKind::ExistsOne => Val::Bool(self.matches == 1),
            MacroKind::All => Val::Bool(true),
            MacroKind::Exists => Val::Bool(false),
        })
    }
}

fn not_a_condition(value: &Val<'_>) -> String {
    format!("the condition of a macro must be a bool, not {}", value.type_name())
}

fn local<'a>(locals: Locals<'_, 'a>, up: usize) -> Evaluated<'a> {
    let mut frame = locals;
    for _ in 0..up {
        frame = frame.and_then(|frame| frame.outer);
    }
    frame.map(|frame| frame.value.clone()).ok_or_else(|| "a macro's variable is not bound".to_owned())
}

fn field<'a>(operand: &Val<'a>, name: &str) -> Evaluated<'a> {
    if !operand.is_object() {
        return Err(format!("`.{name}` needs an object, and this is {}", operand.type_name()));
    }
    operand.field(name).ok_or_else(|| format!("there is no `{name}`"))
}

fn has<'a>(operand: &Val<'a>, name: &str) -> Evaluated<'a> {
    if !operand.is_object() {
        return Err(format!("`has(.. .{name})` needs an object, and this is {}", operand.type_name()));
    }
    Ok(Val::Bool(operand.field(name).is_some()))
}

fn index_into<'a>(operand: &Val<'a>, index: &Val<'a>) -> Evaluated<'a> {
    if let Some(name) = index.as_text() {
        return field(operand, name);
    }
    if !operand.is_list() {
        return Err(format!("{} cannot be indexed with {}", operand.type_name(), index.type_name()));
    }
    let position = match index {
        Val::Int(int) => usize::try_from(*int).ok(),
        Val::Uint(uint) => usize::try_from(*uint).ok(),
        Val::Double(double) if *double >= 0.0 && *double == (*double as u64) as f64 => {
            usize::try_from(*double as u64).ok()
        }
        Val::Double(_) => None,
        other => return Err(format!("a list cannot be indexed with {}", other.type_name())),
    };
    position
        .and_then(|position| operand.item(position))
        .ok_or_else(|| "an index is out of the list's bounds".to_owned())
}

fn negate<'a>(operand: &Val<'a>) -> Evaluated<'a> {
    match operand {
        Val::Int(int) => int.checked_neg().map(Val::Int).ok_or_else(|| "`-` overflows".to_owned()),
        Val::Double(double) => Ok(Val::Double(-double)),
        other => Err(format!("`-` does not take {}", other.type_name())),
    }
}
