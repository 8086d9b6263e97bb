//! `POST /webhooks/{id}/enable`: goes on telling one that was disabled.

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

/// Enable a webhook.
///
/// It is told of everything that has come meanwhile.
#[utoipa::path(
    post,
    path = "/webhooks/{id}/enable",
    operation_id = "enableWebhook",
    tag = "webhooks",
    security(("bearer" = [Scope::WebhooksWrite])),
    params(("id" = String, Path, description = "The webhook")),
    responses((status = 200, description = "The webhook", body = WebhookView), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let id = webhook_id(&id)?;
    let act = endpoint::act(&req, "webhook.enable", format!("/webhooks/{id}"));
    let enabled = app.recorded(act, app.webhooks(move |registry| async move { registry.enable(id).await })).await?;
    let webhook = enabled.ok_or_else(|| no_such_webhook(id))?;
    Ok(HttpResponse::Ok().json(WebhookView::from(webhook)))
}
