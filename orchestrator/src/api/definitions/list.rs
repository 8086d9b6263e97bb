//! `GET /definitions`: every definition with its versions.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        params::Params,
        problem::{Problem, problems},
    },
    view::DefinitionSummary,
};
use crate::{access::scope::Scope, app::App};

/// A page of definitions, by name.
#[derive(Debug, Serialize, ToSchema)]
pub struct DefinitionPage {
    items: Vec<DefinitionSummary>,
    /// Give it as `cursor` to go on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

problems!(Problems, InvalidParameter, DatabaseUnavailable);

/// List definitions.
#[utoipa::path(
    get,
    path = "/definitions",
    operation_id = "listDefinitions",
    tag = "definitions",
    security(("bearer" = [Scope::DefinitionsRead])),
    params(
        ("cursor" = Option<String>, Query, nullable = false, description = "`next_cursor` of the page before"),
        ("limit" = Option<u32>, Query, nullable = false, minimum = 1, maximum = 250,
         description = "Items of a page; 50 if left out"),
    ),
    responses((status = 200, description = "A page of definitions, by name", body = DefinitionPage), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut params = Params::of(&req);
    // The name of the last definition seen.
    let after: Option<String> = params.take("cursor");
    let limit = params.limit() as usize;
    params.finish()?;
    app.reload_definitions().await?;
    let all = app.definitions().all();
    let highest: BTreeMap<&str, _> = all.iter().map(|definition| (definition.name.as_str(), definition)).collect();
    let mut rest = highest.into_iter().filter(|(name, _)| after.as_deref().is_none_or(|after| *name > after));
    let items: Vec<_> =
        rest.by_ref().take(limit).map(|(_, definition)| DefinitionSummary::of(&app, definition)).collect();
    let next_cursor = rest.next().and_then(|_| items.last()).map(|last| last.name.clone());
    Ok(HttpResponse::Ok().json(DefinitionPage { items, next_cursor }))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::TestServer;

    #[actix_web::test]
    async fn definitions_are_listed_by_name_page_by_page() {
        let server = TestServer::start().await;
        let page = server.get("/definitions?limit=1").await;
        assert_eq!(page.body["items"][0]["name"], "checkout");
        assert_eq!(page.body["next_cursor"], "checkout");
        let page = server.get("/definitions?limit=1&cursor=checkout").await;
        assert_eq!(page.body["items"][0]["name"], "note");
        assert!(page.body["next_cursor"].is_null());
    }
}
