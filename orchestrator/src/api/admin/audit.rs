//! `GET /admin/audit`: who did, or was refused, what; newest first.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::super::{
    params::{Params, TimeParam},
    problem::{Problem, problems},
    words::Moment,
};
use crate::{
    access::scope::Scope,
    app::App,
    storage::access::{AuditEntry, AuditFilter, AuditOutcome},
};

/// A page of the audit log, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditPage {
    items: Vec<AuditItem>,
    /// Give it as `cursor`, with the same filters, to go on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

/// A line of the audit log. An action has two, under one request id: that it began, and how it ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditItem {
    #[schema(format = "uuid")]
    id: String,
    at: Moment,
    /// Absent when nobody said who.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "jane")]
    actor: Option<String>,
    /// What showed who it is: `key:` and a key's id, `token`, or `command line`. Absent when nothing did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "key:5f2a90c1d3e4")]
    credential: Option<String>,
    #[schema(example = "saga.retry")]
    action: String,
    /// What it was done to; of a refusal what was asked.
    #[schema(example = "/sagas/01890a5d-ac96-774b-bcce-b302099a8057")]
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "customer called")]
    reason: Option<String>,
    /// The idempotency key of the request, or what stood for it.
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    correlation_id: Option<String>,
    outcome: AuditEnd,
    /// Of the problem that it ended with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "not_possible")]
    code: Option<String>,
    /// How often. The like of a refusal, shortly after another, are counted together.
    #[schema(example = 1)]
    times: u32,
}

/// How an action ended. `begun`: it is about to be done; without a line after it the process died meanwhile. `refused`: who
/// asked may not. `unknown`: nobody waited for the end.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditEnd {
    Begun,
    Done,
    Failed,
    Refused,
    Unknown,
}

/// Which entries to list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it only describes; the handler reads parameter by parameter")]
struct AuditParams {
    #[param(nullable = false, max_length = 1024, example = "jane")]
    actor: Option<String>,
    #[param(nullable = false, max_length = 1024, example = "saga.retry")]
    action: Option<String>,
    #[param(nullable = false, max_length = 1024)]
    target: Option<String>,
    #[param(nullable = false, max_length = 1024)]
    request_id: Option<String>,
    #[param(nullable = false)]
    outcome: Option<AuditEnd>,
    #[param(nullable = false, inline)]
    recorded_after: Option<Moment>,
    #[param(nullable = false, inline)]
    recorded_before: Option<Moment>,
    /// `next_cursor` of the page before.
    #[param(nullable = false)]
    cursor: Option<String>,
    /// Items of a page; 50 if left out.
    #[param(nullable = false, minimum = 1, maximum = 250)]
    limit: Option<u32>,
}

problems!(Problems, InvalidParameter, InvalidCursor, DatabaseUnavailable);

/// List the audit log.
///
/// Every action of an operator, every change of a key, and every request that was refused for who made it; newest first.
#[utoipa::path(
    get,
    path = "/admin/audit",
    operation_id = "listAuditLog",
    tag = "admin",
    security(("bearer" = [Scope::AuditRead])),
    params(AuditParams),
    responses((status = 200, description = "A page of entries, newest first", body = AuditPage), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut params = Params::of(&req);
    let mut filter = AuditFilter {
        actor: params.take("actor"),
        action: params.take("action"),
        target: params.take("target"),
        request_id: params.take("request_id"),
        outcome: params.take("outcome"),
        recorded_after: params.take("recorded_after").map(|TimeParam(time)| time),
        recorded_before: params.take("recorded_before").map(|TimeParam(time)| time),
        before: None,
        limit: 0,
    };
    let cursor: Option<String> = params.take("cursor");
    let limit = params.limit();
    params.finish()?;
    // What the cursor is signed with: the filters, and neither place nor size of the page.
    let query = format!("{filter:?}");
    filter.before = cursor.map(|cursor| app.cursors().read(&cursor, &query)).transpose()?;
    filter.limit = limit + 1;
    let mut entries = app.read(|store| async move { store.audit_log(&filter).await }).await?;
    let more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    let next_cursor = entries.last().filter(|_| more).map(|last| app.cursors().after(last.id, &query));
    let items = entries.into_iter().map(AuditItem::from).collect();
    Ok(HttpResponse::Ok().json(AuditPage { items, next_cursor }))
}

impl From<AuditEntry> for AuditItem {
    fn from(entry: AuditEntry) -> Self {
        let outcome = match entry.outcome {
            AuditOutcome::Begun => AuditEnd::Begun,
            AuditOutcome::Done => AuditEnd::Done,
            AuditOutcome::Failed => AuditEnd::Failed,
            AuditOutcome::Refused => AuditEnd::Refused,
            AuditOutcome::Unknown => AuditEnd::Unknown,
        };
        Self {
            id: entry.id.to_string(),
            at: entry.at.into(),
            actor: entry.actor,
            credential: entry.credential,
            action: entry.action,
            target: entry.target,
            reason: entry.reason,
            request_id: entry.request_id,
            correlation_id: entry.correlation_id,
            outcome,
            code: entry.code,
            times: entry.times,
        }
    }
}
