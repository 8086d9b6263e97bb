//! Orders by customer.
//!
//! | event | the order is |
//! | --- | --- |
//! | `SagaStarted` of a saga whose input has a customer and items | `pending` |
//! | type `OrderConfirmed` | `confirmed` |
//! | `SagaFailed` | `failing`: it is being undone |
//! | `SagaCompleted`, `SagaCompensated`, `SagaAbandoned` | `confirmed`, `failed`, `abandoned`, for good |

use serde_json::{Value, json};
use skald_kit::events::Event;

use super::{
    super::projection::{Changes, Projection},
    Order, data, total,
};

/// Under a customer's id: how many orders of each status, what was spent, and the orders.
#[derive(Debug)]
pub(in super::super) struct OrdersByCustomer;

impl Projection for OrdersByCustomer {
    fn name(&self) -> &'static str {
        "orders-by-customer"
    }

    fn category(&self) -> &'static str {
        "saga"
    }

    fn items(&self) -> Option<&'static str> {
        Some("orders")
    }

    fn fold(&self, state: Option<Value>, event: &Event, changes: &mut Changes) -> Option<Value> {
        if let Some(order) = Order::begun_by(event) {
            let order = json!({
                "order_id": event.stream, "customer_id": order.customer_id, "definition": event.definition,
                "mode": event.mode, "status": "", "item_count": order.items(), "total": null, "failure": null,
                "placed_at": event.time, "updated_at": event.time,
            });
            changes.add(&of(&order, "customer_id"), "orders", 1);
            return moved(order, "pending", event, changes);
        }
        let mut order = state?;
        let data = data(event);
        match (event.kind.as_str(), event.type_name.as_str()) {
            ("SagaFailed", _) => {
                order["failure"] = json!({"step": data["step"], "code": data["code"], "reason": data["reason"]});
                moved(order, "failing", event, changes)
            }
            ("SagaCompleted", _) => {
                order["total"] = total(&data).into();
                changes.add(&of(&order, "customer_id"), "spent", total(&data));
                moved(order, "confirmed", event, changes);
                None
            }
            ("SagaCompensated", _) => {
                moved(order, "failed", event, changes);
                None
            }
            ("SagaAbandoned", _) => {
                moved(order, "abandoned", event, changes);
                None
            }
            (_, "OrderConfirmed") => moved(order, "confirmed", event, changes),
            _ => Some(order),
        }
    }
}

/// The order in its new status.
fn moved(mut order: Value, status: &'static str, event: &Event, changes: &mut Changes) -> Option<Value> {
    let (customer, before) = (of(&order, "customer_id"), of(&order, "status"));
    if !before.is_empty() {
        changes.add_within(&customer, "by_status", &before, -1);
    }
    changes.add_within(&customer, "by_status", status, 1);
    order["status"] = status.into();
    order["updated_at"] = json!(event.time);
    changes.put(&customer, &event.stream, order.clone());
    Some(order)
}

fn of(order: &Value, field: &str) -> String {
    order[field].as_str().unwrap_or_default().to_owned()
}
