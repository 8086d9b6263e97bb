//! `POST /groups/{name}/settle`: what became of events that were handed out.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use skald_core::ids::Shard;
use utoipa::ToSchema;

use super::{
    super::{
        body::{Form, given},
        params::Params,
        problem::{Code, Problem, problems},
    },
    group_name, no_such_group,
};
use crate::{
    access::scope::Scope,
    app::App,
    storage::groups::{Settled, Settlement},
};

const SETTLEMENTS_MAX: usize = 1000;
/// Of an error, so much is kept.
const ERROR_CHARS_MAX: usize = 2000;

problems!(
    Problems,
    InvalidJson,
    InvalidBody,
    InvalidParameter,
    GroupNotFound,
    RequestTimeout,
    BodyTooLarge,
    UnsupportedMediaType,
    DatabaseUnavailable,
);

/// How handling an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettlementOutcome {
    Done,
    /// It is handed out again, by the group's retry policy.
    Failed,
    /// Trying again will not help: it is parked.
    Poison,
}

/// What became of an event that was handed out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettlementRequest {
    #[schema(example = 0)]
    shard: u16,
    #[schema(example = 4711)]
    position: i64,
    /// As it came with the event.
    #[schema(example = 17)]
    token: i64,
    outcome: SettlementOutcome,
    /// What went wrong, for people.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    error: Option<String>,
}

impl From<SettlementRequest> for Settlement {
    fn from(request: SettlementRequest) -> Self {
        let error = || request.error.unwrap_or_default().chars().filter(|c| *c != '\0').take(ERROR_CHARS_MAX).collect();
        let result = match request.outcome {
            SettlementOutcome::Done => Settled::Done,
            SettlementOutcome::Failed => Settled::Failed { error: error(), poison: false },
            SettlementOutcome::Poison => Settled::Failed { error: error(), poison: true },
        };
        Self { shard: Shard(request.shard), position: request.position, token: request.token, result }
    }
}

/// What to settle.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettleRequest {
    #[schema(max_items = 1000)]
    settle: Vec<SettlementRequest>,
}

/// A place in the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct RefusedSettlement {
    pub shard: u16,
    pub position: i64,
}

/// How it went.
#[derive(Debug, Serialize, ToSchema)]
pub struct SettleAnswer {
    /// Not taken: the lease had ended, or it was settled before. These events are handed out again, or have been.
    pub refused: Vec<RefusedSettlement>,
}

/// Settle events.
///
/// Those that were handed out by a poll or by the group's stream. A poll can do the same on its way.
#[utoipa::path(
    post,
    path = "/groups/{name}/settle",
    operation_id = "settleEvents",
    tag = "groups",
    security(("bearer" = [Scope::GroupsConsume])),
    params(("name" = String, Path, description = "The group")),
    request_body(content = SettleRequest),
    responses((status = 200, description = "What was not taken", body = SettleAnswer), Problems),
)]
pub async fn handle(
    app: web::Data<App>,
    req: HttpRequest,
    name: web::Path<String>,
    Form(request): Form<SettleRequest>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let (group, settlements) = (group_name(&name)?, settlements(request.settle)?);
    let asked = group.clone();
    let refused = app.groups(move |groups| async move { groups.settle(&asked, &settlements).await }).await?;
    let refused = shown(refused.ok_or_else(|| no_such_group(&group))?);
    Ok(HttpResponse::Ok().json(SettleAnswer { refused }))
}

/// # Errors
///
/// When there are too many.
pub(super) fn settlements(requests: Vec<SettlementRequest>) -> Result<Vec<Settlement>, Problem> {
    if requests.len() > SETTLEMENTS_MAX {
        return Err(Problem::in_field(Code::InvalidBody, "/settle", "must hold at most 1000 settlements"));
    }
    Ok(requests.into_iter().map(Settlement::from).collect())
}

pub(super) fn shown(refused: Vec<(Shard, i64)>) -> Vec<RefusedSettlement> {
    refused.into_iter().map(|(shard, position)| RefusedSettlement { shard: shard.0, position }).collect()
}
