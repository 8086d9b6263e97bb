//! `GET /webhooks/{id}`: a webhook.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    super::{
        params::Params,
        problem::{Problem, problems},
    },
    no_such_webhook,
    view::WebhookView,
    webhook_id,
};
use crate::{access::scope::Scope, app::App};

problems!(Problems, InvalidParameter, WebhookNotFound, DatabaseUnavailable);

/// Show a webhook.
#[utoipa::path(
    get,
    path = "/webhooks/{id}",
    operation_id = "getWebhook",
    tag = "webhooks",
    security(("bearer" = [Scope::WebhooksRead])),
    params(("id" = String, Path, description = "The webhook")),
    responses((status = 200, description = "The webhook", body = WebhookView), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let id = webhook_id(&id)?;
    let found = app.webhooks(move |registry| async move { registry.get(id).await }).await?;
    let webhook = found.ok_or_else(|| no_such_webhook(id))?;
    Ok(HttpResponse::Ok().json(WebhookView::from(webhook)))
}
