//! Orders: confirmed, and maybe cancelled.

mod changes;
mod queries;

use actix_web::{http::Method, web};
use skald_kit::{Db, Failure};

use crate::http::{resource, saga_call};

pub(crate) const OPERATIONS: &[&str] = &["orders", "cancel"];

pub(crate) fn routes(app: &mut web::ServiceConfig) {
    app.service(resource("/orders", "GET").route(web::get().to(queries::list)))
        .service(resource("/orders/{id}", "GET, PUT").route(web::get().to(queries::show)).route(saga_call(
            Method::PUT,
            "orders",
            changes::confirm,
        )))
        .service(resource("/orders/{id}/cancel", "POST").route(saga_call(Method::POST, "cancel", changes::cancel)));
}

const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS orders (
         id TEXT NOT NULL PRIMARY KEY,
         customer_id TEXT NOT NULL,
         items TEXT NOT NULL,
         total BIGINT NOT NULL,
         status TEXT NOT NULL CHECK (status IN ('confirmed', 'cancelled')),
         reason TEXT,
         created_at TEXT NOT NULL,
         updated_at TEXT NOT NULL
     )",
    "CREATE INDEX IF NOT EXISTS orders_customer ON orders (customer_id, id)",
];

/// Creates the tables; there are no orders to begin with.
pub(crate) async fn prepare(db: &Db) -> Result<(), Failure> {
    Ok(db.create(TABLES).await?)
}
