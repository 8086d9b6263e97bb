//! Holds: the stock that an order has taken out of what is available.
//!
//! | state    | its units are | reserve  | commit             | restock            | release  | time is up |
//! | -------- | ------------- | -------- | ------------------ | ------------------ | -------- | ---------- |
//! | (none)   | available     | `held`   | refused            | refused            | refused  |            |
//! | held     | reserved      | refused  | `sold`             | refused            | released | `expired`  |
//! | sold     | sold          | refused  | refused            | `held`             | refused  |            |
//! | expired  | available     | refused  | `resold`, or 503   | refused            | nothing  |            |
//! | resold   | sold          | refused  | refused            | `expired`          | nothing  |            |
//! | released | available     | refused  | refused            | refused            | nothing  |            |
//!
//! Each undo reverses exactly its own effect: restock leads back to where commit came from. Expiry
//! is the undo of reserve, so what was sold after it (`resold`) goes back to `expired`.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use skald_kit::{CallContext, Db, Failure, ProblemKind, Rejection, Reply, Tx, TxFuture, ledger, params};

use super::{
    STORE_DEFAULT,
    items::{self, Priced, Wanted},
    shelves::{self, Move},
};
use crate::{body::Id, codes, http::Given};

/// When a commit finds its hold expired and the units gone, they may come back.
const RETRY_WHEN_SHORT: Duration = Duration::from_secs(5);
/// Holds freed per look, so that one look stays short.
const SWEEP_MAX: i64 = 200;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verify {
    #[serde(default)]
    store_id: Option<Id>,
    items: Vec<Wanted>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reserve {
    order_id: Id,
    #[serde(default)]
    store_id: Option<Id>,
    items: Vec<Wanted>,
}

/// The body of release, commit and restock.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfOrder {
    order_id: Id,
}

/// A hold's row after it has changed its state.
struct Hold {
    store: String,
    items: Vec<Priced>,
}

/// `POST /stock/verify`: whether all items are available now; no effect.
pub(crate) fn verify(tx: &mut Tx, given: Given<Verify>) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        let store = store_or_default(given.body.store_id.as_ref());
        let wanted = items::merge(&given.body.items)?;
        let mut priced = Vec::with_capacity(wanted.len());
        let mut shown = Vec::with_capacity(wanted.len());
        for item in &wanted {
            match shelves::look(tx, store, item.product_id.as_str()).await? {
                Some((available, unit_price)) if available >= item.quantity => {
                    shown.push(json!({
                        "product_id": item.product_id, "quantity": item.quantity,
                        "available": available, "unit_price": unit_price,
                    }));
                    priced.push(priced_item(item, unit_price));
                }
                _ => return Err(explain_shortage(tx, store, &wanted[priced.len()..]).await),
            }
        }
        let total = items::total(&priced)?;
        Ok(Reply::ok(json!({"available": true, "store_id": store, "total": total, "items": shown})))
    })
}

/// `POST /stock/reserve`: all items or none.
pub(crate) fn reserve(tx: &mut Tx, given: Given<Reserve>) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        let Given { call, body, hold_grace, .. } = given;
        let store = store_or_default(body.store_id.as_ref());
        let wanted = items::merge(&body.items)?;
        let mut priced = Vec::with_capacity(wanted.len());
        for item in &wanted {
            match shelves::reserve(tx, store, item.product_id.as_str(), item.quantity).await? {
                Some(unit_price) => priced.push(priced_item(item, unit_price)),
                None => return Err(explain_shortage(tx, store, &wanted[priced.len()..]).await),
            }
        }
        let total = items::total(&priced)?;
        let held_until = held_until(&call, hold_grace);
        let sql = "INSERT INTO holds (order_id, store_id, items, state, held_until_ms, saga_id, step)
                   VALUES ($1, $2, $3, 'held', $4, $5, $6) ON CONFLICT (order_id) DO NOTHING";
        let params = params![
            body.order_id.as_str(),
            store,
            json!(priced).to_string(),
            held_until.timestamp_millis(),
            call.saga_id().to_string(),
            call.step(),
        ];
        if tx.execute(sql, params).await? == 0 {
            return Err(refuse(codes::ALREADY_RESERVED, &body.order_id));
        }
        let detail = json!({"order_id": body.order_id, "store_id": store, "items": priced, "total": total});
        let reply = json!({
            "order_id": body.order_id, "store_id": store, "total": total, "items": priced,
            "held_until": held_until.to_rfc3339_opts(SecondsFormat::Millis, true),
        });
        Ok(Reply::ok(reply).effect("stock_reserved", detail))
    })
}

