//! `GET /streams/{id}/state`: what a stream comes to, by replay.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use skald_core::{event::Fact, ids::SagaId};

use super::{
    super::{
        params::Params,
        problem::{Code, Problem, problems},
        view::Saga,
    },
    query,
    stream_events::{exists, read},
};
use crate::{
    access::scope::Scope,
    app::App,
    events::{reduce::Reduced, stream_name::StreamName},
};

/// Events read at a time.
const PAGE: u32 = 1000;

problems!(Problems, InvalidParameter, StreamNotFound, SagaRemoved, DatabaseUnavailable);

/// A stream's state.
#[derive(Debug, Serialize, ToSchema)]
pub struct StreamState {
    #[schema(example = "cart-42")]
    pub stream: String,
    /// Of the last event that the state holds.
    #[schema(example = 7)]
    pub version: u64,
    /// Of a saga: as `GET /sagas/{id}` shows it. Of a cart: what is in it. Of any other: the events' data, merged field by
    /// field, where later ones win and null removes.
    #[schema(value_type = Object)]
    pub state: Value,
}

/// Rebuild a stream's state.
///
/// From its events, up to a version if one is given: a saga's by the engine's own fold.
#[utoipa::path(
    get,
    path = "/streams/{id}/state",
    operation_id = "getStreamState",
    tag = "events",
    security(("bearer" = [Scope::EventsRead])),
    params(
        ("id" = String, Path, description = "A saga's id, or a name such as cart-42"),
        ("version" = Option<u64>, Query, nullable = false, minimum = 1,
         description = "As of this version; as of the last event if left out"),
    ),
    responses((status = 200, description = "The state", body = StreamState), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let mut params = Params::of(&req);
    let until = params.version_seen("version");
    if until == Some(0) {
        params.refuse("version", "must be at least 1: before its first event a stream does not exist");
    }
    params.finish()?;
    let stream = query::stream(&id)?;
    let (version, state) = match &stream {
        StreamName::Saga(saga) => {
            let view = of_saga(&app, *saga, until).await?;
            (view.revision, serde_json::to_value(view).map_err(Problem::internal)?)
        }
        StreamName::Other(name) => of_named(&app, &stream, name, until).await?,
    };
    if let Some(asked) = until
        && asked > version
    {
        let reason = format!("is larger than the stream's version, {version}");
        return Err(Problem::in_field(Code::InvalidParameter, "version", reason));
    }
    Ok(HttpResponse::Ok().json(StreamState { stream: stream.to_string(), version, state }))
}

async fn of_saga(app: &App, saga: SagaId, until: Option<u64>) -> Result<Saga, Problem> {
    let Some(until) = until else { return app.saga(saga).await };
    let (definition, mut stream) = app.saga_stream(saga).await?;
    stream.truncate(usize::try_from(until).unwrap_or(usize::MAX));
    app.shown(&definition, stream.iter().map(Fact::from)).await
}

/// The version and state of a stream that is no saga, as of version `until` if one is given.
///
/// # Errors
///
/// When there is no such stream, or the database does not answer.
pub async fn of_named(app: &App, stream: &StreamName, name: &str, until: Option<u64>) -> Result<(u64, Value), Problem> {
    let (mut version, mut state) = (0, Reduced::of(name));
    loop {
        let events = read(app, stream, version, until, PAGE).await?;
        let whole = events.len() < PAGE as usize;
        for event in events {
            version = event.version;
            state.apply(&event.type_name, serde_json::from_str(event.data.get()).map_err(Problem::internal)?);
        }
        if whole {
            break;
        }
    }
    if version == 0 {
        exists(app, stream).await?;
    }
    Ok((version, state.into_value()))
}
