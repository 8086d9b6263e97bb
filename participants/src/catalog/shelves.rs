//! Moving units of a product between available, reserved and sold.

use skald_kit::{Tx, params};

use super::items::Priced;

/// From where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    ReservedToAvailable,
    ReservedToSold,
    SoldToReserved,
    SoldToAvailable,
    AvailableToSold,
}

impl Move {
    fn sql(self) -> &'static str {
        match self {
            Self::ReservedToAvailable => {
                "UPDATE stock SET reserved = reserved - $3, available = available + $3
                 WHERE store_id = $1 AND product_id = $2 AND reserved >= $3"
            }
            Self::ReservedToSold => {
                "UPDATE stock SET reserved = reserved - $3, sold = sold + $3
                 WHERE store_id = $1 AND product_id = $2 AND reserved >= $3"
            }
            Self::SoldToReserved => {
                "UPDATE stock SET sold = sold - $3, reserved = reserved + $3
                 WHERE store_id = $1 AND product_id = $2 AND sold >= $3"
            }
            Self::SoldToAvailable => {
                "UPDATE stock SET sold = sold - $3, available = available + $3
                 WHERE store_id = $1 AND product_id = $2 AND sold >= $3"
            }
            Self::AvailableToSold => {
                "UPDATE stock SET available = available - $3, sold = sold + $3
                 WHERE store_id = $1 AND product_id = $2 AND available >= $3"
            }
        }
    }
}

/// Moves all items; gives the product of which there was too little, in which case the caller must
/// roll back.
pub(crate) async fn shift(tx: &mut Tx, store: &str, items: &[Priced], to: Move) -> sqlx::Result<Option<String>> {
    for item in items {
        let moved = tx.execute(to.sql(), params![store, &item.product_id, item.quantity]).await?;
        if moved == 0 {
            return Ok(Some(item.product_id.clone()));
        }
    }
    Ok(None)
}

/// Reserves units and gives their price; `None` when too little is available.
pub(crate) async fn reserve(tx: &mut Tx, store: &str, product: &str, quantity: i64) -> sqlx::Result<Option<i64>> {
    let sql = "UPDATE stock SET available = available - $3, reserved = reserved + $3
               WHERE store_id = $1 AND product_id = $2 AND available >= $3
               RETURNING (SELECT price_minor FROM products WHERE products.id = stock.product_id) AS unit_price";
    let row = tx.row(sql, params![store, product, quantity]).await?;
    row.map(|row| row.get("unit_price")).transpose()
}

/// Units available and price; `None` when the store doesn't have the product at all.
pub(crate) async fn look(tx: &mut Tx, store: &str, product: &str) -> sqlx::Result<Option<(i64, i64)>> {
    let sql = "SELECT stock.available, products.price_minor FROM stock JOIN products ON products.id = stock.product_id
               WHERE stock.store_id = $1 AND stock.product_id = $2";
    let row = tx.row(sql, params![store, product]).await?;
    row.map(|row| Ok((row.get("available")?, row.get("price_minor")?))).transpose()
}
