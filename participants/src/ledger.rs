//! `GET /ledger`: every effect of the service, for those who check sagas.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;
use skald_kit::{Problem, ledger};

use crate::{
    body::Id,
    codes,
    http::{self, Shared},
};

const LIMIT_DEFAULT: i64 = 250;
const LIMIT_MAX: i64 = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LedgerQuery {
    after: Option<i64>,
    limit: Option<i64>,
    saga_id: Option<Id>,
}

pub(crate) async fn show(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    http::respond(&request, read(&request, &shared).await)
}

async fn read(request: &HttpRequest, shared: &Shared) -> Result<serde_json::Value, Problem> {
    let query: LedgerQuery = http::query(request)?;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        let detail = format!("limit: {limit} is not within 1..={LIMIT_MAX}");
        return Err(Problem::new(codes::INVALID_QUERY, detail).with("field", "limit"));
    }
    let after = query.after.unwrap_or(0);
    let filter = ledger::Query { after, saga_id: query.saga_id.map(String::from), limit };
    let items = ledger::read(shared.barrier.db(), filter).await?;
    let next_after = items.last().map_or(after, |last| last.id);
    Ok(json!({ "items": items, "next_after": next_after }))
}
