//! `POST /sagas`: starts a saga of the definition that the body names.

use std::num::NonZeroU32;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, value::RawValue};
use skald_core::{event::Mode, json::Document};
use utoipa::ToSchema;

use super::{
    super::{
        body::{form, given},
        params::Params,
        problem::{Code, Problem},
        request::RequestContext,
        words::SagaMode,
    },
    described::{StartHeaders, StartProblems, Started},
    starting::{Ask, StartBody, asked_in_headers, start},
};
use crate::{access::scope::Scope, app::App, events::stream_name::StreamName};

/// A saga to start.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartSagaRequest {
    #[schema(example = "checkout")]
    definition: String,
    /// The highest if left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = Option<u32>, minimum = 1)]
    version: Option<NonZeroU32>,
    /// `orchestrated` if left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    mode: Option<SagaMode>,
    /// Must satisfy the definition's schema.
    #[schema(required = true)]
    #[serde(deserialize_with = "any")]
    input: Value,
    /// A stream whose state fills in what the input lacks.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, example = "cart-42")]
    from: Option<String>,
}

/// The input as it was written.
#[derive(Deserialize)]
struct Verbatim {
    input: Box<RawValue>,
}

/// Unlike a plain `Value`, which a missing field would fill with null, this makes the field required.
fn any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Value::deserialize(deserializer)
}

/// Start a saga of any definition.
///
/// As `POST /sagas/{definition}`, with the definition named in the body.
#[utoipa::path(
    post,
    path = "/sagas",
    operation_id = "startAnySaga",
    tag = "sagas",
    security(("bearer" = [Scope::SagasStart])),
    params(
        StartHeaders,
    ),
    request_body(content = StartSagaRequest),
    responses(
        Started,
        StartProblems,
    ),
)]
pub async fn handle(
    app: web::Data<App>,
    context: RequestContext,
    req: HttpRequest,
    StartBody(body): StartBody,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let (key, prefer) = asked_in_headers(&req)?;
    let (text, value) = body.into_parts();
    let StartSagaRequest { definition, version, mode, input: value, from } = form(value)?;
    let Verbatim { input } = serde_json::from_str(text.get()).map_err(Problem::internal)?;
    let input = Document::new(input, value);
    let version = version.map(NonZeroU32::get);
    let mode = mode.map_or(Mode::Orchestrated, Mode::from);
    let no_stream = |reason: &str| Problem::in_field(Code::InvalidBody, "from", reason);
    let from = from.map(|name| name.parse::<StreamName>().map_err(no_stream)).transpose()?;
    start(&app, &context, Ask { definition, version, mode, input, from, key, prefer }).await
}
