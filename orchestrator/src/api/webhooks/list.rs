//! `GET /webhooks`: who is told.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        params::Params,
        problem::{Problem, problems},
    },
    view::WebhookView,
};
use crate::{access::scope::Scope, app::App};

problems!(Problems, InvalidParameter, DatabaseUnavailable);

/// Every webhook, the oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookList {
    pub items: Vec<WebhookView>,
}

/// List webhooks.
#[utoipa::path(
    get,
    path = "/webhooks",
    operation_id = "listWebhooks",
    tag = "webhooks",
    security(("bearer" = [Scope::WebhooksRead])),
    responses((status = 200, description = "Every webhook", body = WebhookList), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let webhooks = app.webhooks(|registry| async move { registry.list().await }).await?;
    Ok(HttpResponse::Ok().json(WebhookList { items: webhooks.into_iter().map(WebhookView::from).collect() }))
}