/// `POST /stock/release`: the undo of reserve.
pub(crate) fn release(tx: &mut Tx, given: Given<OfOrder>) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        let order = &given.body.order_id;
        let sql =
            "UPDATE holds SET state = 'released' WHERE order_id = $1 AND state = 'held' RETURNING store_id, items";
        if let Some(hold) = change(tx, sql, params![order.as_str()]).await? {
            shift(tx, order, &hold, Move::ReservedToAvailable).await?;
            return Ok(undone(order).effect("stock_released", detail(order, &hold)));
        }
        match state(tx, order).await?.as_deref() {
            None => Err(refuse(codes::HOLD_NOT_FOUND, order)),
            Some("sold") => Err(refuse(codes::HOLD_SOLD, order)),
            Some(_) => Ok(Reply::ok(json!({"order_id": order, "undone": false}))),
        }
    })
}

/// `POST /stock/commit`: what was reserved is sold. If the hold has expired, what is available is sold.
pub(crate) fn commit(tx: &mut Tx, given: Given<OfOrder>) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        let order = &given.body.order_id;
        let sql = "UPDATE holds SET state = 'sold' WHERE order_id = $1 AND state = 'held' RETURNING store_id, items";
        if let Some(hold) = change(tx, sql, params![order.as_str()]).await? {
            shift(tx, order, &hold, Move::ReservedToSold).await?;
            return Ok(committed(order, &hold));
        }
        let sql =
            "UPDATE holds SET state = 'resold' WHERE order_id = $1 AND state = 'expired' RETURNING store_id, items";
        if let Some(hold) = change(tx, sql, params![order.as_str()]).await? {
            return match shelves::shift(tx, &hold.store, &hold.items, Move::AvailableToSold).await? {
                None => Ok(committed(order, &hold)),
                Some(product) => {
                    let detail =
                        format!("the hold of order {order} expired and too little of {product} is available now");
                    Err(Failure::Unavailable { detail, retry_after: RETRY_WHEN_SHORT })
                }
            };
        }
        let kind = match state(tx, order).await?.as_deref() {
            None => codes::HOLD_NOT_FOUND,
            Some("released") => codes::HOLD_RELEASED,
            Some(_) => codes::HOLD_SOLD,
        };
        Err(refuse(kind, order))
    })
}

/// `POST /stock/restock`: the undo of commit. The order holds its stock again, as before the commit,
/// for at least as long as a new hold would.
pub(crate) fn restock(tx: &mut Tx, given: Given<OfOrder>) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        let order = &given.body.order_id;
        let until_ms = held_until(&given.call, given.hold_grace).timestamp_millis();
        let sql = "UPDATE holds SET state = 'held',
                          held_until_ms = CASE WHEN held_until_ms > $2 THEN held_until_ms ELSE $2 END
                   WHERE order_id = $1 AND state = 'sold' RETURNING store_id, items";
        if let Some(hold) = change(tx, sql, params![order.as_str(), until_ms]).await? {
            shift(tx, order, &hold, Move::SoldToReserved).await?;
            return Ok(undone(order).effect("stock_restocked", detail(order, &hold)));
        }
        let sql =
            "UPDATE holds SET state = 'expired' WHERE order_id = $1 AND state = 'resold' RETURNING store_id, items";
        if let Some(hold) = change(tx, sql, params![order.as_str()]).await? {
            shift(tx, order, &hold, Move::SoldToAvailable).await?;
            return Ok(undone(order).effect("stock_restocked", detail(order, &hold)));
        }
        let kind = if state(tx, order).await?.is_none() { codes::HOLD_NOT_FOUND } else { codes::NOT_SOLD };
        Err(refuse(kind, order))
    })
}

/// Frees the holds whose time is up, each in a transaction of its own; gives how many.
pub(crate) async fn free_expired(db: &Db) -> Result<u64, Failure> {
    let sql = "SELECT order_id FROM holds WHERE state = 'held' AND held_until_ms < $1 ORDER BY held_until_ms LIMIT $2";
    let due = db.rows(sql, params![Utc::now().timestamp_millis(), SWEEP_MAX]).await?;
    let mut freed = 0;
    for row in due {
        let order: String = row.get("order_id")?;
        if db.transaction(move |tx| Box::pin(async move { expire(tx, &order).await })).await? {
            freed += 1;
        }
    }
    Ok(freed)
}

