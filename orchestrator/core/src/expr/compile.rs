//! From CEL text to [`Node`]: parsed by the `cel` crate, then every name, function and macro is resolved, so that what
//! compiles can only fail on the data.

use alloc::{
    borrow::ToOwned,
    boxed::Box,
    format,
    string::{String, ToString},
    vec::Vec,
};

use cel::{
    IdedExpr,
    common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, MapExpr, SelectExpr, operators},
    parser::PrattParser,
};

use super::{
    ast::{Function, Macro, MacroKind, Node, Operator, Root},
    lex,
};

/// Macros within the bodies of macros: two loops over the same list are quadratic, three are never needed.
const MACROS_DEEP_MAX: usize = 2;
/// The syntax tree is walked by recursion, whose stack this bounds.
const TREE_DEPTH_MAX: usize = 100;
const SAGA_FIELDS: [&str; 5] = ["id", "definition", "version", "correlation_id", "failure"];
const FAILURE_FIELDS: [&str; 3] = ["step", "code", "reason"];
const RESPONSE_FIELDS: [&str; 2] = ["status", "body"];

type Lowered = Result<Node, String>;

pub(super) fn compile(text: &str) -> Lowered {
    if text.is_empty() {
        return Err("an expression is empty".to_owned());
    }
    lex::check_size(text)?;
    let parsed = PrattParser::new().parse(text).map_err(|errors| {
        let first = errors.errors.first().map_or("it cannot be parsed", |error| error.msg.as_str());
        format!("it is not valid CEL: {}", first.lines().next().unwrap_or_default())
    })?;
    Scopes { locals: Vec::new(), depth: 0 }.lower(&parsed)
}

/// The variables of the enclosing macros, outermost first.
struct Scopes<'e> {
    locals: Vec<&'e str>,
    depth: usize,
}

impl<'e> Scopes<'e> {
    fn lower(&mut self, expr: &'e IdedExpr) -> Lowered {
        if self.depth == TREE_DEPTH_MAX {
            return Err("it chains more than 100 operators: group them with brackets".to_owned());
        }
        self.depth += 1;
        let lowered = self.lower_node(expr);
        self.depth -= 1;
        lowered
    }

    fn lower_node(&mut self, expr: &'e IdedExpr) -> Lowered {
        match &expr.expr {
            Expr::Literal(literal) => lower_literal(literal),
            Expr::Ident(name) => self.lower_name(name),
            Expr::Select(select) if select.test => self.lower_has(select),
            Expr::Select(select) => self.lower_member(&select.operand, &select.field),
            Expr::Comprehension(comprehension) => self.lower_macro(comprehension),
            Expr::Call(call) => self.lower_call(call),
            Expr::List(list) => Ok(Node::List(self.lower_all(&list.elements)?)),
            Expr::Map(map) => self.lower_map(map),
            Expr::Struct(message) => Err(format!("`{}{{..}}`: message types do not exist here", message.type_name)),
            Expr::Unspecified => Err("it is not valid CEL".to_owned()),
        }
    }

    fn lower_all(&mut self, exprs: &'e [IdedExpr]) -> Result<Vec<Node>, String> {
        exprs.iter().map(|expr| self.lower(expr)).collect()
    }

    fn lower_name(&self, name: &str) -> Lowered {
        if let Some(up) = self.locals.iter().rev().position(|local| *local == name) {
            return Ok(Node::Local(up));
        }
        match name {
            "input" => Ok(Node::Root(Root::Input)),
            "response" => Ok(Node::Root(Root::Response)),
            "saga" => Err("`saga` alone cannot be used: name a field, such as `saga.id`".to_owned()),
            "steps" => Err("`steps` alone cannot be used: write `steps.<id>.output`".to_owned()),
            _ => Err(format!("unknown name `{name}`: an expression sees saga, input, steps and response")),
        }
    }

    fn lower_member(&mut self, operand: &'e IdedExpr, field: &str) -> Lowered {
        if self.is_root(operand, "steps") {
            return Err(format!("`steps.{field}` cannot be used alone: write `steps.{field}.output`"));
        }
        if let Some(step) = self.step_of(operand) {
            return match field {
                "output" => Ok(Node::Output(step.to_owned())),
                _ => Err(format!("`steps.{step}.{field}`: only `steps.{step}.output` can be read")),
            };
        }
        self.check_field(operand, field)?;
        if self.is_root(operand, "saga") {
            return Ok(Node::Field(Box::new(Node::Root(Root::Saga)), field.to_owned()));
        }
        Ok(Node::Field(Box::new(self.lower(operand)?), field.to_owned()))
    }

    fn lower_has(&mut self, select: &'e SelectExpr) -> Lowered {
        let (operand, field) = (&*select.operand, select.field.as_str());
        if self.is_root(operand, "steps") {
            return Ok(Node::HasOutput(field.to_owned()));
        }
        if let Some(step) = self.step_of(operand) {
            return match field {
                "output" => Ok(Node::HasOutput(step.to_owned())),
                _ => Err(format!("`steps.{step}.{field}`: only `steps.{step}.output` exists")),
            };
        }
        self.check_field(operand, field)?;
        let operand = if self.is_root(operand, "saga") { Node::Root(Root::Saga) } else { self.lower(operand)? };
        Ok(Node::Has(Box::new(operand), field.to_owned()))
    }

