//! `GET /sagas/{id}`: a saga as it is now.

use actix_web::{HttpRequest, HttpResponse, http::header, web};

use super::super::{
    headers,
    params::{Params, saga_id},
    problem::{Problem, problems},
    view::Saga,
};
use crate::app::App;

problems!(Problems, InvalidParameter, SagaNotFound, DatabaseUnavailable);

/// Get a saga.
///
/// With `If-None-Match` and the `ETag` of an earlier answer: 304 while nothing has changed.
#[utoipa::path(
    get,
    path = "/sagas/{id}",
    operation_id = "getSaga",
    tag = "sagas",
    params(
        ("id" = String, Path, format = "uuid", description = "The saga", example = "01890a5d-ac96-774b-bcce-b302099a8057"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` that is known already", example = "\"12\""),
    ),
    responses(
        (status = 200, description = "The saga", body = Saga, headers(("ETag" = String, description = "The revision"))),
        (status = 304, description = "It is still at this revision", headers(("ETag" = String))),
        Problems,
    ),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let id = saga_id(&id)?;
    if req.headers().contains_key(header::IF_NONE_MATCH) {
        let revision = app.row(id).await?.version;
        if headers::if_none_match(req.headers(), revision) {
            return Ok(HttpResponse::NotModified().insert_header((header::ETAG, headers::etag(revision))).finish());
        }
    }
    let saga = app.saga(id).await?;
    Ok(HttpResponse::Ok().insert_header((header::ETAG, headers::etag(saga.revision))).json(saga))
}
