//! `/groups/{name}/parked`: events that a group could not handle, for people to look at.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use skald_core::ids::Shard;
use utoipa::ToSchema;

use super::{
    super::{
        endpoint,
        events::cloud_event::CloudEvent,
        params::Params,
        problem::{Code, Problem, problems},
        words::Moment,
    },
    group_name, no_such_group,
};
use crate::{access::scope::Scope, app::App, storage::groups::Parked};

problems!(ListProblems, InvalidParameter, InvalidCursor, GroupNotFound, DatabaseUnavailable);
problems!(Problems, InvalidParameter, GroupNotFound, ParkedEventNotFound, DatabaseUnavailable);

/// Events that a group could not handle.
#[derive(Debug, Serialize, ToSchema)]
pub struct ParkedPage {
    /// By shard and position.
    pub items: Vec<ParkedEvent>,
    /// Give it as `cursor` to go on; absent when there were no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "0.4711")]
    pub next_cursor: Option<String>,
}

/// An event that a group could not handle. Its stream waits until it is replayed or dropped.
#[derive(Debug, Serialize, ToSchema)]
pub struct ParkedEvent {
    pub event: CloudEvent,
    #[schema(example = 0)]
    pub shard: u16,
    #[schema(example = 4711)]
    pub position: i64,
    /// How often it was tried.
    #[serde(rename = "try")]
    #[schema(example = 5)]
    pub tries: u32,
    /// What the consumer said last.
    pub error: String,
    pub parked_at: Moment,
}

impl TryFrom<Parked> for ParkedEvent {
    type Error = Problem;

    fn try_from(Parked { event, tries, error, parked_at }: Parked) -> Result<Self, Problem> {
        let (shard, position) = (event.shard.0, event.position);
        Ok(Self { event: event.try_into()?, shard, position, tries, error, parked_at: parked_at.into() })
    }
}

/// List a group's parked events.
#[utoipa::path(
    get,
    path = "/groups/{name}/parked",
    operation_id = "listParkedEvents",
    tag = "groups",
    security(("bearer" = [Scope::GroupsRead])),
    params(
        ("name" = String, Path, description = "The group"),
        ("cursor" = Option<String>, Query, nullable = false, description = "A `next_cursor`"),
        ("limit" = Option<u32>, Query, nullable = false, minimum = 1, maximum = 250,
         description = "Items of a page; 50 if left out"),
    ),
    responses((status = 200, description = "A page of parked events", body = ParkedPage), ListProblems),
)]
pub async fn list(app: web::Data<App>, req: HttpRequest, name: web::Path<String>) -> Result<HttpResponse, Problem> {
    let mut params = Params::of(&req);
    let cursor = params.take::<String>("cursor");
    let limit = params.limit();
    params.finish()?;
    let after = cursor.map(|cursor| read_cursor(&cursor)).transpose()?;
    let name = group_name(&name)?;
    let asked = name.clone();
    let parked = app.groups(move |groups| async move { groups.parked(&asked, after, limit + 1).await }).await?;
    let mut parked = parked.ok_or_else(|| no_such_group(&name))?;
    let more = parked.len() > limit as usize;
    parked.truncate(limit as usize);
    let last = parked.last().filter(|_| more);
    let next_cursor = last.map(|last| format!("{}.{}", last.event.shard.0, last.event.position));
    let items = parked.into_iter().map(ParkedEvent::try_from).collect::<Result<_, _>>()?;
    Ok(HttpResponse::Ok().json(ParkedPage { items, next_cursor }))
}

fn read_cursor(cursor: &str) -> Result<(Shard, i64), Problem> {
    let place =
        cursor.split_once('.').and_then(|(shard, position)| Some((shard.parse().ok()?, position.parse().ok()?)));
    place.map(|(shard, position)| (Shard(shard), position)).ok_or_else(|| {
        Problem::in_field(Code::InvalidCursor, "cursor", "must be the next_cursor of a page of this list")
    })
}

/// Replay a parked event.
///
/// It is handed out again, with all its tries, and its stream goes on behind it.
#[utoipa::path(
    post,
    path = "/groups/{name}/parked/{shard}/{position}/replay",
    operation_id = "replayParkedEvent",
    tag = "groups",
    security(("bearer" = [Scope::GroupsManage])),
    params(
        ("name" = String, Path, description = "The group"),
        ("shard" = u16, Path, description = "Of the event"),
        ("position" = i64, Path, description = "Of the event"),
    ),
    responses((status = 204, description = "It will be handed out"), Problems),
)]
pub async fn replay(
    app: web::Data<App>,
    req: HttpRequest,
    path: web::Path<(String, u16, i64)>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let (name, shard, position) = path.into_inner();
    let name = group_name(&name)?;
    let asked = name.clone();
    let act = endpoint::act(&req, "parked.replay", format!("/groups/{name}/parked/{shard}/{position}"));
    let done = app.groups(move |groups| async move { groups.replay_parked(&asked, Shard(shard), position).await });
    answer(&name, app.recorded(act, done).await?)
}

/// Drop a parked event.
///
/// It is given up, and its stream goes on behind it.
#[utoipa::path(
    delete,
    path = "/groups/{name}/parked/{shard}/{position}",
    operation_id = "dropParkedEvent",
    tag = "groups",
    security(("bearer" = [Scope::GroupsManage])),
    params(
        ("name" = String, Path, description = "The group"),
        ("shard" = u16, Path, description = "Of the event"),
        ("position" = i64, Path, description = "Of the event"),
    ),
    responses((status = 204, description = "It is given up"), Problems),
)]
pub async fn drop(
    app: web::Data<App>,
    req: HttpRequest,
    path: web::Path<(String, u16, i64)>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let (name, shard, position) = path.into_inner();
    let name = group_name(&name)?;
    let asked = name.clone();
    let act = endpoint::act(&req, "parked.drop", format!("/groups/{name}/parked/{shard}/{position}"));
    let done = app.groups(move |groups| async move { groups.drop_parked(&asked, Shard(shard), position).await });
    answer(&name, app.recorded(act, done).await?)
}

fn answer(name: &str, done: Option<bool>) -> Result<HttpResponse, Problem> {
    match done {
        Some(true) => Ok(HttpResponse::NoContent().finish()),
        Some(false) => Err(Problem::new(Code::ParkedEventNotFound, "The group has parked no such event.")),
        None => Err(no_such_group(name)),
    }
}
