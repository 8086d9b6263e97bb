//! Looking at and managing products and stock. These calls belong to no saga; with an
//! `Idempotency-Key` the changing ones go through the barrier all the same.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};
use skald_kit::{Failure, Reply, Tx, TxFuture, params};

use super::STORE_DEFAULT;
use crate::{
    body::Id,
    codes,
    http::{self, Shared},
    management::{self, Asked},
    paging,
};

const PRICE_MAX: i64 = 1_000_000_000_000;
const NAME_CHARS_MAX: usize = 200;
const DELTA_MAX: i64 = 1_000_000_000;
/// Keeps sums of quantities countable.
const UNITS_MAX: i64 = 1_000_000_000_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProductsQuery {
    limit: Option<i64>,
    cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StockQuery {
    store_id: Option<Id>,
    product_id: Option<Id>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// `GET /products`
pub(crate) async fn list_products(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let list = async {
        let query: ProductsQuery = http::query(&request)?;
        let limit = paging::limit(query.limit)?;
        let [after] = paging::cursor(query.cursor.as_deref())?;
        let sql = "SELECT id, name, price_minor FROM products WHERE id > $1 ORDER BY id LIMIT $2";
        let rows = shared.barrier.db().rows(sql, params![after, limit + 1]).await?;
        let rows = rows
            .iter()
            .map(|row| Ok((row.get("id")?, row.get("name")?, row.get("price_minor")?)))
            .collect::<sqlx::Result<Vec<(String, String, i64)>>>()?;
        let item = |(id, name, price): &(String, String, i64)| json!({"id": id, "name": name, "price": price});
        Ok(paging::page(rows, limit, |(id, ..)| [id], item))
    };
    http::respond(&request, list.await)
}

struct Shelf {
    store_id: String,
    product_id: String,
    counts: Value,
}

/// `GET /stock`
pub(crate) async fn list_stock(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let list = async {
        let query: StockQuery = http::query(&request)?;
        let limit = paging::limit(query.limit)?;
        let [store, product] = paging::cursor(query.cursor.as_deref())?;
        let sql = "SELECT store_id, product_id, available, reserved, sold, initial FROM stock
                   WHERE (store_id, product_id) > ($1, $2)
                     AND ($3 IS NULL OR store_id = $3) AND ($4 IS NULL OR product_id = $4)
                   ORDER BY store_id, product_id LIMIT $5";
        let filter = [query.store_id, query.product_id].map(|id| id.map(String::from));
        let [in_store, of_product] = filter;
        let rows = shared.barrier.db().rows(sql, params![store, product, in_store, of_product, limit + 1]).await?;
        let rows = rows.iter().map(shelf).collect::<sqlx::Result<Vec<_>>>()?;
        Ok(paging::page(rows, limit, |shelf| [&shelf.store_id, &shelf.product_id], |shelf| shelf.counts.clone()))
    };
    http::respond(&request, list.await)
}

fn shelf(row: &skald_kit::Row) -> sqlx::Result<Shelf> {
    let (store_id, product_id): (String, String) = (row.get("store_id")?, row.get("product_id")?);
    let count = |column| row.get::<i64>(column);
    let counts = json!({
        "store_id": store_id, "product_id": product_id, "available": count("available")?,
        "reserved": count("reserved")?, "sold": count("sold")?, "initial": count("initial")?,
    });
    Ok(Shelf { store_id, product_id, counts })
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewProduct {
    id: Id,
    name: String,
    price: i64,
}

/// `POST /products`
pub(crate) async fn add_product(
    request: HttpRequest,
    payload: web::Payload,
    shared: web::Data<Shared>,
) -> HttpResponse {
    management::change(&request, payload, &shared, insert_product).await
}

fn insert_product(tx: &mut Tx, asked: Asked<NewProduct>) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        let NewProduct { id, name, price } = asked.body;
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
            return Err(management::invalid("name", format!("a name has 1 to {NAME_CHARS_MAX} characters")));
        }
        if !(0..=PRICE_MAX).contains(&price) {
            return Err(management::invalid("price", format!("{price} is not within 0..={PRICE_MAX}")));
        }
        let sql = "INSERT INTO products (id, name, price_minor) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING";
        if tx.execute(sql, params![id.as_str(), name.as_str(), price]).await? == 0 {
            return Err(Failure::rejected(codes::PRODUCT_EXISTS, format!("there is a product {id}")));
        }
        Ok(Reply::created(json!({"id": id, "name": name, "price": price})))
    })
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Adjustment {
    #[serde(default)]
    store_id: Option<Id>,
    product_id: Id,
    delta: i64,
}

/// `POST /stock/adjust`: puts units of a known product on a store's shelf, or takes available ones away.
pub(crate) async fn adjust(request: HttpRequest, payload: web::Payload, shared: web::Data<Shared>) -> HttpResponse {
    management::change(&request, payload, &shared, apply_adjustment).await
}

fn apply_adjustment(tx: &mut Tx, asked: Asked<Adjustment>) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        let Adjustment { store_id, product_id, delta } = asked.body;
        let store = store_id.as_ref().map_or(STORE_DEFAULT, Id::as_str);
        if !(-DELTA_MAX..=DELTA_MAX).contains(&delta) {
            return Err(management::invalid("delta", format!("{delta} is not within ±{DELTA_MAX}")));
        }
        let known = tx.row("SELECT id FROM products WHERE id = $1", params![product_id.as_str()]).await?;
        if known.is_none() {
            return Err(Failure::rejected(codes::NOT_FOUND, format!("there is no product {product_id}")));
        }
        let sql =
            "INSERT INTO stock (store_id, product_id, available, initial) VALUES ($1, $2, 0, 0) ON CONFLICT DO NOTHING";
        tx.execute(sql, params![store, product_id.as_str()]).await?;
        let sql = "UPDATE stock SET available = available + $3, initial = initial + $3
                   WHERE store_id = $1 AND product_id = $2 AND available + $3 >= 0 AND initial + $3 <= $4
                   RETURNING store_id, product_id, available, reserved, sold, initial";
        match tx.row(sql, params![store, product_id.as_str(), delta, UNITS_MAX]).await? {
            Some(row) => {
                let detail = json!({"store_id": store, "product_id": product_id, "delta": delta});
                Ok(Reply::ok(shelf(&row)?.counts).effect("stock_adjusted", detail))
            }
            None if delta < 0 => Err(Failure::rejected(
                codes::STOCK_TOO_LOW,
                format!("store {store} has less than {} of {product_id}", -delta),
            )),
            None => Err(Failure::rejected(codes::STOCK_TOO_HIGH, format!("a shelf holds at most {UNITS_MAX}"))),
        }
    })
}
