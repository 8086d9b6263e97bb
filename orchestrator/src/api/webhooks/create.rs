//! `POST /webhooks`: asks to be told.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    super::{
        body::Form,
        endpoint,
        params::Params,
        problem::{Code, FieldProblem, Problem, problems},
    },
    view::{SagaNews, WebhookView},
};
use crate::{
    access::scope::Scope,
    app::App,
    webhooks::registry::{WEBHOOKS_MAX, Wanted},
};

const URL_CHARS_MAX: usize = 2048;
const DEFINITIONS_MAX: usize = 100;

problems!(
    Problems,
    InvalidJson,
    InvalidBody,
    InvalidParameter,
    RequestTimeout,
    TooManyWebhooks,
    BodyTooLarge,
    UnsupportedMediaType,
    DatabaseUnavailable,
);

/// Whom to tell, and of what.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookRequest {
    /// Where messages are posted to: https, and a public address, unless the server allows others.
    #[schema(max_length = 2048, example = "https://shop.example/skald")]
    url: String,
    /// Everything if left out.
    #[serde(default)]
    events: Vec<SagaNews>,
    /// Of whose sagas; of all if left out.
    #[serde(default)]
    #[schema(max_items = 100, example = json!(["checkout"]))]
    definitions: Vec<String>,
}

/// Make a webhook.
///
/// It is told of what comes from now on: at least once, each saga's news in order, signed as Standard Webhooks has it. A message
/// that is not answered with 2xx is sent again, later and later, for about three days; 410 ends it all. The secret is shown once.
#[utoipa::path(
    post,
    path = "/webhooks",
    operation_id = "createWebhook",
    tag = "webhooks",
    security(("bearer" = [Scope::WebhooksWrite])),
    request_body(content = WebhookRequest),
    responses(
        (status = 201, description = "The webhook, with its secret", body = WebhookView,
         headers(("Location" = String, description = "The webhook's path"))),
        Problems,
    ),
)]
pub async fn handle(
    app: web::Data<App>,
    req: HttpRequest,
    Form(request): Form<WebhookRequest>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let wanted = checked(&app, request)?;
    let now = app.clock().now();
    let adding = app.webhooks(move |registry| async move { registry.add(wanted, now).await });
    let add = async {
        let full = || Problem::new(Code::TooManyWebhooks, format!("There are {WEBHOOKS_MAX} already: delete one."));
        adding.await?.ok_or_else(full)
    };
    let webhook = app.recorded(endpoint::act(&req, "webhook.create", "/webhooks".to_owned()), add).await?;
    let secret = app.webhook_registry().secret(&webhook);
    let location = format!("/webhooks/{}", webhook.id);
    let body = WebhookView::from(webhook).with_secret(secret);
    Ok(HttpResponse::Created().insert_header((header::LOCATION, location)).json(body))
}

fn checked(app: &App, request: WebhookRequest) -> Result<Wanted, Problem> {
    let WebhookRequest { url, events, definitions } = request;
    let mut errors = Vec::new();
    if url.len() > URL_CHARS_MAX {
        errors.push(FieldProblem::new("/url", "must be at most 2048 bytes"));
    } else if let Err(reason) = app.webhook_registry().guard.check(&url) {
        errors.push(FieldProblem::new("/url", reason));
    }
    if definitions.len() > DEFINITIONS_MAX {
        errors.push(FieldProblem::new("/definitions", "must hold at most 100 names"));
    }
    for (at, name) in definitions.iter().enumerate() {
        if app.definitions().get(name, None).is_none() {
            errors.push(FieldProblem::new(format!("/definitions/{at}"), "must name a definition that is registered"));
        }
    }
    if !errors.is_empty() {
        return Err(Problem::at(Code::InvalidBody, errors));
    }
    Ok(Wanted { url, events: events.into_iter().map(Into::into).collect(), definitions })
}
