//! Sales by store and day: of orders that were completed, on the day (UTC) on which they were.

use serde_json::{Value, json};
use skald_kit::events::Event;

use super::{
    super::projection::{Changes, Projection},
    Order, data, total,
};
use crate::catalog::STORE_DEFAULT;

/// Under `STORE:YYYY-MM-DD`: orders, items, and revenue in minor units.
#[derive(Debug)]
pub(in super::super) struct SalesByStoreAndDay;

impl Projection for SalesByStoreAndDay {
    fn name(&self) -> &'static str {
        "sales-by-store-and-day"
    }

    fn category(&self) -> &'static str {
        "saga"
    }

    fn items(&self) -> Option<&'static str> {
        None
    }

    fn fold(&self, state: Option<Value>, event: &Event, changes: &mut Changes) -> Option<Value> {
        if let Some(order) = Order::begun_by(event) {
            let items = order.items();
            return Some(json!({"store": order.store_id.as_deref().unwrap_or(STORE_DEFAULT), "items": items}));
        }
        let order = state?;
        match event.kind.as_str() {
            "SagaCompleted" => {
                let (store, day) = (order["store"].as_str().unwrap_or_default(), event.time.format("%Y-%m-%d"));
                let (key, day) = (format!("{store}:{day}"), day.to_string());
                changes.label(&key, "store_id", store);
                changes.label(&key, "day", day);
                changes.add(&key, "orders", 1);
                changes.add(&key, "items", order["items"].as_i64().unwrap_or(0));
                changes.add(&key, "revenue", total(&data(event)));
                None
            }
            "SagaCompensated" | "SagaAbandoned" => None,
            _ => Some(order),
        }
    }
}
