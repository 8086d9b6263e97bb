//! What is in each cart, by the events that the shop appends to its stream `cart-..`.
//!
//! | type | data | does |
//! | --- | --- | --- |
//! | `CartItemAdded` | `product_id`, `quantity` (1 if left out) | adds so many |
//! | `CartItemRemoved` | `product_id`, `quantity` (all if left out) | takes so many out |
//! | `CartCleared` | | takes everything out |
//! | `CartCheckedOut` | | closes the cart; what comes after changes nothing |
//! | any of these | `customer_id`, `store_id` | whose cart it is, and where |
//!
//! These are the rules by which Skald shows the stream's state too.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skald_kit::events::Event;

use super::{
    super::projection::{Changes, Projection},
    data,
};

const TYPES: [&str; 4] = ["CartItemAdded", "CartItemRemoved", "CartCleared", "CartCheckedOut"];

/// Under a cart's stream, e.g. `cart-42`.
#[derive(Debug)]
pub(in super::super) struct CartContents;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Cart {
    /// In the order in which they were first added.
    items: Vec<Item>,
    checked_out: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    customer_id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    store_id: Option<Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Item {
    product_id: String,
    quantity: u64,
}

impl Projection for CartContents {
    fn name(&self) -> &'static str {
        "cart-contents"
    }

    fn category(&self) -> &'static str {
        "cart"
    }

    fn items(&self) -> Option<&'static str> {
        None
    }

    fn fold(&self, state: Option<Value>, event: &Event, changes: &mut Changes) -> Option<Value> {
        let mut cart: Cart = state.and_then(|state| serde_json::from_value(state).ok()).unwrap_or_default();
        cart.apply(&event.type_name, &data(event));
        let cart = serde_json::to_value(cart).ok()?;
        let mut shown = cart.clone();
        shown["version"] = event.version.into();
        shown["updated_at"] = json!(event.time);
        changes.put(&event.stream, "", shown);
        Some(cart)
    }
}

impl Cart {
    fn apply(&mut self, type_name: &str, data: &Value) {
        if self.checked_out || !TYPES.contains(&type_name) {
            return;
        }
        for (field, place) in [("customer_id", &mut self.customer_id), ("store_id", &mut self.store_id)] {
            if let Some(value) = data.get(field) {
                *place = Some(value.clone());
            }
        }
        let (product, quantity) = (data["product_id"].as_str(), data["quantity"].as_u64());
        match (type_name, product) {
            ("CartItemAdded", Some(product)) => self.add(product, quantity.unwrap_or(1)),
            ("CartItemRemoved", Some(product)) => self.remove(product, quantity.unwrap_or(u64::MAX)),
            ("CartCleared", _) => self.items.clear(),
            ("CartCheckedOut", _) => self.checked_out = true,
            _ => {}
        }
        self.items.retain(|item| item.quantity > 0);
    }

    fn add(&mut self, product: &str, quantity: u64) {
        match self.items.iter_mut().find(|item| item.product_id == product) {
            Some(item) => item.quantity = item.quantity.saturating_add(quantity),
            None => self.items.push(Item { product_id: product.to_owned(), quantity }),
        }
    }

    fn remove(&mut self, product: &str, quantity: u64) {
        if let Some(item) = self.items.iter_mut().find(|item| item.product_id == product) {
            item.quantity = item.quantity.saturating_sub(quantity);
        }
    }
}
