//! `GET /streams/{id}/events`: one stream.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{
    super::{
        params::Params,
        problem::{Problem, problems},
    },
    cloud_event::CloudEvent,
    query,
    wake::{Wake, Woken},
};
use crate::{
    access::scope::Scope,
    app::{App, saga_removed},
    events::stream_name::StreamName,
    storage::log::LogEvent,
};

problems!(Problems, InvalidParameter, StreamNotFound, SagaRemoved, DatabaseUnavailable);

/// A page of a stream, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct StreamPage {
    pub items: Vec<CloudEvent>,
    /// Give it as `after` to go on: the version of the page's last event, or the `after` of this call.
    #[schema(example = "50")]
    pub next_cursor: String,
}

/// List a stream's events.
///
/// A saga's stream is named by its id. Oldest first. With `wait`, a call that finds nothing after `after` waits for
/// something to come; a stream that does not exist is waited for too.
#[utoipa::path(
    get,
    path = "/streams/{id}/events",
    operation_id = "listStreamEvents",
    tag = "events",
    security(("bearer" = [Scope::EventsRead])),
    params(
        ("id" = String, Path, description = "A saga's id, or a name such as cart-42"),
        ("after" = Option<u64>, Query, nullable = false, description = "Only events of later versions; 0 if left out"),
        ("limit" = Option<u32>, Query, nullable = false, minimum = 1, maximum = 250,
         description = "Items of a page; 50 if left out"),
        ("wait" = Option<String>, Query, nullable = false, example = "10s",
         description = "How long to wait when there is nothing, at most 60s"),
    ),
    responses((status = 200, description = "A page of events, oldest first", body = StreamPage), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let mut params = Params::of(&req);
    let after = params.version_seen("after").unwrap_or(0);
    let limit = params.limit();
    let until = Instant::now() + query::wait(&mut params);
    params.finish()?;
    let stream = query::stream(&id)?;
    let mut wake = Wake::of(&app);
    loop {
        let events = read(&app, &stream, after, None, limit).await?;
        if events.is_empty() && wake.wait(until).await == Woken::Grown {
            continue;
        }
        if events.is_empty() {
            exists(&app, &stream).await?;
        }
        let next_cursor = events.last().map_or(after, |last| last.version).to_string();
        let items = events.into_iter().map(CloudEvent::try_from).collect::<Result<_, _>>()?;
        return Ok(HttpResponse::Ok().json(StreamPage { items, next_cursor }));
    }
}

/// Events of a stream of versions after `after` and up to `until`.
///
/// # Errors
///
/// When the database does not answer.
pub async fn read(
    app: &App,
    stream: &StreamName,
    after: u64,
    until: Option<u64>,
    limit: u32,
) -> Result<Vec<LogEvent>, Problem> {
    let Some(id) = query::id_of(app, stream).await? else { return Ok(Vec::new()) };
    app.read_log(move |log| async move { log.stream_log(id, after, until, limit).await }).await
}

/// # Errors
///
/// When there is no such stream, or none any more, or nobody can say.
pub async fn exists(app: &App, stream: &StreamName) -> Result<(), Problem> {
    if read(app, stream, 0, Some(1), 1).await?.is_empty() {
        return Err(match stream {
            StreamName::Saga(saga) if app.is_removed(*saga).await? => saga_removed(*saga),
            _ => query::no_such_stream(stream),
        });
    }
    Ok(())
}
