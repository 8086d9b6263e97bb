//! `GET /events/tail`: the log as it grows (server-sent events).

use std::{convert::Infallible, fmt::Write as _, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web,
};
use bytes::Bytes;
use futures_util::stream;
use tokio::time::Instant;

use super::{
    super::{
        headers,
        params::Params,
        problem::{Problem, problems},
    },
    cloud_event::CloudEvent,
    list::{begin, read},
    query::{self, After},
    wake::{Wake, Woken},
};
use crate::{access::scope::Scope, app::App, events::position::Place, storage::log::LogFilter};

/// A comment is sent so often, so that nobody in between takes the connection for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a client waits before it connects again.
const RETRY_MS: u32 = 2000;
/// Events read at a time.
const PAGE: u32 = 100;
/// How long to wait when the database does not answer.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

problems!(Problems, InvalidParameter, StreamNotFound, DatabaseUnavailable);

/// Follow the log.
///
/// Server-sent events: `id` is a place in the log, `event` the type, `data` the event as JSON. It never ends by itself. A
/// client that connects again with `Last-Event-ID` goes on where it was: nothing is missed and nothing comes twice.
#[utoipa::path(
    get,
    path = "/events/tail",
    operation_id = "tailEvents",
    tag = "events",
    security(("bearer" = [Scope::EventsRead])),
    params(
        ("after" = Option<String>, Query, nullable = false,
         description = "A place in the log: a `next_cursor`, or the id of an event of this stream. Left out: from now on"),
        ("Last-Event-ID" = Option<String>, Header, nullable = false,
         description = "The id of the last event seen; counts more than `after`"),
        ("type" = Option<String>, Query, nullable = false, description = "As for `GET /events`, like all that follow"),
        ("kind" = Option<String>, Query, nullable = false),
        ("definition" = Option<String>, Query, nullable = false),
        ("category" = Option<String>, Query, nullable = false),
        ("mode" = Option<String>, Query, nullable = false),
        ("stream" = Option<String>, Query, nullable = false),
        ("correlation_id" = Option<String>, Query, nullable = false),
        ("actor" = Option<String>, Query, nullable = false),
        ("since" = Option<String>, Query, nullable = false, format = "date-time"),
        ("until" = Option<String>, Query, nullable = false, format = "date-time"),
    ),
    responses(
        (status = 200, description = "The events", content_type = "text/event-stream", body = String),
        Problems,
    ),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut params = Params::of(&req);
    let after = params.take::<After>("after").unwrap_or(After::End);
    let wanted = query::wanted(&mut params);
    params.finish()?;
    let after = headers::last_place(req.headers())?.map_or(after, After::Place);
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
    let filter = wanted.resolve(&app).await?;
    let place = begin(&app, after).await?;
    let wake = Wake::of(&app);
    let greeting = Some(format!("retry: {RETRY_MS}\n\n"));
    let reader = Reader { app, place, filter, wake, greeting, heartbeat_at: Instant::now() + HEARTBEAT };
    Ok(response.streaming(stream::unfold(reader, Reader::next)))
}

/// One client that follows the log.
struct Reader {
    app: web::Data<App>,
    place: Place,
    filter: LogFilter,
    wake: Wake,
    greeting: Option<String>,
    heartbeat_at: Instant,
}

impl Reader {
    /// The next piece of the stream; None when the server stops.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if let Some(greeting) = self.greeting.take() {
            return Some((Ok(Bytes::from(greeting)), self));
        }
        loop {
            let mut beyond = self.app.tail().beyond();
            let text = match read(&self.app, &self.place, &self.filter, PAGE).await {
                Ok(page) if page.events.is_empty() && !page.more => {
                    self.place = Place(page.read_to);
                    (beyond.after, beyond.filter) = (self.place.0.clone(), self.filter.clone());
                    match self.wake.wait_beyond(self.heartbeat_at, &mut beyond).await {
                        Woken::Grown => continue,
                        Woken::Closing => return None,
                        Woken::Late => {
                            self.heartbeat_at = Instant::now() + HEARTBEAT;
                            ": heartbeat\n\n".to_owned()
                        }
                    }
                }
                Ok(page) => {
                    let text = self.written(page.events);
                    self.place = Place(page.read_to);
                    text
                }
                Err(problem) => {
                    tracing::debug!(cause = problem.cause(), "the log cannot be read; trying again");
                    tokio::time::sleep(READ_AGAIN_AFTER).await;
                    continue;
                }
            };
            if !text.is_empty() {
                return Some((Ok(Bytes::from(text)), self));
            }
        }
    }

    /// Each event with the place after it, from which a client may go on.
    fn written(&mut self, events: Vec<crate::storage::log::LogEvent>) -> String {
        let mut text = String::new();
        for event in events {
            self.place.0.insert(event.shard, event.position);
            match CloudEvent::try_from(event) {
                Ok(event) => {
                    // Data may have line breaks, but only between its tokens: inside of strings JSON escapes them.
                    let data = serde_json::to_string(&event).expect("an event has string keys");
                    let data = data.replace(['\n', '\r'], " ");
                    write!(text, "id: {}\nevent: {}\ndata: {data}\n\n", self.place, event.type_name)
                        .expect("writing to a string does not fail");
                }
                Err(problem) => tracing::error!(cause = problem.cause(), "an event cannot be shown"),
            }
        }
        text
    }
}
