//! Customers and their credit.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};
use skald_kit::{Failure, Problem, Reply, Row, Tx, TxFuture, params};

use crate::{
    body::Id,
    codes,
    http::{self, Shared},
    management::{self, Asked},
};

/// 100,000.00 in a currency with cents.
const CREDIT_USUAL: i64 = 10_000_000;
pub(crate) const MONEY_MAX: i64 = 1_000_000_000_000_000;

/// Takes `amount` from the customer's credit; false, and nothing taken, when there is too little.
pub(crate) async fn charge(tx: &mut Tx, customer: &str, amount: i64) -> sqlx::Result<bool> {
    let sql = "UPDATE customers SET remaining = remaining - $2, paid = paid + $2 WHERE id = $1 AND remaining >= $2";
    if tx.execute(sql, params![customer, amount]).await? == 1 {
        return Ok(true);
    }
    // Nothing was charged: too little credit, or a customer who is new, perhaps also to a payment at the same time.
    introduce(tx, customer).await?;
    Ok(tx.execute(sql, params![customer, amount]).await? == 1)
}

/// Gives back what [`charge`] took.
pub(crate) async fn credit_back(tx: &mut Tx, customer: &str, amount: i64) -> sqlx::Result<()> {
    let sql = "UPDATE customers SET remaining = remaining + $2, paid = paid - $2 WHERE id = $1";
    match tx.execute(sql, params![customer, amount]).await? {
        1 => Ok(()),
        _ => Err(sqlx::Error::RowNotFound),
    }
}

/// Gives a new customer the usual credit.
async fn introduce(tx: &mut Tx, customer: &str) -> sqlx::Result<()> {
    let sql = "INSERT INTO customers (id, credit, remaining) VALUES ($1, $2, $2) ON CONFLICT (id) DO NOTHING";
    tx.execute(sql, params![customer, CREDIT_USUAL]).await.map(drop)
}

/// `GET /customers/{id}`
pub(crate) async fn show(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let show = async {
        let id = id_of(http::path_id(&request)?)?;
        let sql = "SELECT credit, remaining, paid FROM customers WHERE id = $1";
        match shared.barrier.db().row(sql, params![id.as_str()]).await? {
            Some(row) => Ok(shown(&id, &row)?),
            None => Ok(json!({"id": id, "credit": CREDIT_USUAL, "remaining": CREDIT_USUAL, "paid": 0})),
        }
    };
    http::respond(&request, show.await)
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCredit {
    credit: i64,
}

/// `PUT /customers/{id}`: sets the whole credit, of which what is paid is used up.
pub(crate) async fn set_credit(request: HttpRequest, payload: web::Payload, shared: web::Data<Shared>) -> HttpResponse {
    management::change(&request, payload, &shared, change_credit).await
}

fn change_credit(tx: &mut Tx, asked: Asked<NewCredit>) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        let credit = asked.body.credit;
        if !(0..=MONEY_MAX).contains(&credit) {
            return Err(management::invalid("credit", format!("{credit} is not within 0..={MONEY_MAX}")));
        }
        let Some(id) = asked.path_id else {
            return Err(Failure::rejected(codes::NOT_FOUND, "the path names no customer"));
        };
        introduce(tx, id.as_str()).await?;
        let sql = "UPDATE customers SET credit = $2, remaining = $2 - paid WHERE id = $1 AND paid <= $2
                   RETURNING credit, remaining, paid";
        match tx.row(sql, params![id.as_str(), credit]).await? {
            Some(row) => {
                let customer = shown(&id, &row)?;
                Ok(Reply::ok(customer.clone()).effect("credit_set", customer))
            }
            None => Err(Failure::rejected(
                codes::CREDIT_IN_USE,
                format!("customer {id} has paid more than {credit} already"),
            )),
        }
    })
}

fn id_of(path_id: Option<Id>) -> Result<Id, Problem> {
    path_id.ok_or_else(|| Problem::new(codes::NOT_FOUND, "the path names no customer"))
}

fn shown(id: &Id, row: &Row) -> sqlx::Result<Value> {
    let amount = |column| row.get::<i64>(column);
    Ok(json!({"id": id, "credit": amount("credit")?, "remaining": amount("remaining")?, "paid": amount("paid")?}))
}
