//! Orders that are placed first and confirmed when all is well.

use serde::Deserialize;
use serde_json::json;
use skald_kit::{Failure, ProblemKind, Reply, Tx, TxFuture, params};

use super::changes::{CUSTOMER_BLOCKED, Item, TOTAL_MAX, check_items, now, order_id};
use crate::{body::Id, codes, http::Given};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    customer_id: Id,
    items: Vec<Item>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confirm {
    total: i64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reopen {}

/// `POST /orders/{id}/place`: a pending order; its undo is cancel.
pub(crate) fn place(tx: &mut Tx, given: Given<Place>) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        let id = order_id(given.path_id)?;
        let Place { customer_id, items } = given.body;
        check_items(&items)?;
        if customer_id.as_str() == CUSTOMER_BLOCKED {
            return Err(Failure::rejected(codes::CUSTOMER_BLOCKED, format!("customer {customer_id} may not order")));
        }
        let sql = "INSERT INTO orders (id, customer_id, items, status, created_at, updated_at)
                   VALUES ($1, $2, $3, 'pending', $4, $4) ON CONFLICT (id) DO NOTHING";
        let params = params![id.as_str(), customer_id.as_str(), json!(items).to_string(), now()];
        if tx.execute(sql, params).await? == 0 {
            return Err(refuse(codes::ORDER_EXISTS, &id));
        }
        let order = json!({"id": id, "customer_id": customer_id, "items": items, "status": "pending"});
        Ok(Reply::ok(order).effect("order_placed", json!({"order_id": id, "customer_id": customer_id})))
    })
}

/// `POST /orders/{id}/confirm`: of a pending order.
pub(crate) fn confirm(tx: &mut Tx, given: Given<Confirm>) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        let id = order_id(given.path_id)?;
        let total = given.body.total;
        if !(0..=TOTAL_MAX).contains(&total) {
            let reason = format!("total: {total} is not within 0..={TOTAL_MAX}");
            return Err(Failure::rejected(codes::INVALID_AMOUNT, reason));
        }
        let sql = "UPDATE orders SET status = 'confirmed', total = $2, updated_at = $3
                   WHERE id = $1 AND status = 'pending'";
        if tx.execute(sql, params![id.as_str(), total, now()]).await? == 0 {
            return Err(refuse(missing_or(tx, &id, codes::ORDER_NOT_PENDING).await?, &id));
        }
        let effect = json!({"order_id": id, "total": total});
        Ok(Reply::ok(json!({"id": id, "status": "confirmed", "total": total})).effect("order_confirmed", effect))
    })
}

/// `POST /orders/{id}/reopen`: the undo of a confirmation. The order is pending again.
pub(crate) fn reopen(tx: &mut Tx, given: Given<Reopen>) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        let id = order_id(given.path_id)?;
        // The total as it was confirmed: RETURNING would give what is there after the change.
        let total = "SELECT total FROM orders WHERE id = $1 AND status = 'confirmed'";
        let total: Option<i64> = tx.row(total, params![id.as_str()]).await?.map(|row| row.get("total")).transpose()?;
        let sql = "UPDATE orders SET status = 'pending', total = NULL, updated_at = $2
                   WHERE id = $1 AND status = 'confirmed'";
        if tx.execute(sql, params![id.as_str(), now()]).await? == 1 {
            let effect = json!({"order_id": id, "total": total});
            return Ok(
                Reply::ok(json!({"id": id, "undone": true, "status": "pending"})).effect("order_reopened", effect)
            );
        }
        match tx.row("SELECT status FROM orders WHERE id = $1", params![id.as_str()]).await? {
            Some(row) if row.get::<String>("status")? == "pending" => {
                Ok(Reply::ok(json!({"id": id, "undone": false, "status": "pending"})))
            }
            Some(_) => Err(refuse(codes::ORDER_CANCELLED, &id)),
            None => Err(refuse(codes::ORDER_NOT_FOUND, &id)),
        }
    })
}

/// Of an order that is not as it should be: that there is none, or `kind`.
async fn missing_or(tx: &mut Tx, id: &Id, kind: ProblemKind) -> sqlx::Result<ProblemKind> {
    let row = tx.row("SELECT 1 AS one FROM orders WHERE id = $1", params![id.as_str()]).await?;
    Ok(if row.is_some() { kind } else { codes::ORDER_NOT_FOUND })
}

fn refuse(kind: ProblemKind, id: &Id) -> Failure {
    Failure::rejected(kind, format!("order {id}: {}", kind.title.to_lowercase()))
}
