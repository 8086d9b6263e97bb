//! `GET /definitions/{name}`: a definition, its highest version or the one asked for.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    super::{
        params::Params,
        problem::{Problem, problems},
    },
    view::DefinitionView,
};
use crate::{access::scope::Scope, app::App};

problems!(Problems, InvalidParameter, DefinitionNotFound, DatabaseUnavailable);

/// Get a definition.
#[utoipa::path(
    get,
    path = "/definitions/{name}",
    operation_id = "getDefinition",
    tag = "definitions",
    security(("bearer" = [Scope::DefinitionsRead])),
    params(
        ("name" = String, Path, description = "The definition", example = "checkout"),
        ("version" = Option<u32>, Query, nullable = false, minimum = 1, description = "The highest if left out"),
    ),
    responses((status = 200, description = "The definition", body = DefinitionView), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest, name: web::Path<String>) -> Result<HttpResponse, Problem> {
    let mut params = Params::of(&req);
    let version = params.version();
    params.finish()?;
    let definition = app.definition(&name, version).await?;
    Ok(HttpResponse::Ok().json(DefinitionView::of(&app, &definition)))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::TestServer;

    #[actix_web::test]
    async fn a_definition_is_shown_as_registered() {
        let server = TestServer::start().await;
        let shown = server.get("/definitions/note").await;
        assert_eq!(shown.status, 200, "{}", shown.text);
        assert_eq!(shown.body["document"]["steps"][0]["id"], "write");
        assert_eq!(shown.body["versions"], serde_json::json!([1]));
        assert_eq!(server.get("/definitions/note?version=1").await.body, shown.body);
        assert_eq!(server.get("/definitions/note/versions/1").await.body, shown.body);
        server.get("/definitions/note?version=2").await.problem(404, "definition_not_found");
        server.get("/definitions/note/versions/2").await.problem(404, "definition_not_found");
        server.get("/definitions/note/versions/x").await.problem(400, "invalid_parameter");
        server.get("/definitions/none").await.problem(404, "definition_not_found");
    }
}
