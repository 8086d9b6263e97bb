//! `POST /webhooks/{id}/rotate`: a new secret.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    super::{
        endpoint,
        params::Params,
        problem::{Problem, problems},
    },
    no_such_webhook,
    view::WebhookView,
    webhook_id,
};
use crate::{access::scope::Scope, app::App};

problems!(Problems, InvalidParameter, WebhookNotFound, DatabaseUnavailable);

/// Replace a webhook's secret.
///
/// For 24 hours each message has a signature with the secret before, too. The new one is shown once.
#[utoipa::path(
    post,
    path = "/webhooks/{id}/rotate",
    operation_id = "rotateWebhookSecret",
    tag = "webhooks",
    security(("bearer" = [Scope::WebhooksWrite])),
    params(("id" = String, Path, description = "The webhook")),
    responses((status = 200, description = "The webhook, with its new secret", body = WebhookView), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let (id, now) = (webhook_id(&id)?, app.clock().now());
    let act = endpoint::act(&req, "webhook.rotate", format!("/webhooks/{id}"));
    let rotating = app.webhooks(move |registry| async move { registry.rotate(id, now).await });
    let rotated = app.recorded(act, rotating).await?;
    let webhook = rotated.ok_or_else(|| no_such_webhook(id))?;
    let secret = app.webhook_registry().secret(&webhook);
    Ok(HttpResponse::Ok().json(WebhookView::from(webhook).with_secret(secret)))
}
