//! `GET /notifications`: what customers were told, newest first.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use skald_kit::{
    Db, Problem, Row,
    events::{HIDDEN, is_sealed},
    params,
};

use crate::{body::Id, http, paging};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    saga: Option<Id>,
    customer: Option<Id>,
    kind: Option<Id>,
    status: Option<Id>,
    limit: Option<i64>,
    cursor: Option<String>,
}

pub(super) async fn list(request: HttpRequest, db: web::Data<Db>) -> HttpResponse {
    http::respond(&request, find(&request, &db).await)
}

async fn find(request: &HttpRequest, db: &Db) -> Result<Value, Problem> {
    let HistoryQuery { saga, customer, kind, status, limit, cursor } = http::query(request)?;
    let limit = paging::limit(limit)?;
    let (before, before_saga, before_kind) = match &cursor {
        None => (i64::MAX, String::new(), String::new()),
        Some(cursor) => {
            let [at, saga, kind] = paging::cursor(Some(cursor))?;
            (at.parse().map_err(|_| paging::no_cursor())?, saga, kind)
        }
    };
    let sql = "SELECT saga, kind, customer_id, email, subject, body, status, tries, error, created_at_us, sent_at_us
               FROM notifications
               WHERE (created_at_us, saga, kind) < ($1, $2, $3) AND ($4 IS NULL OR saga = $4)
                 AND ($5 IS NULL OR customer_id = $5) AND ($6 IS NULL OR kind = $6) AND ($7 IS NULL OR status = $7)
               ORDER BY created_at_us DESC, saga DESC, kind DESC LIMIT $8";
    let text = |id: Option<Id>| id.map(String::from);
    let (saga, customer, kind, status) = (text(saga), text(customer), text(kind), text(status));
    let params = params![before, before_saga, before_kind, saga, customer, kind, status, limit + 1];
    let rows = db.rows(sql, params).await?;
    let rows = rows.iter().map(shown).collect::<sqlx::Result<Vec<_>>>()?;
    Ok(paging::page(rows, limit, |(key, _)| [&key[0], &key[1], &key[2]], |(_, message)| message.clone()))
}

fn shown(row: &Row) -> sqlx::Result<([String; 3], Value)> {
    let text = |column| row.get::<String>(column);
    let optional = |column| row.get::<Option<String>>(column);
    let created_at_us: i64 = row.get("created_at_us")?;
    let (saga, kind) = (text("saga")?, text("kind")?);
    let email = optional("email")?.map(|email| if is_sealed(&email) { HIDDEN.to_owned() } else { email });
    let message = json!({
        "saga": saga, "kind": kind, "customer_id": optional("customer_id")?, "email": email,
        "subject": text("subject")?, "body": text("body")?, "status": text("status")?,
        "tries": row.get::<i64>("tries")?, "error": optional("error")?, "created_at": time(Some(created_at_us)),
        "sent_at": time(row.get("sent_at_us")?),
    });
    Ok(([created_at_us.to_string(), saga, kind], message))
}

fn time(micros: Option<i64>) -> Option<String> {
    let at = micros.and_then(DateTime::<Utc>::from_timestamp_micros)?;
    Some(at.to_rfc3339_opts(SecondsFormat::Micros, true))
}
