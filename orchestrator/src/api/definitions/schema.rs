//! `GET /definitions/schema`: the JSON Schema of definitions, for editors.

use actix_web::{HttpRequest, HttpResponse};
use skald_core::definition::FORMAT_SCHEMA;

use super::super::{
    params::Params,
    problem::{Problem, problems},
};
use crate::access::scope::Scope;

problems!(Problems, InvalidParameter);

/// Get the format of definitions.
///
/// A JSON Schema of `skald/v1`. Registration checks more than it can say.
#[utoipa::path(
    get,
    path = "/definitions/schema",
    operation_id = "getDefinitionSchema",
    tag = "definitions",
    security(("bearer" = [Scope::DefinitionsRead])),
    responses(
        (status = 200, description = "A JSON Schema", content_type = "application/schema+json", body = Object),
        Problems,
    ),
)]
pub async fn handle(req: HttpRequest) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    Ok(HttpResponse::Ok().content_type("application/schema+json").body(FORMAT_SCHEMA))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::TestServer;

    #[actix_web::test]
    async fn the_format_is_published() {
        let server = TestServer::start().await;
        let schema = server.get("/definitions/schema").await;
        assert_eq!((schema.status, schema.header("content-type")), (200, "application/schema+json"));
        assert!(schema.body["properties"]["steps"].is_object());
    }
}
