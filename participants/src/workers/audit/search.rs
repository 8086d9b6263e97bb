//! `GET /audit`: events, newest first.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use skald_kit::{Answer, Db, Problem, Row, params};

use crate::{body::Id, codes, http, paging};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    actor: Option<String>,
    stream: Option<String>,
    #[serde(rename = "type")]
    type_name: Option<String>,
    correlation_id: Option<String>,
    /// Not before.
    since: Option<DateTime<Utc>>,
    /// Before.
    until: Option<DateTime<Utc>>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// The events as they were given out: their data is not rewritten.
#[derive(Serialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// One statement for each column that may lead to the rows, so that its index is used.
macro_rules! search {
    ($leading:literal) => {
        concat!(
            "SELECT event, at_us, stream, version FROM audit_events
             WHERE ",
            $leading,
            " AND (at_us, stream, version) < ($1, $2, $3) AND at_us >= $4 AND at_us < $5
              AND ($6 IS NULL OR stream = $6) AND ($7 IS NULL OR actor = $7)
              AND ($8 IS NULL OR correlation_id = $8) AND ($9 IS NULL OR type = $9)
             ORDER BY at_us DESC, stream DESC, version DESC LIMIT $10"
        )
    };
}

pub(super) async fn list(request: HttpRequest, db: web::Data<Db>) -> HttpResponse {
    let answer = find(&request, &db).await.unwrap_or_else(Answer::from);
    http::send(&request, answer)
}

async fn find(request: &HttpRequest, db: &Db) -> Result<Answer, Problem> {
    let query: AuditQuery = http::query(request)?;
    let limit = paging::limit(query.limit)?;
    for (name, text) in [("actor", &query.actor), ("stream", &query.stream), ("type", &query.type_name)] {
        check(name, text.as_deref())?;
    }
    check("correlation_id", query.correlation_id.as_deref())?;
    let (at_us, stream, version) = match &query.cursor {
        None => (i64::MAX, String::new(), 0),
        Some(cursor) => {
            let [at_us, stream, version] = paging::cursor(Some(cursor))?;
            let number = |text: String| text.parse::<i64>().map_err(|_| paging::no_cursor());
            (number(at_us)?, stream, number(version)?)
        }
    };
    let sql = match &query {
        AuditQuery { stream: Some(_), .. } => search!("stream = $6"),
        AuditQuery { correlation_id: Some(_), .. } => search!("correlation_id = $8"),
        AuditQuery { actor: Some(_), .. } => search!("actor = $7"),
        AuditQuery { type_name: Some(_), .. } => search!("type = $9"),
        _ => search!("at_us > -1"),
    };
    let since = query.since.map_or(i64::MIN, |at| at.timestamp_micros());
    let until = query.until.map_or(i64::MAX, |at| at.timestamp_micros());
    let (actor, type_name) = (query.actor, query.type_name);
    let params =
        params![at_us, stream, version, since, until, query.stream, actor, query.correlation_id, type_name, limit + 1];
    let rows = db.rows(sql, params).await?;
    let mut rows = rows.iter().map(shown).collect::<sqlx::Result<Vec<_>>>()?;
    let next_cursor = paging::next_cursor(&mut rows, limit, |(_, at_us, stream, version)| [at_us, stream, version]);
    let page = Page { items: rows.into_iter().map(|(event, ..)| event).collect(), next_cursor };
    let body = serde_json::to_vec(&page).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(Answer { body, ..Answer::json(200, &serde_json::Value::Null) })
}

/// Texts that no database holds are nobody's.
fn check(name: &'static str, text: Option<&str>) -> Result<(), Problem> {
    let fits = |text: &str| Id::try_from(text.chars().take(128).collect::<String>()).is_ok();
    if text.is_none_or(fits) {
        return Ok(());
    }
    Err(Problem::new(codes::INVALID_QUERY, format!("{name}: empty, or with control characters")).with("field", name))
}

fn shown(row: &Row) -> sqlx::Result<(Box<RawValue>, String, String, String)> {
    let event = RawValue::from_string(row.get("event")?).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let number = |column| Ok::<_, sqlx::Error>(row.get::<i64>(column)?.to_string());
    Ok((event, number("at_us")?, row.get("stream")?, number("version")?))
}
