//! Comparing, searching and joining values.

use alloc::{string::String, vec::Vec};
use core::cmp::Ordering;

use super::{
    eval::Evaluation,
    value::{Val, compare_numbers},
};

impl<'a> Evaluation<'a> {
    pub(super) fn concatenate(&self, left: &Val<'a>, right: &Val<'a>) -> Result<Option<Val<'a>>, String> {
        if let (Some(left), Some(right)) = (left.as_text(), right.as_text()) {
            self.pay((left.len() + right.len()) / 8)?;
            return Ok(Some(Val::OwnText([left, right].concat().into())));
        }
        if !(left.is_list() && right.is_list()) {
            return Ok(None);
        }
        let sizes = [left.len().unwrap_or(0), right.len().unwrap_or(0)];
        self.pay(sizes[0] + sizes[1])?;
        let of = |list: &Val<'a>, size: usize| (0..size).filter_map(|index| list.item(index)).collect::<Vec<_>>();
        let mut items = of(left, sizes[0]);
        items.extend(of(right, sizes[1]));
        Ok(Some(Val::OwnList(items.into())))
    }

    pub(super) fn compare(&self, left: &Val<'a>, right: &Val<'a>) -> Result<Option<Ordering>, String> {
        if let (Some(left), Some(right)) = (left.as_text(), right.as_text()) {
            self.pay(left.len().min(right.len()) / 8)?;
            return Ok(Some(left.cmp(right)));
        }
        Ok(match (left, right) {
            (Val::Bool(left), Val::Bool(right)) => Some(left.cmp(right)),
            _ => compare_numbers(left, right),
        })
    }

    pub(super) fn equal(&self, left: &Val<'a>, right: &Val<'a>) -> Result<bool, String> {
        self.pay(1)?;
        if let (Some(left), Some(right)) = (left.as_text(), right.as_text()) {
            self.pay(left.len().min(right.len()) / 8)?;
            return Ok(left == right);
        }
        match (left, right) {
            (Val::Null, Val::Null) => return Ok(true),
            (Val::Bool(left), Val::Bool(right)) => return Ok(left == right),
            _ if left.len() != right.len() => return Ok(false),
            _ => {}
        }
        if left.is_list() && right.is_list() {
            for index in 0..left.len().unwrap_or(0) {
                match (left.item(index), right.item(index)) {
                    (Some(left), Some(right)) if self.equal(&left, &right)? => {}
                    _ => return Ok(false),
                }
            }
            return Ok(true);
        }
        if left.is_object() && right.is_object() {
            self.pay(left.len().unwrap_or(0))?;
            for key in left.keys() {
                let name = key.as_text().unwrap_or_default();
                match (left.field(name), right.field(name)) {
                    (Some(left), Some(right)) if self.equal(&left, &right)? => {}
                    _ => return Ok(false),
                }
            }
            return Ok(true);
        }
        Ok(compare_numbers(left, right) == Some(Ordering::Equal))
    }

    /// `item in container`; `None` when the types do not fit.
    pub(super) fn contains(&self, container: &Val<'a>, item: &Val<'a>) -> Result<Option<bool>, String> {
        if container.is_object() {
            return Ok(match item {
                Val::Bool(_) | Val::Int(_) | Val::Uint(_) | Val::Double(_) => Some(false),
                _ => item.as_text().map(|key| container.field(key).is_some()),
            });
        }
        if !container.is_list() {
            return Ok(None);
        }
        for index in 0..container.len().unwrap_or(0) {
            if let Some(candidate) = container.item(index)
                && self.equal(item, &candidate)?
            {
                return Ok(Some(true));
            }
        }
        Ok(Some(false))
    }
}
