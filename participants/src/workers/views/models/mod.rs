//! The read models.

mod carts;
mod orders;
mod sagas;
mod sales;

use serde::Deserialize;
use serde_json::Value;
use skald_kit::events::Event;

use super::projection::Projection;

pub(super) const ALL: [&dyn Projection; 4] =
    [&orders::OrdersByCustomer, &sales::SalesByStoreAndDay, &sagas::SagasByState, &carts::CartContents];

/// What makes a saga an order: a customer and items.
#[derive(Debug, Deserialize)]
struct Order {
    customer_id: String,
    #[serde(default)]
    store_id: Option<String>,
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    quantity: i64,
}

impl Order {
    /// None when the saga that begins with this event is no order.
    fn begun_by(event: &Event) -> Option<Self> {
        #[derive(Deserialize)]
        struct Started {
            input: Order,
        }
        (event.kind == "SagaStarted").then(|| event.data::<Started>().ok()).flatten().map(|started| started.input)
    }

    fn items(&self) -> i64 {
        self.items.iter().fold(0, |sum, item| sum.saturating_add(item.quantity))
    }
}

/// The event's data as a tree.
fn data(event: &Event) -> Value {
    event.data().unwrap_or_default()
}

/// The total that a completed order's saga puts out, in minor units.
fn total(completed: &Value) -> i64 {
    completed["output"]["total"].as_i64().unwrap_or(0)
}

#[cfg(test)]
mod tests;