    /// Refuses fields that never exist on `saga`, `saga.failure` and `response`.
    fn check_field(&self, operand: &IdedExpr, field: &str) -> Result<(), String> {
        let (owner, known): (_, &[&str]) = if self.is_root(operand, "saga") {
            ("saga", &SAGA_FIELDS)
        } else if self.is_root(operand, "response") {
            ("response", &RESPONSE_FIELDS)
        } else if as_member(operand).is_some_and(|(owner, field)| field == "failure" && self.is_root(owner, "saga")) {
            ("saga.failure", &FAILURE_FIELDS)
        } else {
            return Ok(());
        };
        if known.contains(&field) {
            return Ok(());
        }
        Err(format!("`{owner}.{field}` does not exist; `{owner}` has {}", known.join(", ")))
    }

    fn is_root(&self, expr: &IdedExpr, root: &str) -> bool {
        matches!(&expr.expr, Expr::Ident(name) if name == root)
    }

    /// The id, when the expression is `steps.<id>`.
    fn step_of<'s>(&self, expr: &'s IdedExpr) -> Option<&'s str> {
        as_member(expr).filter(|(operand, _)| self.is_root(operand, "steps")).map(|(_, id)| id)
    }

    fn lower_call(&mut self, call: &'e CallExpr) -> Lowered {
        if let Some(target) = &call.target {
            return self.lower_method(target, &call.func_name, &call.args);
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::INDEX, [operand, index]) => match string_literal(index) {
                Some(field) => self.lower_member(operand, field),
                None => Ok(Node::Index(Box::new(self.lower(operand)?), Box::new(self.lower(index)?))),
            },
            (operators::CONDITIONAL, [condition, yes, no]) => {
                Ok(Node::Conditional(Box::new([self.lower(condition)?, self.lower(yes)?, self.lower(no)?])))
            }
            (operators::LOGICAL_AND, [left, right]) => {
                Ok(Node::And(Box::new(self.lower(left)?), Box::new(self.lower(right)?)))
            }
            (operators::LOGICAL_OR, [left, right]) => {
                Ok(Node::Or(Box::new(self.lower(left)?), Box::new(self.lower(right)?)))
            }
            (operators::LOGICAL_NOT, [operand]) => Ok(Node::Not(Box::new(self.lower(operand)?))),
            (operators::NEGATE, [operand]) => Ok(Node::Negate(Box::new(self.lower(operand)?))),
            (operators::HAS, _) => Err("`has(..)` takes one field, such as `has(input.store_id)`".to_owned()),
            (name, [left, right]) if binary(name).is_some() => {
                let operator = binary(name).ok_or("an unknown operator")?;
                Ok(Node::Binary(operator, Box::new([self.lower(left)?, self.lower(right)?])))
            }
            (name, args) => match (function(name), args) {
                (Some(Function::Contains | Function::StartsWith | Function::EndsWith), _) => {
                    Err(format!("`{name}` is written as a method: `text.{name}(part)`"))
                }
                (Some(function), [_]) => Ok(Node::Call(function, self.lower_all(args)?)),
                (Some(_), _) => Err(format!("`{name}(..)` takes one argument")),
                (None, _) => Err(format!("unknown function `{name}`")),
            },
        }
    }

    fn lower_method(&mut self, target: &'e IdedExpr, name: &str, args: &'e [IdedExpr]) -> Lowered {
        if let operators::ALL | operators::EXISTS | operators::EXISTS_ONE | operators::MAP | operators::FILTER = name {
            return Err(format!(
                "`{name}` takes a variable and an expression, such as `list.{name}(item, item.price > 5)`"
            ));
        }
        match (function(name), args) {
            (Some(Function::Size), []) => Ok(Node::Call(Function::Size, Vec::from([self.lower(target)?]))),
            (Some(function @ (Function::Contains | Function::StartsWith | Function::EndsWith)), [part]) => {
                Ok(Node::Call(function, Vec::from([self.lower(target)?, self.lower(part)?])))
            }
            (Some(_), _) => Err(format!("`.{name}(..)` does not take these arguments")),
            (None, _) => Err(format!("unknown method `{name}`")),
        }
    }

    fn lower_macro(&mut self, macro_call: &'e ComprehensionExpr) -> Lowered {
        let Unfolded { kind, filter, body } = unfold(macro_call).ok_or("it is not valid CEL")?;
        let range = self.lower(&macro_call.iter_range)?;
        let variable = macro_call.iter_var.as_str();
        if ["saga", "input", "steps", "response"].contains(&variable) {
            return Err(format!("the variable of a macro cannot be called `{variable}`"));
        }
        if self.locals.len() == MACROS_DEEP_MAX {
            return Err("macros (all, exists, exists_one, map, filter) may be at most two deep".to_owned());
        }
        self.locals.push(variable);
        let filter = filter.map(|filter| self.lower(filter)).transpose();
        let body = self.lower(body);
        self.locals.pop();
        Ok(Node::Macro(Box::new(Macro { kind, range, filter: filter?, body: body? })))
    }

    fn lower_map(&mut self, map: &'e MapExpr) -> Lowered {
        let mut entries = Vec::with_capacity(map.entries.len());
        for entry in &map.entries {
            match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    if matches!(&entry.key.expr, Expr::Literal(literal) if !matches!(literal, LiteralValue::String(_)))
                    {
                        return Err("keys of a map must be strings, as JSON's are".to_owned());
                    }
                    entries.push((self.lower(&entry.key)?, self.lower(&entry.value)?));
                }
                EntryExpr::StructField(_) => return Err("it is not valid CEL".to_owned()),
            }
        }
        Ok(Node::Map(entries))
    }
}

