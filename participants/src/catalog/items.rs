//! The items of an order.

use serde::{Deserialize, Serialize};
use skald_kit::Rejection;

use crate::{body::Id, codes};

const ITEMS_MAX: usize = 200;
const QUANTITY_MAX: i64 = 1_000_000;

/// An item as it is ordered.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    pub(crate) product_id: Id,
    pub(crate) quantity: i64,
}

/// An item with the price at which it was reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Priced {
    pub(crate) product_id: String,
    pub(crate) quantity: i64,
    pub(crate) unit_price: i64,
}

/// Checks the items, adds up those of the same product, and sorts them by product: the order in
/// which their rows are locked, the same for every order, so that two orders can't deadlock.
///
/// # Errors
/// None or too many items, or a quantity out of range.
pub(crate) fn merge(wanted: &[Wanted]) -> Result<Vec<Wanted>, Rejection> {
    let invalid = |reason: String, field: String| {
        Rejection::new(codes::INVALID_ITEMS, format!("{field}: {reason}")).with("field", field)
    };
    if wanted.is_empty() || wanted.len() > ITEMS_MAX {
        return Err(invalid(format!("an order has 1 to {ITEMS_MAX} items"), "items".to_owned()));
    }
    let mut merged: Vec<Wanted> = Vec::with_capacity(wanted.len());
    for (index, item) in wanted.iter().enumerate() {
        let field = format!("items[{index}].quantity");
        if !(1..=QUANTITY_MAX).contains(&item.quantity) {
            return Err(invalid(format!("{} is not within 1..={QUANTITY_MAX}", item.quantity), field));
        }
        match merged.iter_mut().find(|other| other.product_id == item.product_id) {
            None => merged.push(item.clone()),
            Some(same) => {
                same.quantity += item.quantity;
                if same.quantity > QUANTITY_MAX {
                    let reason = format!("together more than {QUANTITY_MAX} of {}", item.product_id);
                    return Err(invalid(reason, field));
                }
            }
        }
    }
    merged.sort_by(|a, b| a.product_id.cmp(&b.product_id));
    Ok(merged)
}

/// What the items cost.
///
/// # Errors
/// More than can be counted.
pub(crate) fn total(items: &[Priced]) -> Result<i64, Rejection> {
    items
        .iter()
        .try_fold(0_i64, |sum, item| sum.checked_add(item.unit_price.checked_mul(item.quantity)?))
        .ok_or_else(|| Rejection::new(codes::INVALID_ITEMS, "the total is more than can be counted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(items: &[(&str, i64)]) -> Vec<Wanted> {
        let item = |(product, quantity): &(&str, i64)| Wanted {
            product_id: Id::try_from((*product).to_owned()).unwrap(),
            quantity: *quantity,
        };
        items.iter().map(item).collect()
    }

    #[test]
    fn items_of_the_same_product_add_up_in_product_order() {
        let merged = merge(&wanted(&[("p-2", 1), ("p-1", 2), ("p-2", 3)])).unwrap();
        let merged: Vec<_> = merged.iter().map(|item| (item.product_id.as_str(), item.quantity)).collect();
        assert_eq!(merged, [("p-1", 2), ("p-2", 4)]);
    }

    #[test]
    fn quantities_out_of_range_are_refused() {
        for items in [&[][..], &[("p", 0)], &[("p", -1)], &[("p", QUANTITY_MAX + 1)], &[("p", QUANTITY_MAX), ("p", 1)]]
        {
            assert!(merge(&wanted(items)).is_err(), "{items:?}");
        }
    }

    #[test]
    fn a_total_beyond_counting_is_refused() {
        let item = |unit_price| Priced { product_id: "p".to_owned(), quantity: 2, unit_price };
        assert_eq!(total(&[item(3), item(4)]).unwrap(), 14);
        assert!(total(&[item(i64::MAX / 2), item(i64::MAX / 2)]).is_err());
        assert!(total(&[item(i64::MAX)]).is_err());
    }
}
