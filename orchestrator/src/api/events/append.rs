//! `POST /streams/{id}/events`: what happened, told by whoever knows.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use skald_core::shard::appends::{AppendRequest, Appended, ExpectedVersion, ToAppend};
use utoipa::{
    ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type, schema::SchemaType},
};

use super::{
    super::{
        body::{JsonBody, form, given},
        headers,
        params::Params,
        problem::{Code, FieldProblem, Problem, problems},
        refusal,
        request::RequestContext,
    },
    query, reports,
};
use crate::{access::scope::Scope, app::App, events::stream_name::StreamName};

const EVENTS_MAX: usize = 1000;
const WORD_CHARS_MAX: usize = 255;

problems!(
    Problems,
    InvalidJson,
    InvalidBody,
    InvalidParameter,
    StreamNotFound,
    StepNotFound,
    RequestTimeout,
    VersionConflict,
    SagaEnded,
    NotPossible,
    StepNotEnabled,
    SagaRemoved,
    BodyTooLarge,
    UnsupportedMediaType,
    EventIdReused,
    Overloaded,
    NoOwner,
    InDoubt,
    DatabaseUnavailable,
);

/// Events to append, all of them or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AppendEventsRequest {
    /// Of the stream's last event: 0 if the stream must not exist yet; `any` if it does not matter.
    #[schema(schema_with = expected_version)]
    expected_version: Expected,
    #[schema(min_items = 1, max_items = 1000)]
    events: Vec<EventToAppend>,
}

/// A number, or `any`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected(ExpectedVersion);

impl<'de> Deserialize<'de> for Expected {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let refused = || serde::de::Error::custom("must be a version, a whole number from 0, or \"any\"");
        match Value::deserialize(deserializer)? {
            Value::String(word) if word == "any" => Ok(Self(ExpectedVersion::Any)),
            Value::Number(number) => match number.as_i64().map(u64::try_from) {
                Some(Ok(version)) => Ok(Self(ExpectedVersion::Exactly(version))),
                _ => Err(refused()),
            },
            _ => Err(refused()),
        }
    }
}

// By hand, so that it is an inline number or text and no union type in generated clients.
pub(super) fn expected_version() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Integer, Type::String]))
        .minimum(Some(0))
        .pattern(Some("^any$"))
        .description(Some(
            "Of the stream's last event: 0 if the stream must not exist yet; `any` if it does not matter.",
        ))
        .into()
}

/// An event to append.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EventToAppend {
    /// Unique within the stream; the same event appended again has no further effect.
    #[schema(min_length = 1, max_length = 255, example = "5f0c4a52-1")]
    event_id: String,
    /// What happened. May be left out where the definition gives it, on the stream of a choreographed saga.
    #[serde(default, rename = "type", deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 255, example = "CartItemAdded")]
    type_name: Option<String>,
    /// Counted by whoever defines the type; 1 if left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, minimum = 1, maximum = 32767)]
    schema_version: Option<u16>,
    /// The request's `X-Correlation-Id` if left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 255)]
    correlation_id: Option<String>,
    /// The id of the event that led to it.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 255)]
    causation_id: Option<String>,
    /// Who caused it; the request's `X-Actor` if left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 255)]
    actor: Option<String>,
    data: Map<String, Value>,
}

/// The data as they were written.
#[derive(Deserialize)]
struct Verbatim {
    events: Vec<VerbatimEvent>,
}

#[derive(Deserialize)]
struct VerbatimEvent {
    data: Box<RawValue>,
}

/// Where the stream is after an append.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppendedEvents {
    #[schema(example = "cart-42")]
    pub stream: String,
    /// Of the last event that was appended.
    #[schema(example = 7)]
    pub version: u64,
}

/// Append events to a stream.
///
/// All of them or none. A stream is created by its first event. On the stream of a choreographed saga, participants say
/// here how their operations ended: `data` is then `{step, operation, outcome, output?, code?, reason?}`, where the outcome
/// is `succeeded`, `rejected`, `skipped`, `cancelled`, `compensated` or `output_invalid`; it is taken only while that
/// operation is under way, and the engine adds what follows from it. Other sagas' streams take no events from outside.
#[utoipa::path(
    post,
    path = "/streams/{id}/events",
    operation_id = "appendEvents",
    tag = "events",
    security(("bearer" = [Scope::EventsAppend])),
    params(
        ("id" = String, Path, description = "A name such as cart-42, or the id of a choreographed saga"),
        ("X-Actor" = Option<String>, Header, nullable = false, description = "Who caused the events that do not say"),
    ),
    request_body(content = AppendEventsRequest),
    responses(
        (status = 201, description = "The events are in the log", body = AppendedEvents),
        (status = 200, description = "They were there already", body = AppendedEvents,
         headers(("Idempotent-Replayed" = String))),
        Problems,
    ),
)]
pub async fn handle(
    app: web::Data<App>,
    context: RequestContext,
    req: HttpRequest,
    id: web::Path<String>,
    JsonBody(body): JsonBody,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let stream = query::stream(&id)?;
    let (text, value) = body.into_parts();
    let asked: AppendEventsRequest = form(value)?;
    asked.check()?;
    let actor = headers::actor(req.headers())?;
    let appended = append(&app, &context, actor.as_deref(), &stream, asked, &text).await?;
    let Appended { version, replayed, .. } = appended;
    let mut response = if replayed { HttpResponse::Ok() } else { HttpResponse::Created() };
    if replayed {
        response.insert_header(("Idempotent-Replayed", "true"));
    }
    Ok(response.json(AppendedEvents { stream: stream.to_string(), version }))
}

