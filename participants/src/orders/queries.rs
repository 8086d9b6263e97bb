//! Looking at orders.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};
use skald_kit::{Problem, Row, params};

use crate::{
    body::Id,
    codes,
    http::{self, Shared},
    paging,
};

/// `GET /orders/{id}`
pub(crate) async fn show(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let show = async {
        let not_found = || Problem::new(codes::NOT_FOUND, "there is no such order");
        let id = http::path_id(&request)?.ok_or_else(not_found)?;
        let sql =
            "SELECT id, customer_id, items, total, status, reason, created_at, updated_at FROM orders WHERE id = $1";
        let row = shared.barrier.db().row(sql, params![id.as_str()]).await?.ok_or_else(not_found)?;
        Ok(shown(&row)?.1)
    };
    http::respond(&request, show.await)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrdersQuery {
    customer_id: Option<Id>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// `GET /orders`
pub(crate) async fn list(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let list = async {
        let query: OrdersQuery = http::query(&request)?;
        let limit = paging::limit(query.limit)?;
        let [after] = paging::cursor(query.cursor.as_deref())?;
        let sql = "SELECT id, customer_id, items, total, status, reason, created_at, updated_at FROM orders
                   WHERE id > $1 AND ($2 IS NULL OR customer_id = $2) ORDER BY id LIMIT $3";
        let customer = query.customer_id.map(String::from);
        let rows = shared.barrier.db().rows(sql, params![after, customer, limit + 1]).await?;
        let rows = rows.iter().map(shown).collect::<sqlx::Result<Vec<_>>>()?;
        Ok(paging::page(rows, limit, |(id, _)| [id], |(_, order)| order.clone()))
    };
    http::respond(&request, list.await)
}

fn shown(row: &Row) -> sqlx::Result<(String, Value)> {
    let text = |column| row.get::<String>(column);
    let id = text("id")?;
    let items: Value = serde_json::from_str(&text("items")?).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let order = json!({
        "id": id, "customer_id": text("customer_id")?, "items": items, "total": row.get::<Option<i64>>("total")?,
        "status": text("status")?, "reason": row.get::<Option<String>>("reason")?,
        "created_at": text("created_at")?, "updated_at": text("updated_at")?,
    });
    Ok((id, order))
}
