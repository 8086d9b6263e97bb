//! `POST /admin/sagas/{retry,compensate,abandon}`: one action on every saga that a filter matches.
//!
//! A dry run unless told otherwise. Each saga is a command of its own: some may be refused while others are carried out,
//! and a repetition acts only on what still matches.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use skald_core::{
    decide::{OperatorAction, OperatorCommand},
    event::Mode,
    ids::SagaId,
    state::Status,
};
use utoipa::ToSchema;

use super::{
    super::{
        body::{Form, given},
        params::{Params, TimeParam},
        problem::{Code, Problem, problems},
        refusal,
        request::RequestContext,
        words::{Moment, SagaMode, SagaStatus},
    },
    answer::word,
    order::{Actor, ActorHeader, Order, Reason, RepeatHeader},
};
use crate::{access::scope::Scope, app::App, storage::SagaFilter};

/// Sagas of one request when it does not say, and at most.
const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1000;
/// Rows read at a time.
const PAGE: u32 = 250;
/// Commands under way at a time.
const CONCURRENT: usize = 32;

/// An action on several sagas.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkRequest {
    #[schema(value_type = String, min_length = 1, max_length = 500, example = "the participant is back")]
    reason: Reason,
    /// Who acts; the header `X-Actor` does as well.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, nullable = false, min_length = 1, max_length = 128, example = "jane")]
    actor: Option<Actor>,
    filter: BulkFilter,
    /// Only tell which sagas match. True if left out.
    #[serde(default = "yes")]
    #[schema(default = true)]
    dry_run: bool,
    /// Of the matching sagas, so many, newest first; 100 if left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Which sagas; all conditions must hold. Sagas that have ended never match.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkFilter {
    /// Any of these; those that the action is for if left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, example = json!(["parked"]))]
    status: Option<Vec<SagaStatus>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, example = "checkout")]
    definition: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    mode: Option<SagaMode>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    state: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    correlation_id: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Moment>, nullable = false, inline)]
    created_after: Option<TimeParam>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Moment>, nullable = false, inline)]
    created_before: Option<TimeParam>,
}

/// What an action on several sagas did.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkResult {
    /// Sagas that matched, up to the limit.
    matched: usize,
    /// Of those, on how many the action was carried out.
    applied: usize,
    /// The matching ones that the action was refused for.
    refused: Vec<BulkRefusal>,
    dry_run: bool,
    /// The sagas that matched.
    sagas: Vec<String>,
    /// Whether more sagas matched than the limit allowed.
    more: bool,
}

/// A saga that an action was refused for.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkRefusal {
    #[schema(format = "uuid")]
    id: String,
    #[schema(example = "not_possible")]
    code: &'static str,
    reason: String,
}

const fn yes() -> bool {
    true
}

problems!(
    Problems,
    InvalidJson,
    InvalidBody,
    InvalidParameter,
    RequestTimeout,
    BodyTooLarge,
    UnsupportedMediaType,
    DatabaseUnavailable,
);

/// Retry sagas.
///
/// Of every matching saga, what is parked, or waits for its next attempt, is called at once.
#[utoipa::path(
    post,
    path = "/admin/sagas/retry",
    operation_id = "retrySagas",
    tag = "admin",
    security(("bearer" = [Scope::SagasOperate])),
    params(ActorHeader, RepeatHeader),
    request_body(content = BulkRequest),
    responses((status = 200, description = "What was done, or would be", body = BulkResult), Problems),
)]
pub async fn retry(
    app: web::Data<App>,
    context: RequestContext,
    req: HttpRequest,
    Form(request): Form<BulkRequest>,
) -> Result<HttpResponse, Problem> {
    carry_out(app, context, &req, request, OperatorAction::Retry { step: None }).await
}

/// Compensate sagas.
///
/// Every matching saga that goes forward is undone.
#[utoipa::path(
    post,
    path = "/admin/sagas/compensate",
    operation_id = "compensateSagas",
    tag = "admin",
    security(("bearer" = [Scope::SagasOperate])),
    params(ActorHeader, RepeatHeader),
    request_body(content = BulkRequest),
    responses((status = 200, description = "What was done, or would be", body = BulkResult), Problems),
)]
pub async fn compensate(
    app: web::Data<App>,
    context: RequestContext,
    req: HttpRequest,
    Form(request): Form<BulkRequest>,
) -> Result<HttpResponse, Problem> {
    carry_out(app, context, &req, request, OperatorAction::Compensate).await
}