/// A macro's parts, taken back out of the loop that the parser makes of it.
struct Unfolded<'e> {
    kind: MacroKind,
    filter: Option<&'e IdedExpr>,
    body: &'e IdedExpr,
}

/// Recognises the loops of the standard macros by their step. The accumulator's name cannot be written in CEL, so no
/// other expression looks like one.
fn unfold(macro_call: &ComprehensionExpr) -> Option<Unfolded<'_>> {
    let (name, args) = as_operator(&macro_call.loop_step)?;
    match (name, args) {
        (operators::LOGICAL_AND, [_, body]) => Some(Unfolded { kind: MacroKind::All, filter: None, body }),
        (operators::LOGICAL_OR, [_, body]) => Some(Unfolded { kind: MacroKind::Exists, filter: None, body }),
        (operators::ADD, [_, item]) => {
            Some(Unfolded { kind: MacroKind::Collect, filter: None, body: only_item(item)? })
        }
        (operators::CONDITIONAL, [condition, step, _]) => match as_operator(step)? {
            (operators::ADD, [_, added]) => Some(match only_item(added) {
                Some(body) => Unfolded { kind: MacroKind::Collect, filter: Some(condition), body },
                None => Unfolded { kind: MacroKind::ExistsOne, filter: None, body: condition },
            }),
            _ => None,
        },
        _ => None,
    }
}

fn as_operator(expr: &IdedExpr) -> Option<(&str, &[IdedExpr])> {
    match &expr.expr {
        Expr::Call(call) if call.target.is_none() => Some((&call.func_name, &call.args)),
        _ => None,
    }
}

fn only_item(expr: &IdedExpr) -> Option<&IdedExpr> {
    match &expr.expr {
        Expr::List(list) => list.elements.first(),
        _ => None,
    }
}

fn lower_literal(literal: &LiteralValue) -> Lowered {
    match literal {
        LiteralValue::Null => Ok(Node::Null),
        LiteralValue::Boolean(value) => Ok(Node::Bool(*value.inner())),
        LiteralValue::Int(value) => Ok(Node::Int(*value.inner())),
        LiteralValue::UInt(value) => Ok(Node::Uint(*value.inner())),
        LiteralValue::Double(value) => Ok(Node::Double(*value.inner())),
        LiteralValue::String(value) if value.inner().contains('\0') => {
            Err("a string cannot hold the character U+0000".to_owned())
        }
        LiteralValue::String(value) => Ok(Node::Text(value.inner().to_string())),
        LiteralValue::Bytes(_) => Err("bytes do not exist in JSON".to_owned()),
    }
}

/// `a.b` and `a['b']` as operand and field.
fn as_member(expr: &IdedExpr) -> Option<(&IdedExpr, &str)> {
    match &expr.expr {
        Expr::Select(select) => Some((&select.operand, &select.field)),
        Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
            [operand, index] => Some((operand, string_literal(index)?)),
            _ => None,
        },
        _ => None,
    }
}

fn string_literal(expr: &IdedExpr) -> Option<&str> {
    match &expr.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

fn binary(name: &str) -> Option<Operator> {
    Some(match name {
        operators::ADD => Operator::Add,
        operators::SUBSTRACT => Operator::Subtract,
        operators::MULTIPLY => Operator::Multiply,
        operators::DIVIDE => Operator::Divide,
        operators::MODULO => Operator::Modulo,
        operators::EQUALS => Operator::Equal,
        operators::NOT_EQUALS => Operator::NotEqual,
        operators::LESS => Operator::Less,
        operators::LESS_EQUALS => Operator::LessOrEqual,
        operators::GREATER => Operator::Greater,
        operators::GREATER_EQUALS => Operator::GreaterOrEqual,
        operators::IN => Operator::In,
        _ => return None,
    })
}

fn function(name: &str) -> Option<Function> {
    Some(match name {
        "size" => Function::Size,
        "contains" => Function::Contains,
        "startsWith" => Function::StartsWith,
        "endsWith" => Function::EndsWith,
        "int" => Function::Int,
        "uint" => Function::Uint,
        "double" => Function::Double,
        "string" => Function::String,
        _ => return None,
    })
}
