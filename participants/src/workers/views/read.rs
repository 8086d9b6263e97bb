//! `GET /read-models`, `/read-models/{name}` and `/read-models/{name}/{key}`.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};
use skald_kit::{Db, Problem, params};

use super::{Views, projector::Projector};
use crate::{codes, http, paging};

const KEY_CHARS_MAX: usize = 250;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    limit: Option<i64>,
    cursor: Option<String>,
}

/// The read model that the path names.
pub(super) fn projector_of<'v>(request: &HttpRequest, views: &'v Views) -> Result<&'v Arc<Projector>, Problem> {
    let name = request.match_info().get("name").unwrap_or_default();
    views.get(name).ok_or_else(|| {
        let names: Vec<&str> = views.projectors.keys().copied().collect();
        Problem::new(codes::NOT_FOUND, format!("there is no read model of this name; there are {}", names.join(", ")))
    })
}

/// `GET /read-models`
pub(super) async fn models(request: HttpRequest, views: web::Data<Views>) -> HttpResponse {
    let items: Vec<Value> = views
        .projectors
        .values()
        .map(|projector| json!({"name": projector.projection().name(), "items": projector.projection().items()}))
        .collect();
    http::respond(&request, Ok(json!({"items": items})))
}

/// `GET /read-models/{name}`: the keys with their summaries.
pub(super) async fn keys(request: HttpRequest, views: web::Data<Views>, db: web::Data<Db>) -> HttpResponse {
    let list = async {
        let projector = projector_of(&request, &views)?;
        let PageQuery { limit, cursor } = http::query(&request)?;
        let limit = paging::limit(limit)?;
        let [after] = paging::cursor(cursor.as_deref())?;
        let sql = "SELECT r.key, r.value FROM view_projections p
                   JOIN view_rows r ON r.projection = p.name AND r.generation = p.generation
                   WHERE p.name = $1 AND r.item = '' AND r.key > $2 ORDER BY r.key LIMIT $3";
        let rows = db.rows(sql, params![projector.projection().name(), after, limit + 1]).await?;
        let rows = rows
            .iter()
            .map(|row| Ok((row.get("key")?, parsed(&row.get::<String>("value")?)?)))
            .collect::<sqlx::Result<Vec<(String, Value)>>>()?;
        Ok(paging::page(rows, limit, |(key, _)| [key], |(key, summary)| keyed(key, summary.clone())))
    };
    http::respond(&request, list.await)
}

/// Summary and items in one statement, so that both are of one generation.
macro_rules! one {
    ($before:literal) => {
        concat!(
            "SELECT item, value FROM (
                 SELECT r.item, r.value FROM view_projections p
                 JOIN view_rows r ON r.projection = p.name AND r.generation = p.generation
                 WHERE p.name = $1 AND r.key = $2 AND r.item = '') summary
             UNION ALL
             SELECT item, value FROM (
                 SELECT r.item, r.value FROM view_projections p
                 JOIN view_rows r ON r.projection = p.name AND r.generation = p.generation
                 WHERE p.name = $1 AND r.key = $2 AND r.item <> '' ",
            $before,
            " ORDER BY r.item DESC LIMIT $3) items"
        )
    };
}

/// `GET /read-models/{name}/{key}`: what is known under a key, its items newest first.
pub(super) async fn one(request: HttpRequest, views: web::Data<Views>, db: web::Data<Db>) -> HttpResponse {
    let show = async {
        let projector = projector_of(&request, &views)?;
        let key = request.match_info().get("key").unwrap_or_default();
        let PageQuery { limit, cursor } = http::query(&request)?;
        let limit = paging::limit(limit)?;
        let not_found = || Problem::new(codes::NOT_FOUND, "there is nothing under this key");
        if key.is_empty() || key.chars().count() > KEY_CHARS_MAX || key.chars().any(char::is_control) {
            return Err(not_found());
        }
        let [before] = paging::cursor(cursor.as_deref())?;
        let (name, wanted) = (projector.projection().name(), limit + 1);
        let rows = if before.is_empty() {
            db.rows(one!(""), params![name, key, wanted]).await?
        } else {
            db.rows(one!("AND r.item < $4"), params![name, key, wanted, before]).await?
        };
        let (mut summary, mut items) = (None, Vec::new());
        for row in &rows {
            let (item, value): (String, Value) = (row.get("item")?, parsed(&row.get::<String>("value")?)?);
            if item.is_empty() {
                summary = Some(value);
            } else {
                items.push((item, value));
            }
        }
        let summary = summary.or_else(|| projector.projection().nothing_under(key));
        let mut shown = keyed(key, summary.ok_or_else(not_found)?);
        if let Some(field) = projector.projection().items() {
            // A union promises no order.
            items.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
            let page = paging::page(items, limit, |(item, _)| [item], |(_, value)| value.clone());
            shown[field] = page["items"].clone();
            shown["next_cursor"] = page["next_cursor"].clone();
        }
        Ok(shown)
    };
    http::respond(&request, show.await)
}

/// A summary with its key in front.
fn keyed(key: &str, summary: Value) -> Value {
    let mut shown = json!({"key": key});
    if let (Value::Object(shown), Value::Object(fields)) = (&mut shown, summary) {
        shown.extend(fields);
    }
    shown
}

fn parsed(text: &str) -> sqlx::Result<Value> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}