/// Abandon sagas.
///
/// Every matching saga that is parked is closed as it stands.
#[utoipa::path(
    post,
    path = "/admin/sagas/abandon",
    operation_id = "abandonSagas",
    tag = "admin",
    security(("bearer" = [Scope::SagasOperate])),
    params(ActorHeader, RepeatHeader),
    request_body(content = BulkRequest),
    responses((status = 200, description = "What was done, or would be", body = BulkResult), Problems),
)]
pub async fn abandon(
    app: web::Data<App>,
    context: RequestContext,
    req: HttpRequest,
    Form(request): Form<BulkRequest>,
) -> Result<HttpResponse, Problem> {
    carry_out(app, context, &req, request, OperatorAction::Abandon).await
}

async fn carry_out(
    app: web::Data<App>,
    context: RequestContext,
    req: &HttpRequest,
    request: BulkRequest,
    action: OperatorAction,
) -> Result<HttpResponse, Problem> {
    Params::of(req).finish()?;
    let order = Order::given(req, &request.reason, request.actor)?;
    let limit = match request.limit {
        Some(limit @ 1..=LIMIT_MAX) => limit,
        Some(_) => {
            return Err(Problem::in_field(Code::InvalidBody, "/limit", format!("must be from 1 to {LIMIT_MAX}")));
        }
        None => LIMIT_DEFAULT,
    };
    let filter = filter(request.filter, &action);
    let mut matching = matching(&app, filter, limit as usize + 1).await?;
    let more = matching.len() > limit as usize;
    matching.truncate(limit as usize);
    let sagas = matching.iter().map(SagaId::to_string).collect();
    let matched = matching.len();
    let refused = if request.dry_run {
        Vec::new()
    } else {
        let recorded = order.act(req, &format!("sagas.{}", word(&action)), "/sagas".to_owned());
        let app = app.into_inner();
        let acting = Arc::clone(&app);
        let all = app.detached(async move { act(&acting, &context, matching, &order, &action).await });
        app.recorded(recorded, all).await?
    };
    let applied = if request.dry_run { 0 } else { matched - refused.len() };
    Ok(HttpResponse::Ok().json(BulkResult { matched, applied, refused, dry_run: request.dry_run, sagas, more }))
}

/// What of the request's filter can be meant by the action.
fn filter(asked: BulkFilter, action: &OperatorAction) -> SagaFilter {
    let fitting: &[Status] = match action {
        OperatorAction::Abandon => &[Status::Parked],
        OperatorAction::Compensate => &[Status::Running, Status::Parked],
        OperatorAction::Retry { .. } | OperatorAction::Resolve { .. } | OperatorAction::Skip { .. } => {
            &[Status::Running, Status::Compensating, Status::Parked]
        }
    };
    let statuses = match asked.status {
        Some(statuses) => statuses.into_iter().map(Status::from).filter(|status| !status.is_ended()).collect(),
        None => fitting.to_vec(),
    };
    SagaFilter {
        statuses,
        definition: asked.definition,
        mode: asked.mode.map(Mode::from),
        state: asked.state,
        correlation_id: asked.correlation_id,
        created_after: asked.created_after.map(|TimeParam(time)| time),
        created_before: asked.created_before.map(|TimeParam(time)| time),
        before: None,
        limit: 0,
    }
}

/// The first so many sagas that match.
async fn matching(app: &App, mut filter: SagaFilter, count_max: usize) -> Result<Vec<SagaId>, Problem> {
    let mut found = Vec::new();
    // Only ended ones were asked for, and no status at all would mean any.
    if filter.statuses.is_empty() {
        return Ok(found);
    }
    while found.len() < count_max {
        filter.limit = PAGE.min(u32::try_from(count_max - found.len()).unwrap_or(PAGE));
        let page = filter.clone();
        let rows = app.read(|store| async move { store.list(&page).await }).await?;
        found.extend(rows.iter().map(|row| row.id));
        if rows.len() < filter.limit as usize {
            break;
        }
        filter.before = rows.last().map(|row| row.id);
    }
    Ok(found)
}