async fn expire(tx: &mut Tx, order: &str) -> Result<bool, Failure> {
    // Looked at again: since the search, the hold may have been sold, released or prolonged.
    let sql = "UPDATE holds SET state = 'expired' WHERE order_id = $1 AND state = 'held' AND held_until_ms < $2
               RETURNING store_id, items, saga_id, step";
    let Some(row) = tx.row(sql, params![order, Utc::now().timestamp_millis()]).await? else { return Ok(false) };
    let hold = hold(&row)?;
    let order = Id::try_from(order.to_owned()).map_err(|error| sqlx::Error::Decode(error.into()))?;
    shift(tx, &order, &hold, Move::ReservedToAvailable).await?;
    let (saga_id, step): (String, String) = (row.get("saga_id")?, row.get("step")?);
    let entry = ledger::Entry {
        key: &format!("{saga_id}:{step}:expiry"),
        saga_id: &saga_id,
        step: &step,
        operation: "expiry",
        effect: "hold_expired",
        detail: &detail(&order, &hold),
    };
    ledger::append(tx, entry).await?;
    Ok(true)
}

/// Runs a conditional change of a hold's state; `None` when the condition didn't hold.
async fn change(tx: &mut Tx, sql: &'static str, params: Vec<skald_kit::Param>) -> sqlx::Result<Option<Hold>> {
    tx.row(sql, params).await?.as_ref().map(hold).transpose()
}

fn hold(row: &skald_kit::Row) -> sqlx::Result<Hold> {
    let items: String = row.get("items")?;
    let items = serde_json::from_str(&items).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(Hold { store: row.get("store_id")?, items })
}

async fn state(tx: &mut Tx, order: &Id) -> sqlx::Result<Option<String>> {
    let row = tx.row("SELECT state FROM holds WHERE order_id = $1", params![order.as_str()]).await?;
    row.map(|row| row.get("state")).transpose()
}

/// Moves a hold's units, which are there as long as holds and shelves agree.
async fn shift(tx: &mut Tx, order: &Id, hold: &Hold, to: Move) -> Result<(), Failure> {
    match shelves::shift(tx, &hold.store, &hold.items, to).await? {
        None => Ok(()),
        Some(product) => {
            tracing::error!(%order, product, ?to, "a hold's units are not on their shelf");
            Err(sqlx::Error::RowNotFound.into())
        }
    }
}

/// Why the items can't be had, naming all that is missing. Leave out those that are already taken:
/// they were sufficient, and what is left of them says nothing.
async fn explain_shortage(tx: &mut Tx, store: &str, wanted: &[Wanted]) -> Failure {
    let mut missing = Vec::new();
    let mut unknown = Vec::new();
    for item in wanted {
        match shelves::look(tx, store, item.product_id.as_str()).await {
            Err(error) => return error.into(),
            Ok(None) => unknown.push(item.product_id.as_str()),
            Ok(Some((available, _))) if available < item.quantity => {
                missing.push(json!({"product_id": item.product_id, "quantity": item.quantity, "available": available}));
            }
            Ok(Some(_)) => {}
        }
    }
    if !unknown.is_empty() {
        let reason = format!("store {store} does not sell {}", unknown.join(", "));
        return Rejection::new(codes::UNKNOWN_PRODUCT, reason).with("unknown", unknown).into();
    }
    if missing.is_empty() {
        // Another order gave units back between the failed attempt and this look.
        let detail = format!("the stock of store {store} is changing; repeat the call");
        return Failure::Unavailable { detail, retry_after: Duration::from_secs(1) };
    }
    let text = |item: &Value| format!("{} of {}", item["available"], item["product_id"].as_str().unwrap_or_default());
    let reason = format!("store {store} has only {}", missing.iter().map(text).collect::<Vec<_>>().join(", "));
    Rejection::new(codes::OUT_OF_STOCK, reason).with("missing", missing).into()
}

fn store_or_default(store: Option<&Id>) -> &str {
    store.map_or(STORE_DEFAULT, Id::as_str)
}

fn priced_item(item: &Wanted, unit_price: i64) -> Priced {
    Priced { product_id: item.product_id.to_string(), quantity: item.quantity, unit_price }
}

fn held_until(call: &CallContext, grace: Duration) -> DateTime<Utc> {
    let deadline = call.deadline.unwrap_or_else(Utc::now);
    chrono::TimeDelta::from_std(grace)
        .ok()
        .and_then(|grace| deadline.checked_add_signed(grace))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

fn refuse(kind: ProblemKind, order: &Id) -> Failure {
    Failure::rejected(kind, format!("order {order}: {}", kind.title.to_lowercase()))
}

fn undone(order: &Id) -> Reply {
    Reply::ok(json!({"order_id": order, "undone": true}))
}

fn committed(order: &Id, hold: &Hold) -> Reply {
    let reply = json!({"order_id": order, "store_id": hold.store, "items": hold.items});
    Reply::ok(reply).effect("stock_committed", detail(order, hold))
}

fn detail(order: &Id, hold: &Hold) -> Value {
    json!({"order_id": order, "store_id": hold.store, "items": hold.items})
}