/// Appends to one stream; `raw` is the text of what was asked.
///
/// # Errors
///
/// What the stream's state, or its saga's, does not allow, or what cannot be done now.
pub(super) async fn append(
    app: &App,
    context: &RequestContext,
    actor: Option<&str>,
    stream: &StreamName,
    asked: AppendEventsRequest,
    raw: &RawValue,
) -> Result<Appended, Problem> {
    match stream {
        StreamName::Saga(saga) => reports::append(app, *saga, asked).await,
        StreamName::Other(name) => {
            let Verbatim { events } = serde_json::from_str(raw.get()).map_err(Problem::internal)?;
            let data = events.into_iter().map(|event| event.data);
            let request = request(Arc::clone(name), asked, data, actor, context)?;
            app.router().append(request).await.map_err(refusal::of_append)
        }
    }
}

fn request(
    stream: Arc<str>,
    asked: AppendEventsRequest,
    data: impl Iterator<Item = Box<RawValue>>,
    actor: Option<&str>,
    context: &RequestContext,
) -> Result<AppendRequest, Problem> {
    let to_append = |(index, (event, data)): (usize, (EventToAppend, Box<RawValue>))| {
        let Some(type_name) = event.type_name else {
            let reason = "is required, and missing";
            return Err(Problem::in_field(Code::InvalidBody, format!("/events/{index}/type"), reason));
        };
        Ok(ToAppend {
            event_id: Arc::from(event.event_id),
            type_name: Arc::from(type_name),
            schema_version: event.schema_version.unwrap_or(1),
            actor: event.actor.as_deref().or(actor).map(Arc::from),
            correlation_id: Some(event.correlation_id.map_or_else(|| Arc::clone(&context.correlation_id), Arc::from)),
            causation_id: query::shared(event.causation_id),
            data,
        })
    };
    let events = asked.events.into_iter().zip(data).enumerate().map(to_append).collect::<Result<_, _>>()?;
    Ok(AppendRequest { stream, expected: asked.expected_version.0, events, entropy: rand::random() })
}

impl AppendEventsRequest {
    pub(super) const fn new(expected_version: Expected, events: Vec<EventToAppend>) -> Self {
        Self { expected_version, events }
    }

    /// What a schema would say of the words.
    ///
    /// # Errors
    ///
    /// Every place that is wrong.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let mut errors = Vec::new();
        let mut refuse = |place: String, reason: &str| errors.push(FieldProblem::new(place, reason));
        if self.events.is_empty() || self.events.len() > EVENTS_MAX {
            refuse("/events".to_owned(), "must hold 1 to 1000 events");
        }
        let mut ids = std::collections::HashSet::new();
        for (index, event) in self.events.iter().enumerate() {
            let words = [
                ("event_id", Some(&event.event_id)),
                ("type", event.type_name.as_ref()),
                ("correlation_id", event.correlation_id.as_ref()),
                ("causation_id", event.causation_id.as_ref()),
                ("actor", event.actor.as_ref()),
            ];
            for (name, word) in words {
                let Some(word) = word else { continue };
                let chars = word.chars().count();
                if chars == 0 || chars > WORD_CHARS_MAX || word.chars().any(char::is_control) {
                    refuse(
                        format!("/events/{index}/{name}"),
                        "must be 1 to 255 characters, none of them a control character",
                    );
                }
            }
            if event.schema_version.is_some_and(|version| version == 0 || version > i16::MAX.unsigned_abs()) {
                refuse(format!("/events/{index}/schema_version"), "must be from 1 to 32767");
            }
            if !ids.insert(&event.event_id) {
                refuse(format!("/events/{index}/event_id"), "is the id of another event of this request");
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(Problem::at(Code::InvalidBody, errors)) }
    }

    pub(super) const fn expected(&self) -> ExpectedVersion {
        self.expected_version.0
    }

    pub(super) fn into_events(self) -> Vec<(String, Option<String>, Map<String, Value>)> {
        self.events.into_iter().map(|event| (event.event_id, event.causation_id, event.data)).collect()
    }
}