async fn act(
    app: &App,
    context: &RequestContext,
    sagas: Vec<SagaId>,
    order: &Order,
    action: &OperatorAction,
) -> Vec<BulkRefusal> {
    let act = |saga| async move {
        let command = OperatorCommand {
            actor: order.actor.clone(),
            reason: order.reason.clone(),
            request_id: Some(order.request_id.clone()),
            correlation_id: Some(context.correlation_id.to_string()),
            expected_revision: None,
            action: action.clone(),
        };
        let refused = app.router().operate(saga, command).await.err()?;
        let problem = refusal::of_saga(app, saga, refused).await;
        let (id, code) = (saga.to_string(), problem.code().as_str());
        Some(BulkRefusal { id, code, reason: problem.detail().to_owned() })
    };
    stream::iter(sagas).map(act).buffered(CONCURRENT).filter_map(std::future::ready).collect().await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::testing::{TestServer, answered};

    #[actix_web::test]
    async fn a_dry_run_tells_and_the_real_one_acts() {
        let server = TestServer::start().await;
        server.participants.answer("publish:action", answered(422, json!({"code": "no", "reason": "no"})));
        server.participants.answer("write:compensation", answered(410, json!({"code": "gone"})));
        let mut ids = Vec::new();
        for _ in 0..3 {
            let id = server.start_note().await;
            server.until(&id, "parked").await;
            ids.push(id);
        }
        let filter = json!({"status": ["parked"], "definition": "note"});
        let dry = server.act("/admin/sagas/retry", json!({"filter": filter})).await;
        assert_eq!(dry.status, 200, "{}", dry.text);
        assert_eq!((&dry.body["matched"], &dry.body["applied"]), (&json!(3), &json!(0)));
        assert_eq!(dry.body["dry_run"], true);
        assert_eq!(server.get(&format!("/sagas/{}", ids[0])).await.body["status"], "parked");

        let one = json!({"filter": filter, "dry_run": false, "limit": 1});
        let one = server.act("/admin/sagas/abandon", one).await;
        assert_eq!((&one.body["applied"], &one.body["more"]), (&json!(1), &json!(true)), "{}", one.text);
        server.participants.answer("write:compensation", answered(200, json!({})));
        let all = server.act("/admin/sagas/retry", json!({"filter": {}, "dry_run": false})).await;
        assert_eq!((&all.body["matched"], &all.body["applied"]), (&json!(2), &json!(2)), "{}", all.text);
        for id in &ids[..2] {
            server.until(id, "compensated").await;
        }
        assert_eq!(server.get(&format!("/sagas/{}", ids[2])).await.body["status"], "abandoned");
    }

    #[actix_web::test]
    async fn those_that_refuse_are_told_with_the_reason() {
        let server = TestServer::start().await;
        server.participants.hold("publish:action");
        let id = server.start_note().await;
        server.until(&id, "running").await;
        let body = json!({"filter": {"status": ["running", "completed"]}, "dry_run": false});
        let reply = server.act("/admin/sagas/abandon", body).await;
        assert_eq!((&reply.body["matched"], &reply.body["applied"]), (&json!(1), &json!(0)), "{}", reply.text);
        let refused = &reply.body["refused"][0];
        assert_eq!((&refused["id"], &refused["code"]), (&json!(id), &json!("not_possible")));
        server.participants.release("publish:action");
    }

    #[actix_web::test]
    async fn a_bad_filter_is_refused_with_its_place() {
        let server = TestServer::start().await;
        for (body, place) in [
            (json!({}), "/filter"),
            (json!({"filter": {"status": "parked"}}), "/filter/status"),
            (json!({"filter": {"status": ["stuck"]}}), "/filter/status/0"),
            (json!({"filter": {"colour": "red"}}), "/filter/colour"),
            (json!({"filter": {"created_after": "now"}}), "/filter/created_after"),
            (json!({"filter": {}, "limit": 0}), "/limit"),
            (json!({"filter": {}, "limit": 1001}), "/limit"),
            (json!({"filter": {}, "dry_run": "no"}), "/dry_run"),
        ] {
            let reply = server.act("/admin/sagas/retry", body.clone()).await;
            reply.problem(400, "invalid_body");
            assert_eq!(reply.body["errors"][0]["place"], place, "{body}: {}", reply.text);
        }
        let ended = server.act("/admin/sagas/retry", json!({"filter": {"status": ["completed"]}})).await;
        assert_eq!(ended.body["matched"], 0);
    }
}
