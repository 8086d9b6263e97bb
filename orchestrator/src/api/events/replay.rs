//! `POST /events/replay`: has a consumer group handle events once more.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::{
    body::{Form, given},
    endpoint,
    groups::{group_name, no_such_group},
    params::Params,
    problem::{Code, Problem, problems},
};
use crate::{
    access::scope::Scope,
    app::App,
    events::position::Place,
    storage::groups::{ReplayRange, Replayed},
};

/// Events that one call puts back, at most.
const EVENTS_MAX: u32 = 10_000;

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

/// A part of the log, and who is to handle it once more.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// The consumer group.
    #[schema(example = "audit")]
    group: String,
    /// After this place in the log; from the beginning if left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, example = "p00")]
    after: Option<String>,
    /// Up to this place, inclusive; as far as the group has looked if left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, example = "p8a01")]
    until: Option<String>,
}

/// What was put back.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReplayAnswer {
    /// How many events will be handed out again.
    pub events: u64,
    /// From here the next call goes on, as its `after`.
    #[schema(example = "p8a01")]
    pub next_cursor: String,
    /// Whether that was all.
    pub ended: bool,
}

/// Replay events into a consumer group.
///
/// Events that the group has handled are handed out again, each stream in order, and before its new ones. At most 10,000
/// a call: go on with `next_cursor` until it has `ended`.
#[utoipa::path(
    post,
    path = "/events/replay",
    operation_id = "replayEvents",
    tag = "events",
    security(("bearer" = [Scope::GroupsManage])),
    request_body(content = ReplayRequest),
    responses((status = 200, description = "What was put back", body = ReplayAnswer), Problems),
)]
pub async fn handle(
    app: web::Data<App>,
    req: HttpRequest,
    Form(request): Form<ReplayRequest>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let group = group_name(&request.group)
        .map_err(|_| Problem::in_field(Code::InvalidBody, "/group", "must be the name of a consumer group"))?;
    let after = place("/after", request.after)?.unwrap_or_default().over(app.shards());
    let until = place("/until", request.until)?;
    let act = endpoint::act(&req, "group.replay", format!("/groups/{group}"));
    let answer = app.recorded(act, replay(&app, group, after, until)).await?;
    Ok(HttpResponse::Ok().json(answer))
}

async fn replay(app: &App, group: String, mut after: Place, until: Option<Place>) -> Result<ReplayAnswer, Problem> {
    let (mut events, mut ended) = (0, true);
    for shard in after.0.keys().copied().collect::<Vec<_>>() {
        let limit = EVENTS_MAX - u32::try_from(events).unwrap_or(EVENTS_MAX).min(EVENTS_MAX);
        let until = until.as_ref().map_or(i64::MAX, |until| until.of(shard));
        if limit == 0 {
            ended = false;
            break;
        }
        let range = ReplayRange { shard, after: after.of(shard), until, limit };
        let asked = group.clone();
        let replayed = app.groups(move |groups| async move { groups.replay_range(&asked, &range).await }).await?;
        let Replayed { events: more, read_to, ended: whole } = replayed.ok_or_else(|| no_such_group(&group))?;
        events += more;
        ended &= whole;
        after.0.insert(shard, read_to);
    }
    Ok(ReplayAnswer { events, next_cursor: Place::to_string(&after), ended })
}

fn place(field: &str, text: Option<String>) -> Result<Option<Place>, Problem> {
    let read = |text: String| text.parse().map_err(|reason: &str| Problem::in_field(Code::InvalidBody, field, reason));
    text.map(read).transpose()
}
