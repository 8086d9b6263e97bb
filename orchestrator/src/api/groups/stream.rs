//! `GET /groups/{name}/stream`: the events for a consumer as they come (server-sent events).

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web,
};
use bytes::Bytes;
use futures_util::stream;
use skald_core::time::Millis;
use tokio::time::Instant;

use super::{
    super::{
        events::wake::Wake,
        params::Params,
        problem::{Problem, problems},
    },
    get, group_name,
    poll::{DeliveredEvent, Next, checked, next},
};
use crate::{
    access::scope::Scope,
    app::App,
    storage::groups::{Delivery, Poll},
};

/// A comment is sent so often, so that nobody in between takes the connection for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a client waits before it connects again.
const RETRY_MS: u32 = 2000;
/// How long to wait when the database does not answer.
const POLL_AGAIN_AFTER: Duration = Duration::from_secs(1);

problems!(Problems, InvalidParameter, GroupNotFound, DatabaseUnavailable);

/// Follow a consumer group.
///
/// Server-sent events: `event` is the type, `data` a delivery as `POST /groups/{name}/poll` gives it. Settle each with
/// `POST /groups/{name}/settle`; what is not settled when its lease ends is handed out again.
#[utoipa::path(
    get,
    path = "/groups/{name}/stream",
    operation_id = "streamGroup",
    tag = "groups",
    security(("bearer" = [Scope::GroupsConsume])),
    params(
        ("name" = String, Path, description = "The group"),
        ("consumer" = String, Query, description = "Names one consumer among the group's"),
        ("lease" = Option<String>, Query, nullable = false, example = "30s",
         description = "How long the consumer may take until it settles the oldest event that it has"),
        ("limit" = Option<u32>, Query, nullable = false, minimum = 1, maximum = 250,
         description = "Events handed out at a time; 50 if left out"),
    ),
    responses(
        (status = 200, description = "The events", content_type = "text/event-stream", body = String),
        Problems,
    ),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest, name: web::Path<String>) -> Result<HttpResponse, Problem> {
    let mut params = Params::of(&req);
    let consumer = params.take::<String>("consumer");
    let lease = params.take::<Millis>("lease");
    let limit = params.limit();
    if consumer.is_none() {
        params.refuse("consumer", "is required: a name of your own for this consumer");
    }
    params.finish()?;
    let poll = checked(group_name(&name)?, consumer.unwrap_or_default(), Some(limit), lease)?;
    get::view(&app, poll.group.clone()).await?;
    let mut response = HttpResponse::Ok();
    response
        .content_type("text/event-stream; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // Compressed, an event would wait for those after it.
        .insert_header((header::CONTENT_ENCODING, "identity"))
        .insert_header(("X-Accel-Buffering", "no"));
    if req.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let ready = VecDeque::from([format!("retry: {RETRY_MS}\n\n")]);
    let reader = Reader { wake: Wake::of(&app), app, poll, ready };
    Ok(response.streaming(stream::unfold(reader, Reader::next)))
}

/// One consumer that follows its group.
struct Reader {
    app: web::Data<App>,
    poll: Poll,
    wake: Wake,
    /// Pieces to send before anything else is asked for.
    ready: VecDeque<String>,
}

impl Reader {
    /// The next piece of the stream; None when the server stops or the group is gone.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            if let Some(text) = self.ready.pop_front() {
                return Some((Ok(Bytes::from(text)), self));
            }
            match next(&self.app, &mut self.poll, &mut self.wake, Instant::now() + HEARTBEAT).await {
                Ok(Next { closing: true, .. }) => return None,
                Ok(Next { deliveries, .. }) if deliveries.is_empty() => {
                    self.ready.push_back(": heartbeat\n\n".to_owned());
                }
                Ok(Next { deliveries, .. }) => self.ready.extend(deliveries.into_iter().filter_map(written)),
                Err(problem) if problem.code() == super::Code::GroupNotFound => return None,
                Err(problem) => {
                    tracing::debug!(cause = problem.cause(), "a group cannot be polled; trying again");
                    tokio::time::sleep(POLL_AGAIN_AFTER).await;
                }
            }
        }
    }
}

fn written(delivery: Delivery) -> Option<String> {
    match DeliveredEvent::try_from(delivery) {
        Ok(delivered) => {
            // Data may have line breaks, but only between its tokens: inside of strings JSON escapes them.
            let data = serde_json::to_string(&delivered).expect("an event has string keys").replace(['\n', '\r'], " ");
            Some(format!("event: {}\ndata: {data}\n\n", delivered.event.type_name))
        }
        Err(problem) => {
            tracing::error!(cause = problem.cause(), "an event cannot be shown");
            None
        }
    }
}
