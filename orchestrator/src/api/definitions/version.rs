//! `GET /definitions/{name}/versions/{version}`: one version of a definition. It never changes.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    super::{
        params::Params,
        problem::{Code, Problem, problems},
    },
    view::DefinitionView,
};
use crate::{access::scope::Scope, app::App};

problems!(Problems, InvalidParameter, DefinitionNotFound, DatabaseUnavailable);

/// Get a version of a definition.
#[utoipa::path(
    get,
    path = "/definitions/{name}/versions/{version}",
    operation_id = "getDefinitionVersion",
    tag = "definitions",
    security(("bearer" = [Scope::DefinitionsRead])),
    params(
        ("name" = String, Path, description = "The definition", example = "checkout"),
        ("version" = u32, Path, minimum = 1, description = "The version", example = 1),
    ),
    responses((status = 200, description = "The definition", body = DefinitionView), Problems),
)]
pub async fn handle(
    app: web::Data<App>,
    req: HttpRequest,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let (name, version) = path.into_inner();
    let version = version
        .parse()
        .map_err(|_| Problem::in_field(Code::InvalidParameter, "version", "must be a whole number from 1"))?;
    let definition = app.definition(&name, Some(version)).await?;
    Ok(HttpResponse::Ok().json(DefinitionView::of(&app, &definition)))
}
