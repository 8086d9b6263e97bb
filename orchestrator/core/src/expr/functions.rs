//! The functions and the arithmetic of expressions.

use alloc::{
    borrow::ToOwned,
    format,
    rc::Rc,
    string::{String, ToString},
};

use super::{
    ast::{Function, Operator},
    eval::{Evaluated, Evaluation},
    value::Val,
};

pub(super) fn call<'a>(function: Function, args: &[Val<'a>], evaluation: &Evaluation<'a>) -> Evaluated<'a> {
    match (function, args) {
        (Function::Size, [value]) => size(value, evaluation),
        (Function::Int, [value]) => to_int(value),
        (Function::Uint, [value]) => to_uint(value),
        (Function::Double, [value]) => to_double(value),
        (Function::String, [value]) => to_string(value),
        (Function::Contains | Function::StartsWith | Function::EndsWith, [text, part]) => {
            search(function, text, part, evaluation)
        }
        _ => Err("a function got the wrong number of arguments".to_owned()),
    }
}

/// Integer and floating arithmetic, never mixed; `None` when the types do not fit.
pub(super) fn arithmetic<'a>(operator: Operator, left: &Val<'a>, right: &Val<'a>) -> Option<Evaluated<'a>> {
    let failed = |by_zero: bool| {
        if by_zero { "division by zero".to_owned() } else { format!("`{}` overflows", operator.symbol()) }
    };
    match (left, right) {
        (Val::Int(a), Val::Int(b)) => {
            let result = match operator {
                Operator::Add => a.checked_add(*b),
                Operator::Subtract => a.checked_sub(*b),
                Operator::Multiply => a.checked_mul(*b),
                Operator::Divide => a.checked_div(*b),
                Operator::Modulo => a.checked_rem(*b),
                _ => return None,
            };
            let dividing = matches!(operator, Operator::Divide | Operator::Modulo);
            Some(result.map(Val::Int).ok_or_else(|| failed(dividing && *b == 0)))
        }
        (Val::Uint(a), Val::Uint(b)) => {
            let result = match operator {
                Operator::Add => a.checked_add(*b),
                Operator::Subtract => a.checked_sub(*b),
                Operator::Multiply => a.checked_mul(*b),
                Operator::Divide => a.checked_div(*b),
                Operator::Modulo => a.checked_rem(*b),
                _ => return None,
            };
            let dividing = matches!(operator, Operator::Divide | Operator::Modulo);
            Some(result.map(Val::Uint).ok_or_else(|| failed(dividing && *b == 0)))
        }
        (Val::Double(a), Val::Double(b)) => Some(Ok(Val::Double(match operator {
            Operator::Add => a + b,
            Operator::Subtract => a - b,
            Operator::Multiply => a * b,
            Operator::Divide => a / b,
            _ => return None,
        }))),
        _ => None,
    }
}

fn size<'a>(value: &Val<'a>, evaluation: &Evaluation<'a>) -> Evaluated<'a> {
    let size = match value.as_text() {
        Some(text) => {
            evaluation.pay(text.len() / 8)?;
            Some(text.chars().count())
        }
        None => value.len(),
    };
    let size = size.ok_or_else(|| format!("`size` does not take {}", value.type_name()))?;
    i64::try_from(size).map(Val::Int).map_err(|_| "`size` overflows".to_owned())
}

fn search<'a>(function: Function, text: &Val<'a>, part: &Val<'a>, evaluation: &Evaluation<'a>) -> Evaluated<'a> {
    let (Some(text), Some(part)) = (text.as_text(), part.as_text()) else {
        return Err(format!("this method takes strings, not {} and {}", text.type_name(), part.type_name()));
    };
    evaluation.pay((text.len() + part.len()) / 8)?;
    Ok(Val::Bool(match function {
        Function::Contains => text.contains(part),
        Function::StartsWith => text.starts_with(part),
        _ => text.ends_with(part),
    }))
}

fn to_int<'a>(value: &Val<'a>) -> Evaluated<'a> {
    let converted = match value {
        Val::Int(int) => Some(*int),
        Val::Uint(uint) => i64::try_from(*uint).ok(),
        // Both ends are powers of two, which a double holds exactly; the lower one is refused as in CEL's reference.
        Val::Double(double) => (*double > i64::MIN as f64 && *double < i64::MAX as f64).then_some(*double as i64),
        _ => text_of(value, "int")?.parse().ok(),
    };
    converted.map(Val::Int).ok_or_else(|| "`int` cannot hold this value".to_owned())
}

fn to_uint<'a>(value: &Val<'a>) -> Evaluated<'a> {
    let converted = match value {
        Val::Uint(uint) => Some(*uint),
        Val::Int(int) => u64::try_from(*int).ok(),
        Val::Double(double) => (*double >= 0.0 && *double < u64::MAX as f64).then_some(*double as u64),
        _ => text_of(value, "uint")?.parse().ok(),
    };
    converted.map(Val::Uint).ok_or_else(|| "`uint` cannot hold this value".to_owned())
}

fn to_double<'a>(value: &Val<'a>) -> Evaluated<'a> {
    Ok(Val::Double(match value {
        Val::Double(double) => *double,
        Val::Int(int) => *int as f64,
        Val::Uint(uint) => *uint as f64,
        _ => text_of(value, "double")?.parse().map_err(|_| "`double` cannot read this text".to_owned())?,
    }))
}

fn to_string<'a>(value: &Val<'a>) -> Evaluated<'a> {
    let text = match value {
        Val::Bool(is) => is.to_string(),
        Val::Int(int) => int.to_string(),
        Val::Uint(uint) => uint.to_string(),
        Val::Double(double) => double.to_string(),
        Val::Text(text) => return Ok(Val::Text(text)),
        Val::OwnText(text) => return Ok(Val::OwnText(Rc::clone(text))),
        other => return Err(format!("`string` does not take {}", other.type_name())),
    };
    Ok(Val::OwnText(text.into()))
}

fn text_of<'v>(value: &'v Val<'_>, function: &str) -> Result<&'v str, String> {
    value.as_text().ok_or_else(|| format!("`{function}` does not take {}", value.type_name()))
}
