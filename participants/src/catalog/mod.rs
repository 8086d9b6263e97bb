//! Catalog: products, stores, and what each store has of each product.
//!
//! Stock of a product in a store is `available`, `reserved` by running orders, or `sold`; `initial` is
//! what was ever put there. Always initial = available + reserved + sold, none negative (invariant
//! 1), which the table itself enforces.

mod holds;
mod items;
mod manage;
mod shelves;

use actix_web::{http::Method, web};
use skald_kit::{Db, Failure, params};

pub(crate) use holds::free_expired as free_expired_holds;

use crate::offer::Offer;

/// The store of an order that names none.
pub(crate) const STORE_DEFAULT: &str = "s-main";

pub(crate) fn offer() -> Offer {
    Offer::default()
        .operation(Method::POST, "/stock/verify", "verify", holds::verify)
        .operation(Method::POST, "/stock/reserve", "reserve", holds::reserve)
        .operation(Method::POST, "/stock/release", "release", holds::release)
        .operation(Method::POST, "/stock/commit", "commit", holds::commit)
        .operation(Method::POST, "/stock/restock", "restock", holds::restock)
        .other(Method::GET, "/stock", || web::get().to(manage::list_stock))
        .other(Method::POST, "/stock/adjust", || web::post().to(manage::adjust))
        .other(Method::GET, "/products", || web::get().to(manage::list_products))
        .other(Method::POST, "/products", || web::post().to(manage::add_product))
}

const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS products (id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, price_minor BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS stock (
         store_id TEXT NOT NULL,
         product_id TEXT NOT NULL REFERENCES products (id),
         available BIGINT NOT NULL CHECK (available >= 0),
         reserved BIGINT NOT NULL DEFAULT 0 CHECK (reserved >= 0),
         sold BIGINT NOT NULL DEFAULT 0 CHECK (sold >= 0),
         initial BIGINT NOT NULL CHECK (initial = available + reserved + sold),
         PRIMARY KEY (store_id, product_id)
     )",
    "CREATE TABLE IF NOT EXISTS holds (
         order_id TEXT NOT NULL PRIMARY KEY,
         store_id TEXT NOT NULL,
         items TEXT NOT NULL,
         state TEXT NOT NULL CHECK (state IN ('held', 'released', 'expired', 'sold', 'resold')),
         held_until_ms BIGINT NOT NULL,
         saga_id TEXT NOT NULL,
         step TEXT NOT NULL
     )",
    "CREATE INDEX IF NOT EXISTS holds_due ON holds (held_until_ms) WHERE state = 'held'",
];

/// Product, name, price in minor units, units in each store.
const SEED: [(&str, &str, i64, i64); 5] = [
    ("p-1", "Coffee beans, 1 kg", 1_999, 1_000),
    ("p-2", "Hand grinder", 4_950, 1_000),
    ("p-3", "Paper filters, 100", 250, 1_000),
    ("p-4", "Espresso machine", 129_900, 5),
    ("p-5", "Copper kettle", 8_900, 0),
];
const SEED_STORES: [&str; 2] = [STORE_DEFAULT, "s-north"];

/// Creates the tables, and fills them if there is no product yet.
pub(crate) async fn prepare(db: &Db) -> Result<(), Failure> {
    db.create(TABLES).await?;
    db.transaction(|tx| {
        Box::pin(async move {
            if tx.row("SELECT id FROM products LIMIT 1", params![]).await?.is_some() {
                return Ok(());
            }
            for (id, name, price, units) in SEED {
                let sql = "INSERT INTO products (id, name, price_minor) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
                tx.execute(sql, params![id, name, price]).await?;
                for store in SEED_STORES {
                    let sql = "INSERT INTO stock (store_id, product_id, available, initial) VALUES ($1, $2, $3, $3)
                               ON CONFLICT DO NOTHING";
                    tx.execute(sql, params![store, id, units]).await?;
                }
            }
            Ok(())
        })
    })
    .await
}
