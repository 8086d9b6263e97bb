//! `GET /webhooks/{id}/attempts`: what came of telling.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        params::Params,
        problem::{Problem, problems},
        words::Moment,
    },
    no_such_webhook, webhook_id,
};
use crate::{access::scope::Scope, app::App, storage::webhooks::Attempt};

problems!(Problems, InvalidParameter, WebhookNotFound, DatabaseUnavailable);

/// One try to deliver a message.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookAttempt {
    /// The `webhook-id` of the message.
    #[schema(example = "01920000-0000-7000-8000-000000000000-12")]
    pub message: String,
    #[serde(rename = "type")]
    #[schema(example = "saga.completed")]
    pub type_name: String,
    /// 1 for the first.
    #[schema(example = 1)]
    pub number: u32,
    pub at: Moment,
    #[schema(example = 27)]
    pub duration_ms: u64,
    /// Absent when there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 204)]
    pub http_status: Option<u16>,
    /// Absent when it was delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "answered 500")]
    pub error: Option<String>,
}

/// A page of attempts.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookAttemptPage {
    /// The latest first.
    pub items: Vec<WebhookAttempt>,
    /// Give it as `cursor` to go on; absent when there were no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "4711")]
    pub next_cursor: Option<String>,
}

impl From<Attempt> for WebhookAttempt {
    fn from(attempt: Attempt) -> Self {
        Self {
            message: attempt.message,
            type_name: attempt.type_name,
            number: attempt.number,
            at: attempt.at.into(),
            duration_ms: attempt.duration.0,
            http_status: attempt.http_status,
            error: attempt.error,
        }
    }
}

/// List a webhook's attempts.
///
/// Those of the last 30 days. What failed for good is parked in the consumer group `webhook-<id>`, where it can be replayed.
#[utoipa::path(
    get,
    path = "/webhooks/{id}/attempts",
    operation_id = "listWebhookAttempts",
    tag = "webhooks",
    security(("bearer" = [Scope::WebhooksRead])),
    params(
        ("id" = String, Path, description = "The webhook"),
        ("cursor" = Option<i64>, Query, nullable = false, description = "A `next_cursor`"),
        ("limit" = Option<u32>, Query, nullable = false, minimum = 1, maximum = 250,
         description = "Items of a page; 50 if left out"),
    ),
    responses((status = 200, description = "A page of attempts", body = WebhookAttemptPage), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let mut params = Params::of(&req);
    let before = params.take::<i64>("cursor");
    let limit = params.limit();
    params.finish()?;
    let id = webhook_id(&id)?;
    let found = app
        .webhooks(move |registry| async move {
            match registry.get(id).await? {
                Some(_) => registry.attempts(id, before, limit + 1).await.map(Some),
                None => Ok(None),
            }
        })
        .await?;
    let mut attempts = found.ok_or_else(|| no_such_webhook(id))?;
    let more = attempts.len() > limit as usize;
    attempts.truncate(limit as usize);
    let next_cursor = attempts.last().filter(|_| more).map(|(number, _)| number.to_string());
    let items = attempts.into_iter().map(|(_, attempt)| attempt.into()).collect();
    Ok(HttpResponse::Ok().json(WebhookAttemptPage { items, next_cursor }))
}
