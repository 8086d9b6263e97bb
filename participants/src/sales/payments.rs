//! Payments: one per order, paid and maybe refunded.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use skald_kit::{Failure, Reply, Row, Tx, TxFuture, params};

use super::customers::{self, MONEY_MAX};
use crate::{
    body::Id,
    codes,
    http::{self, Given, Shared},
    paging,
};

/// The token of the demonstrations' card that is never accepted.
const TOKEN_DECLINED: &str = "tok_declined";

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pay {
    order_id: Id,
    customer_id: Id,
    amount: i64,
    payment: Means,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Means {
    method: Id,
    token: Id,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refund {
    order_id: Id,
}

/// `POST /payments`
pub(crate) fn pay(tx: &mut Tx, given: Given<Pay>) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        let Pay { order_id, customer_id, amount, payment } = given.body;
        if !(0..=MONEY_MAX).contains(&amount) {
            return Err(Failure::rejected(
                codes::INVALID_AMOUNT,
                format!("amount: {amount} is not within 0..={MONEY_MAX}"),
            ));
        }
        if payment.token.as_str() == TOKEN_DECLINED {
            return Err(Failure::rejected(codes::PAYMENT_DECLINED, format!("the {} was declined", payment.method)));
        }
        if !customers::charge(tx, customer_id.as_str(), amount).await? {
            let reason = format!("customer {customer_id} has too little credit left for {amount}");
            return Err(Failure::rejected(codes::CREDIT_EXCEEDED, reason));
        }
        let sql = "INSERT INTO payments (order_id, customer_id, amount, method, status, created_at)
                   VALUES ($1, $2, $3, $4, 'paid', $5) ON CONFLICT (order_id) DO NOTHING";
        let now = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let params = params![order_id.as_str(), customer_id.as_str(), amount, payment.method.as_str(), now];
        if tx.execute(sql, params).await? == 0 {
            return Err(Failure::rejected(codes::ALREADY_PAID, format!("order {order_id} was paid already")));
        }
        let paid = json!({"order_id": order_id, "customer_id": customer_id, "amount": amount, "status": "paid"});
        Ok(Reply::ok(paid).effect("payment_taken", effect(order_id.as_str(), customer_id.as_str(), amount)))
    })
}

/// `POST /payments/refund`: the undo of a payment.
pub(crate) fn refund(tx: &mut Tx, given: Given<Refund>) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        let order = given.body.order_id;
        let sql = "UPDATE payments SET status = 'refunded' WHERE order_id = $1 AND status = 'paid'
                   RETURNING customer_id, amount";
        if let Some(row) = tx.row(sql, params![order.as_str()]).await? {
            let (customer, amount): (String, i64) = (row.get("customer_id")?, row.get("amount")?);
            customers::credit_back(tx, &customer, amount).await?;
            let reply = json!({"order_id": order, "undone": true, "amount": amount, "status": "refunded"});
            return Ok(Reply::ok(reply).effect("payment_refunded", effect(order.as_str(), &customer, amount)));
        }
        match tx.row("SELECT 1 AS one FROM payments WHERE order_id = $1", params![order.as_str()]).await? {
            Some(_) => Ok(Reply::ok(json!({"order_id": order, "undone": false, "status": "refunded"}))),
            None => Err(Failure::rejected(codes::PAYMENT_NOT_FOUND, format!("order {order} has no payment"))),
        }
    })
}

fn effect(order: &str, customer: &str, amount: i64) -> Value {
    json!({"order_id": order, "customer_id": customer, "amount": amount})
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PaymentsQuery {
    order_id: Option<Id>,
    customer_id: Option<Id>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// `GET /payments`
pub(crate) async fn list(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let list = async {
        let query: PaymentsQuery = http::query(&request)?;
        let limit = paging::limit(query.limit)?;
        let [after] = paging::cursor(query.cursor.as_deref())?;
        let sql = "SELECT order_id, customer_id, amount, method, status, created_at FROM payments
                   WHERE order_id > $1 AND ($2 IS NULL OR order_id = $2) AND ($3 IS NULL OR customer_id = $3)
                   ORDER BY order_id LIMIT $4";
        let [order, customer] = [query.order_id, query.customer_id].map(|id| id.map(String::from));
        let rows = shared.barrier.db().rows(sql, params![after, order, customer, limit + 1]).await?;
        let rows = rows.iter().map(shown).collect::<sqlx::Result<Vec<_>>>()?;
        Ok(paging::page(rows, limit, |(order, _)| [order], |(_, payment)| payment.clone()))
    };
    http::respond(&request, list.await)
}

fn shown(row: &Row) -> sqlx::Result<(String, Value)> {
    let text = |column| row.get::<String>(column);
    let order = text("order_id")?;
    let payment = json!({
        "order_id": order, "customer_id": text("customer_id")?, "amount": row.get::<i64>("amount")?,
        "method": text("method")?, "status": text("status")?, "created_at": text("created_at")?,
    });
    Ok((order, payment))
}
