//! `DELETE /webhooks/{id}`: ends a webhook.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    super::{
        endpoint,
        params::Params,
        problem::{Problem, problems},
    },
    no_such_webhook, webhook_id,
};
use crate::{access::scope::Scope, app::App};

problems!(Problems, InvalidParameter, WebhookNotFound, DatabaseUnavailable);

/// Delete a webhook.
///
/// With what it was not told yet, and its attempts.
#[utoipa::path(
    delete,
    path = "/webhooks/{id}",
    operation_id = "deleteWebhook",
    tag = "webhooks",
    security(("bearer" = [Scope::WebhooksWrite])),
    params(("id" = String, Path, description = "The webhook")),
    responses((status = 204, description = "It is gone"), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let id = webhook_id(&id)?;
    let act = endpoint::act(&req, "webhook.delete", format!("/webhooks/{id}"));
    match app.recorded(act, app.webhooks(move |registry| async move { registry.remove(id).await })).await? {
        true => Ok(HttpResponse::NoContent().finish()),
        false => Err(no_such_webhook(id)),
    }
}
