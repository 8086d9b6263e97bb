//! `POST /events`: appends to several streams in one request.

use std::collections::HashSet;

use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use utoipa::ToSchema;

use super::{
    super::{
        body::{JsonBody, form},
        headers,
        params::Params,
        problem::{Code, Problem, ProblemBody, problems},
        request::RequestContext,
    },
    append::{self, AppendEventsRequest, EventToAppend, Expected},
};
use crate::{access::scope::Scope, app::App, events::stream_name::StreamName};

const APPENDS_MAX: usize = 250;

problems!(Problems, InvalidJson, InvalidBody, InvalidParameter, RequestTimeout, BodyTooLarge, UnsupportedMediaType);

/// Appends to several streams, each on its own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AppendManyRequest {
    #[schema(min_items = 1, max_items = 250)]
    appends: Vec<StreamAppend>,
}

/// Events to append to one stream, all of them or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamAppend {
    /// A name such as cart-42, or the id of a choreographed saga; once in a request.
    #[schema(example = "cart-42")]
    stream: String,
    /// Of the stream's last event: 0 if the stream must not exist yet; `any` if it does not matter.
    #[schema(schema_with = append::expected_version)]
    expected_version: Expected,
    #[schema(min_items = 1, max_items = 1000)]
    events: Vec<EventToAppend>,
}

/// The appends as they were written.
#[derive(Deserialize)]
struct Verbatim {
    appends: Vec<Box<RawValue>>,
}

/// What became of each append, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppendResults {
    pub results: Vec<AppendResult>,
}

/// What became of one append.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppendResult {
    #[schema(example = "cart-42")]
    pub stream: String,
    /// As of an append alone: 201 appended, 200 there already, otherwise the problem's.
    #[schema(example = 201)]
    pub status: u16,
    /// Of the last event that was appended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 7)]
    pub version: Option<u64>,
    /// Why nothing was appended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<ProblemBody<'static>>)]
    pub problem: Option<Value>,
}

/// Append events to several streams.
///
/// Each append is made, refused or repeated on its own, as by a request of its own; together they cost less. Those that
/// can be made at once are committed together. Of a request that does not have the form nothing is appended.
#[utoipa::path(
    post,
    path = "/events",
    operation_id = "appendToStreams",
    tag = "events",
    security(("bearer" = [Scope::EventsAppend])),
    params(("X-Actor" = Option<String>, Header, nullable = false, description = "Who caused the events that do not say")),
    request_body(content = AppendManyRequest),
    responses((status = 200, description = "What became of each append", body = AppendResults), Problems),
)]
pub async fn handle(
    app: web::Data<App>,
    context: RequestContext,
    req: HttpRequest,
    JsonBody(body): JsonBody,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let (text, value) = body.into_parts();
    let asked = checked(form(value)?)?;
    let actor = headers::actor(req.headers())?;
    let Verbatim { appends: raw } = serde_json::from_str(text.get()).map_err(Problem::internal)?;
    let results = asked.into_iter().zip(&raw).map(async |((stream, asked), raw)| {
        let appended = append::append(&app, &context, actor.as_deref(), &stream, asked, raw).await;
        result(stream.to_string(), appended.map(|appended| (appended.version, appended.replayed)))
    });
    Ok(HttpResponse::Ok().json(AppendResults { results: join_all(results).await }))
}

/// Every append has the form, and a stream of its own: appends are made side by side.
fn checked(asked: AppendManyRequest) -> Result<Vec<(StreamName, AppendEventsRequest)>, Problem> {
    if asked.appends.is_empty() || asked.appends.len() > APPENDS_MAX {
        return Err(Problem::in_field(Code::InvalidBody, "/appends", "must hold 1 to 250 appends"));
    }
    let mut streams = HashSet::new();
    let check = |(index, StreamAppend { stream, expected_version, events }): (usize, StreamAppend)| {
        let refuse = |reason: &str| Problem::in_field(Code::InvalidBody, format!("/appends/{index}/stream"), reason);
        let name: StreamName = stream.parse().map_err(refuse)?;
        if !streams.insert(name.to_string()) {
            return Err(refuse("is the stream of another append of this request"));
        }
        let asked = AppendEventsRequest::new(expected_version, events);
        asked.check().map_err(|problem| problem.under(&format!("/appends/{index}")))?;
        Ok((name, asked))
    };
    asked.appends.into_iter().enumerate().map(check).collect()
}

fn result(stream: String, appended: Result<(u64, bool), Problem>) -> AppendResult {
    match appended {
        Ok((version, replayed)) => {
            AppendResult { stream, status: if replayed { 200 } else { 201 }, version: Some(version), problem: None }
        }
        Err(problem) => {
            if let Some(cause) = problem.cause() {
                tracing::error!(stream, code = problem.code().as_str(), cause, "an append failed");
            }
            let body = serde_json::to_value(problem.body()).expect("a problem has string keys and no floats");
            AppendResult { stream, status: problem.code().status(), version: None, problem: Some(body) }
        }
    }
}
