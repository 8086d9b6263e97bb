//! `GET /events`: the log.

use std::collections::BTreeMap;

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
    query::{self, After},
    wake::{Wake, Woken},
};
use crate::{
    access::scope::Scope,
    app::App,
    events::position::Place,
    storage::log::{LogFilter, LogPage, LogQuery},
};

problems!(Problems, InvalidParameter, StreamNotFound, DatabaseUnavailable);

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventPage {
    /// Within a shard oldest first.
    pub items: Vec<CloudEvent>,
    /// Give it as `after` to go on; it is there even when there is nothing more yet.
    #[schema(example = "p8a01")]
    pub next_cursor: String,
}

/// List events.
///
/// Of all streams, in the order in which they were committed within each shard. A page may hold fewer than `limit` events,
/// or none, although there are more: each call looks at a bounded part of the log. Go on with `next_cursor`, from where
/// nothing is missed and nothing comes twice. With `wait`, a call that finds nothing waits for something to come.
#[utoipa::path(
    get,
    path = "/events",
    operation_id = "listEvents",
    tag = "events",
    security(("bearer" = [Scope::EventsRead])),
    params(
        ("after" = Option<String>, Query, nullable = false,
         description = "A `next_cursor`; `end`: only what comes from now on. Left out: from the beginning"),
        ("limit" = Option<u32>, Query, nullable = false, minimum = 1, maximum = 250,
         description = "Items of a page; 50 if left out"),
        ("wait" = Option<String>, Query, nullable = false, example = "10s",
         description = "How long to wait when there is nothing, at most 60s"),
        ("type" = Option<String>, Query, nullable = false, description = "One or several, separated by commas"),
        ("kind" = Option<String>, Query, nullable = false, description = "One or several, separated by commas"),
        ("definition" = Option<String>, Query, nullable = false, description = "Of the saga; one or several"),
        ("category" = Option<String>, Query, nullable = false, description = "`saga`, or of other streams; one or several"),
        ("mode" = Option<String>, Query, nullable = false, description = "Of the saga"),
        ("stream" = Option<String>, Query, nullable = false, description = "Of one stream only"),
        ("correlation_id" = Option<String>, Query, nullable = false, description = "The event's, or its saga's"),
        ("actor" = Option<String>, Query, nullable = false, description = "Who caused it"),
        ("since" = Option<String>, Query, nullable = false, format = "date-time", description = "Not before"),
        ("until" = Option<String>, Query, nullable = false, format = "date-time", description = "Before"),
    ),
    responses((status = 200, description = "A page of events", body = EventPage), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut params = Params::of(&req);
    let after = params.take::<After>("after").unwrap_or(After::Place(Place::default()));
    let limit = params.limit();
    let until = Instant::now() + query::wait(&mut params);
    let wanted = query::wanted(&mut params);
    params.finish()?;
    let filter = wanted.resolve(&app).await?;
    let mut place = begin(&app, after).await?;
    let mut wake = Wake::of(&app);
    loop {
        let mut beyond = app.tail().beyond();
        let page = read(&app, &place, &filter, limit).await?;
        place = Place(page.read_to);
        let woken = match (page.events.is_empty(), page.more) {
            (false, _) => Woken::Late,
            (true, true) => continue,
            (true, false) => {
                (beyond.after, beyond.filter) = (place.0.clone(), filter.clone());
                wake.wait_beyond(until, &mut beyond).await
            }
        };
        if woken != Woken::Grown {
            let items = page.events.into_iter().map(CloudEvent::try_from).collect::<Result<_, _>>()?;
            return Ok(HttpResponse::Ok().json(EventPage { items, next_cursor: place.to_string() }));
        }
    }
}

/// Where the log is to be read from.
///
/// # Errors
///
/// When the database does not answer.
pub async fn begin(app: &App, after: After) -> Result<Place, Problem> {
    match after {
        After::Place(place) => Ok(place.over(app.shards())),
        After::End => Ok(Place(app.read_log(|log| async move { log.heads().await }).await?)),
    }
}

/// One look at the log.
///
/// # Errors
///
/// When the database does not answer.
pub async fn read(app: &App, place: &Place, filter: &LogFilter, limit: u32) -> Result<LogPage, Problem> {
    let query = LogQuery { after: place.0.clone(), until: BTreeMap::new(), limit, filter: filter.clone() };
    app.read_log(move |log| async move { log.log(&query).await }).await
}
