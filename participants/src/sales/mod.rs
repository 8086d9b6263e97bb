//! Sales: customers with a credit, and payments that use it up.
//!
//! Always initial credit = remaining + paid, none negative (invariant 1, for money), which the table
//! itself enforces. A customer nobody has heard of starts with the usual credit.

mod customers;
mod payments;

use actix_web::{http::Method, web};
use skald_kit::{Db, Failure, params};

use crate::offer::Offer;

pub(crate) fn offer() -> Offer {
    Offer::default()
        .operation(Method::POST, "/payments", "payments", payments::pay)
        .operation(Method::POST, "/payments/refund", "refund", payments::refund)
        .other(Method::GET, "/payments", || web::get().to(payments::list))
        .other(Method::GET, "/customers/{id}", || web::get().to(customers::show))
        .other(Method::PUT, "/customers/{id}", || web::put().to(customers::set_credit))
}

const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS customers (
         id TEXT NOT NULL PRIMARY KEY,
         credit BIGINT NOT NULL,
         remaining BIGINT NOT NULL CHECK (remaining >= 0),
         paid BIGINT NOT NULL DEFAULT 0 CHECK (paid >= 0),
         CHECK (credit = remaining + paid)
     )",
    "CREATE TABLE IF NOT EXISTS payments (
         order_id TEXT NOT NULL PRIMARY KEY,
         customer_id TEXT NOT NULL,
         amount BIGINT NOT NULL,
         method TEXT NOT NULL,
         status TEXT NOT NULL CHECK (status IN ('paid', 'refunded')),
         created_at TEXT NOT NULL
     )",
    "CREATE INDEX IF NOT EXISTS payments_customer ON payments (customer_id, order_id)",
];

/// Creates the tables and the poor customer of the demonstrations.
pub(crate) async fn prepare(db: &Db) -> Result<(), Failure> {
    db.create(TABLES).await?;
    db.transaction(|tx| {
        Box::pin(async move {
            let sql =
                "INSERT INTO customers (id, credit, remaining) VALUES ('c-poor', 100, 100) ON CONFLICT DO NOTHING";
            tx.execute(sql, params![]).await?;
            Ok(())
        })
    })
    .await
}
