//! `POST /groups/{name}/poll`: the next events for a consumer.

use std::{mem, time::Duration};

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use skald_core::{ids::Shard, time::Millis};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{
    super::{
        body::{Form, given},
        events::{
            cloud_event::CloudEvent,
            query::WAIT_MAX,
            wake::{Wake, Woken},
        },
        params::Params,
        problem::{Code, Problem, problems},
    },
    group_name, no_such_group,
    settle::{RefusedSettlement, SettlementRequest, settlements, shown},
};
use crate::{
    access::scope::Scope,
    app::App,
    storage::groups::{Delivery, Poll, Polled},
};

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 500;
const LEASE_DEFAULT: Millis = Millis(30_000);
const LEASE_MAX: Millis = Millis(3_600_000);
const CONSUMER_CHARS_MAX: usize = 128;

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

/// Who asks for events, and how many.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PollRequest {
    /// Names one consumer among the group's; the same over its polls.
    #[schema(min_length = 1, max_length = 128, example = "worker-1")]
    consumer: String,
    /// Events at most; 50 if left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// How long to wait when there is nothing, at most `60s`; not at all if left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = Option<String>, example = "20s")]
    wait: Option<Millis>,
    /// How long the consumer may take until it settles the oldest event that it has, `30s` if left out, at most `1h`. Then
    /// it goes to another one.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = Option<String>, example = "30s")]
    lease: Option<Millis>,
    /// What became of events of earlier polls.
    #[serde(default)]
    #[schema(max_items = 1000)]
    settle: Vec<SettlementRequest>,
}

/// Events to handle: those of one stream in their order, others in any.
#[derive(Debug, Serialize, ToSchema)]
pub struct PollAnswer {
    /// After an event that fails, the later ones of its stream are not to be handled: they come again.
    pub deliveries: Vec<DeliveredEvent>,
    /// Of what was settled with this poll.
    pub refused: Vec<RefusedSettlement>,
}

/// An event to handle, and to settle.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveredEvent {
    pub event: CloudEvent,
    #[schema(example = 0)]
    pub shard: u16,
    #[schema(example = 4711)]
    pub position: i64,
    /// To be given back when it is settled.
    #[schema(example = 17)]
    pub token: i64,
    /// 1 for the first.
    #[serde(rename = "try")]
    #[schema(example = 1)]
    pub tries: u32,
}

impl TryFrom<Delivery> for DeliveredEvent {
    type Error = Problem;

    fn try_from(Delivery { event, token, tries }: Delivery) -> Result<Self, Problem> {
        Ok(Self { shard: event.shard.0, position: event.position, token, tries, event: event.try_into()? })
    }
}

/// Ask for events to handle.
///
/// With `wait`, a poll that finds nothing waits for something to come. Each event is to be settled, with the next poll or on
/// its own, before its lease ends; else it is handed out again.
#[utoipa::path(
    post,
    path = "/groups/{name}/poll",
    operation_id = "pollGroup",
    tag = "groups",
    security(("bearer" = [Scope::GroupsConsume])),
    params(("name" = String, Path, description = "The group")),
    request_body(content = PollRequest),
    responses((status = 200, description = "The events", body = PollAnswer), Problems),
)]
pub async fn handle(
    app: web::Data<App>,
    req: HttpRequest,
    name: web::Path<String>,
    Form(request): Form<PollRequest>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let group = group_name(&name)?;
    let wait = request.wait.map_or(Duration::ZERO, |wait| Duration::from_millis(wait.0)).min(WAIT_MAX);
    let mut poll = checked(group, request.consumer, request.limit, request.lease)?;
    poll.settle = settlements(request.settle)?;
    let Next { deliveries, refused, .. } = next(&app, &mut poll, &mut Wake::of(&app), Instant::now() + wait).await?;
    let deliveries = deliveries.into_iter().map(DeliveredEvent::try_from).collect::<Result<_, _>>()?;
    Ok(HttpResponse::Ok().json(PollAnswer { deliveries, refused: shown(refused) }))
}

/// # Errors
///
/// When a bound is not kept.
pub(super) fn checked(
    group: String,
    consumer: String,
    limit: Option<u32>,
    lease: Option<Millis>,
) -> Result<Poll, Problem> {
    let (limit, lease) = (limit.unwrap_or(LIMIT_DEFAULT), lease.unwrap_or(LEASE_DEFAULT));
    let named = (1..=CONSUMER_CHARS_MAX).contains(&consumer.chars().count());
    let refused = if !named || consumer.chars().any(char::is_control) {
        Some(("/consumer", "must be 1 to 128 characters, none of them a control character"))
    } else if !(1..=LIMIT_MAX).contains(&limit) {
        Some(("/limit", "must be from 1 to 500"))
    } else if !(Millis(1000)..=LEASE_MAX).contains(&lease) {
        Some(("/lease", "must be from 1s to 1h"))
    } else {
        None
    };
    match refused {
        Some((place, reason)) => Err(Problem::in_field(Code::InvalidBody, place, reason)),
        None => Ok(Poll { group, consumer, limit, lease, settle: Vec::new() }),
    }
}

/// What a poll came to.
#[derive(Debug)]
pub(super) struct Next {
    pub deliveries: Vec<Delivery>,
    pub refused: Vec<(Shard, i64)>,
    /// Whether the server stops.
    pub closing: bool,
}

/// Settles what the poll says, once; then polls until there is something, it is late, or the server stops.
///
/// # Errors
///
/// When there is no such group, or the database does not answer.
pub(super) async fn next(app: &App, poll: &mut Poll, wake: &mut Wake, until: Instant) -> Result<Next, Problem> {
    let mut all_refused = Vec::new();
    loop {
        let asked = Poll { settle: mem::take(&mut poll.settle), ..poll.clone() };
        let polled = app.groups(move |groups| async move { groups.poll_group(&asked).await }).await?;
        let Polled { deliveries, next_at, mut beyond, refused } = polled.ok_or_else(|| no_such_group(&poll.group))?;
        all_refused.extend(refused);
        if !deliveries.is_empty() {
            return Ok(Next { deliveries, refused: all_refused, closing: false });
        }
        let due_in = next_at.map(|at| app.clock().now().until(at));
        let due = due_in.map_or(until, |due_in| Instant::now() + Duration::from_millis(due_in.0));
        match wake.wait_beyond(due.min(until), &mut beyond).await {
            Woken::Grown => {}
            Woken::Late if Instant::now() < until => {}
            woken => {
                let closing = woken == Woken::Closing;
                return Ok(Next { deliveries: Vec::new(), refused: all_refused, closing });
            }
        }
    }
}
