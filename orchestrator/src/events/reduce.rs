//! The state of a stream that is no saga, rebuilt from its events.
//!
//! | category | state |
//! | --- | --- |
//! | `cart` | what is in the cart, see [`Cart`] |
//! | any other | the events' data, merged field by field: later ones win, `null` removes |

use serde_json::{Map, Value, json};

use crate::storage::log::category;

/// What has come of a stream so far.
#[derive(Debug)]
pub enum Reduced {
    Cart(Cart),
    Merged(Map<String, Value>),
}

impl Reduced {
    /// The state before the first event of the stream.
    #[must_use]
    pub fn of(stream: &str) -> Self {
        match category(stream) {
            "cart" => Self::Cart(Cart::default()),
            _ => Self::Merged(Map::new()),
        }
    }

    pub fn apply(&mut self, type_name: &str, data: Value) {
        match self {
            Self::Cart(cart) => cart.apply(type_name, &data),
            Self::Merged(merged) => {
                let Value::Object(fields) = data else { return };
                for (name, value) in fields {
                    match value {
                        Value::Null => merged.remove(&name),
                        value => merged.insert(name, value),
                    };
                }
            }
        }
    }

    #[must_use]
    pub fn into_value(self) -> Value {
        match self {
            Self::Cart(cart) => cart.into_value(),
            Self::Merged(merged) => Value::Object(merged),
        }
    }
}

/// A cart by its events. Types and fields it does not know change nothing.
///
/// | type | data | does |
/// | --- | --- | --- |
/// | `CartItemAdded` | `product_id`, `quantity` (1 if left out) | adds so many |
/// | `CartItemRemoved` | `product_id`, `quantity` (all if left out) | takes so many out |
/// | `CartCleared` | | takes everything out |
/// | `CartCheckedOut` | | closes the cart; what comes after changes nothing |
/// | any of these | `customer_id`, `store_id` | whose cart it is, and where |
#[derive(Debug, Default)]
pub struct Cart {
    customer_id: Option<Value>,
    store_id: Option<Value>,
    /// In the order in which they were first added.
    items: Vec<(String, u64)>,
    checked_out: bool,
}

impl Cart {
    fn apply(&mut self, type_name: &str, data: &Value) {
        const TYPES: [&str; 4] = ["CartItemAdded", "CartItemRemoved", "CartCleared", "CartCheckedOut"];
        if self.checked_out || !TYPES.contains(&type_name) {
            return;
        }
        for (field, place) in [("customer_id", &mut self.customer_id), ("store_id", &mut self.store_id)] {
            if let Some(value) = data.get(field) {
                *place = Some(value.clone());
            }
        }
        let product = data["product_id"].as_str();
        let quantity = data["quantity"].as_u64();
        match (type_name, product) {
            ("CartItemAdded", Some(product)) => self.add(product, quantity.unwrap_or(1)),
            ("CartItemRemoved", Some(product)) => self.remove(product, quantity.unwrap_or(u64::MAX)),
            ("CartCleared", _) => self.items.clear(),
            ("CartCheckedOut", _) => self.checked_out = true,
            _ => {}
        }
    }

    fn add(&mut self, product: &str, quantity: u64) {
        match self.items.iter_mut().find(|(id, _)| id == product) {
            Some((_, there)) => *there = there.saturating_add(quantity),
            None => self.items.push((product.to_owned(), quantity)),
        }
        self.items.retain(|(_, quantity)| *quantity > 0);
    }

    fn remove(&mut self, product: &str, quantity: u64) {
        if let Some((_, there)) = self.items.iter_mut().find(|(id, _)| id == product) {
            *there = there.saturating_sub(quantity);
        }
        self.items.retain(|(_, quantity)| *quantity > 0);
    }

    fn into_value(self) -> Value {
        let items: Vec<Value> = self
            .items
            .into_iter()
            .map(|(product_id, quantity)| json!({"product_id": product_id, "quantity": quantity}))
            .collect();
        let mut state = json!({"items": items, "checked_out": self.checked_out});
        for (field, value) in [("customer_id", self.customer_id), ("store_id", self.store_id)] {
            if let Some(value) = value {
                state[field] = value;
            }
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(stream: &str, events: &[(&str, Value)]) -> Value {
        let mut state = Reduced::of(stream);
        for (type_name, data) in events {
            state.apply(type_name, data.clone());
        }
        state.into_value()
    }

    #[test]
    fn a_cart_holds_what_was_added_and_not_removed_until_it_is_checked_out() {
        let added = |product: &str, quantity: u64| {
            ("CartItemAdded", json!({"product_id": product, "quantity": quantity, "customer_id": "c-1"}))
        };
        let events = [
            added("p-1", 2),
            added("p-2", 1),
            ("CartItemAdded", json!({"product_id": "p-1"})),
            ("CartItemRemoved", json!({"product_id": "p-2"})),
            added("p-3", 5),
            ("CartItemRemoved", json!({"product_id": "p-3", "quantity": 4})),
            ("CartItemRemoved", json!({"product_id": "p-9", "quantity": 4})),
            added("p-4", 0),
            ("SomethingElse", json!({"product_id": "p-1", "store_id": "s-9"})),
            ("CartCheckedOut", json!({})),
            added("p-1", 7),
        ];
        let items = json!([{"product_id": "p-1", "quantity": 3}, {"product_id": "p-3", "quantity": 1}]);
        assert_eq!(after("cart-1", &events), json!({"items": items, "checked_out": true, "customer_id": "c-1"}));
        let cleared = [added("p-1", 1), ("CartCleared", json!(null))];
        assert_eq!(after("cart-1", &cleared)["items"], json!([]));
    }

    #[test]
    fn other_streams_are_merged_field_by_field() {
        let events = [
            ("Opened", json!({"by": "c-1", "about": {"order": 1}})),
            ("Changed", json!({"about": {"item": 2}, "note": "x"})),
            ("Changed", json!({"note": null, "by": "c-2"})),
            ("Odd", json!([1])),
        ];
        assert_eq!(after("complaint-1", &events), json!({"by": "c-2", "about": {"item": 2}}));
    }
}
