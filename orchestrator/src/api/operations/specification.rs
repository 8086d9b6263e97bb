//! `GET /openapi.json`: what this service can do, with the definitions it knows.

use actix_web::{HttpRequest, HttpResponse, web};

use super::super::{
    params::Params,
    problem::{Problem, problems},
};
use crate::app::App;

problems!(Problems, InvalidParameter, DatabaseUnavailable);

/// Get the specification.
///
/// OpenAPI 3.1, with one path per registered definition.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getSpecification",
    tag = "operations",
    security(()),
    responses((status = 200, description = "This document", body = Object), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let text = app.specification();
    Ok(HttpResponse::Ok().content_type("application/json").body(text))
}
