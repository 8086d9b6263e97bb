//! Confirming an order, and cancelling it.

use chrono::{SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use skald_kit::{Failure, Reply, Tx, TxFuture, params};

use crate::{body::Id, codes, http::Given};

/// The customer of the demonstrations who may not order.
pub(super) const CUSTOMER_BLOCKED: &str = "blocked";
const ITEMS_MAX: usize = 200;
const QUANTITY_MAX: i64 = 1_000_000;
pub(super) const TOTAL_MAX: i64 = 1_000_000_000_000_000;
const REASON_CHARS_MAX: usize = 1000;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confirm {
    customer_id: Id,
    items: Vec<Item>,
    total: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Item {
    product_id: Id,
    quantity: i64,
    /// Taken and kept when the caller passes on what the catalog answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit_price: Option<i64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cancel {
    #[serde(default)]
    reason: Option<String>,
}

/// `PUT /orders/{id}`
pub(crate) fn confirm(tx: &mut Tx, given: Given<Confirm>) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        let id = order_id(given.path_id)?;
        let Confirm { customer_id, items, total } = given.body;
        check_items(&items)?;
        if !(0..=TOTAL_MAX).contains(&total) {
            let reason = format!("total: {total} is not within 0..={TOTAL_MAX}");
            return Err(Failure::rejected(codes::INVALID_AMOUNT, reason));
        }
        if customer_id.as_str() == CUSTOMER_BLOCKED {
            return Err(Failure::rejected(codes::CUSTOMER_BLOCKED, format!("customer {customer_id} may not order")));
        }
        let sql = "INSERT INTO orders (id, customer_id, items, total, status, created_at, updated_at)
                   VALUES ($1, $2, $3, $4, 'confirmed', $5, $5) ON CONFLICT (id) DO NOTHING";
        let params = params![id.as_str(), customer_id.as_str(), json!(items).to_string(), total, now()];
        if tx.execute(sql, params).await? == 0 {
            return Err(Failure::rejected(codes::ORDER_EXISTS, format!("order {id} exists already")));
        }
        let order =
            json!({"id": id, "customer_id": customer_id, "items": items, "total": total, "status": "confirmed"});
        let detail = json!({"order_id": id, "customer_id": customer_id, "total": total});
        Ok(Reply::ok(order).effect("order_confirmed", detail))
    })
}

/// `POST /orders/{id}/cancel`: the undo of an order that was confirmed at once, or placed.
pub(crate) fn cancel(tx: &mut Tx, given: Given<Cancel>) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        let id = order_id(given.path_id)?;
        // A reason is for people: a long one is cut, not refused, for an undo must go through.
        let reason = given.body.reason.map(|reason| reason.chars().take(REASON_CHARS_MAX).collect::<String>());
        let sql = "UPDATE orders SET status = 'cancelled', reason = $2, updated_at = $3
                   WHERE id = $1 AND status IN ('pending', 'confirmed') RETURNING customer_id, total";
        if let Some(row) = tx.row(sql, params![id.as_str(), reason.clone(), now()]).await? {
            let customer: String = row.get("customer_id")?;
            let reply = json!({"id": id, "undone": true, "status": "cancelled", "reason": reason});
            let mut detail = json!({"order_id": id, "customer_id": customer, "reason": reason});
            if let Some(total) = row.get::<Option<i64>>("total")? {
                detail["total"] = total.into();
            }
            return Ok(Reply::ok(reply).effect("order_cancelled", detail));
        }
        match tx.row("SELECT 1 AS one FROM orders WHERE id = $1", params![id.as_str()]).await? {
            Some(_) => Ok(Reply::ok(json!({"id": id, "undone": false, "status": "cancelled"}))),
            None => Err(Failure::rejected(codes::ORDER_NOT_FOUND, format!("there is no order {id}"))),
        }
    })
}

pub(super) fn order_id(path_id: Option<Id>) -> Result<Id, Failure> {
    path_id.ok_or_else(|| Failure::rejected(codes::ORDER_NOT_FOUND, "the path names no order"))
}

/// Refuses orders of nothing, or of too much.
pub(super) fn check_items(items: &[Item]) -> Result<(), Failure> {
    if items.is_empty() || items.len() > ITEMS_MAX {
        return Err(Failure::rejected(codes::INVALID_ITEMS, format!("items: an order has 1 to {ITEMS_MAX} items")));
    }
    for (index, item) in items.iter().enumerate() {
        if !(1..=QUANTITY_MAX).contains(&item.quantity) {
            let reason = format!("items[{index}].quantity: {} is not within 1..={QUANTITY_MAX}", item.quantity);
            return Err(Failure::rejected(codes::INVALID_ITEMS, reason));
        }
    }
    Ok(())
}

pub(super) fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}
