//! The table of orders.

use skald_kit::{Db, Failure, params};

// The total of a pending order is not known yet.
const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS orders (
         id TEXT NOT NULL PRIMARY KEY,
         customer_id TEXT NOT NULL,
         items TEXT NOT NULL,
         total BIGINT,
         status TEXT NOT NULL CHECK (status IN ('pending', 'confirmed', 'cancelled')),
         reason TEXT,
         created_at TEXT NOT NULL,
         updated_at TEXT NOT NULL,
         CHECK (status <> 'confirmed' OR total IS NOT NULL)
     )",
    "CREATE INDEX IF NOT EXISTS orders_customer ON orders (customer_id, id)",
];

/// Tables of before there were pending orders are put aside and copied.
const ASIDE: &[&str] = &["ALTER TABLE orders RENAME TO orders_without_pending", "DROP INDEX IF EXISTS orders_customer"];
const COPY: &[&str] = &["INSERT INTO orders SELECT * FROM orders_without_pending", "DROP TABLE orders_without_pending"];

/// Creates the tables; there are no orders to begin with.
pub(crate) async fn prepare(db: &Db) -> Result<(), Failure> {
    db.create(TABLES).await?;
    if knows_pending(db).await? {
        return Ok(());
    }
    db.transaction(|tx| {
        Box::pin(async move {
            for sql in ASIDE.iter().chain(TABLES).chain(COPY) {
                tx.execute(sql, params![]).await?;
            }
            Ok(())
        })
    })
    .await
}

async fn knows_pending(db: &Db) -> sqlx::Result<bool> {
    let sql = if db.is_postgres() {
        "SELECT 1 AS one FROM information_schema.check_constraints c
         JOIN information_schema.constraint_column_usage u USING (constraint_schema, constraint_name)
         WHERE u.table_schema = current_schema() AND u.table_name = 'orders' AND c.check_clause LIKE '%pending%'"
    } else {
        "SELECT 1 AS one FROM sqlite_master WHERE name = 'orders' AND sql LIKE '%pending%'"
    };
    Ok(db.row(sql, params![]).await?.is_some())
}
