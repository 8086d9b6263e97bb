//! `PUT /definitions/{name}`: registers a version of a definition.

use actix_web::{HttpRequest, HttpResponse, web};
use skald_core::definition::{Definition, Problems as Found};

use super::{
    super::{
        body::Received,
        endpoint,
        params::Params,
        problem::{Code, FieldProblem, Problem, problems},
    },
    view::DefinitionView,
};
use crate::{
    access::scope::Scope,
    app::{App, store_problem},
    engine::definitions::RegisterError,
};

/// What a definition may be sent as. YAML has no registered type of long standing, so its older names do as well.
const MEDIA_TYPES: [&str; 7] = [
    "application/json",
    "application/yaml",
    "application/x-yaml",
    "text/yaml",
    "text/x-yaml",
    "text/plain",
    "application/octet-stream",
];
/// This name's path is the format's.
const RESERVED_NAME: &str = "schema";

problems!(
    Problems,
    InvalidBody,
    InvalidParameter,
    RequestTimeout,
    DefinitionConflict,
    BodyTooLarge,
    UnsupportedMediaType,
    InvalidDefinition,
    DatabaseUnavailable,
);

/// Register a definition.
///
/// YAML or JSON. Versions are immutable: the same content again changes nothing, other content under a version that is
/// registered is refused. Sagas that run keep the version they started with.
#[utoipa::path(
    put,
    path = "/definitions/{name}",
    operation_id = "registerDefinition",
    tag = "definitions",
    security(("bearer" = [Scope::DefinitionsWrite])),
    params(("name" = String, Path, description = "The definition's name, as within it", example = "checkout")),
    request_body(content(
        (Object = "application/json"),
        (String = "application/yaml"),
    ), description = "The definition; its format is `getDefinitionSchema`"),
    responses(
        (status = 201, description = "This version is new", body = DefinitionView, headers(("Location" = String))),
        (status = 200, description = "This version was registered with this content already", body = DefinitionView),
        Problems,
    ),
)]
pub async fn handle(
    app: web::Data<App>,
    req: HttpRequest,
    name: web::Path<String>,
    body: Received,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let text = text(body)?;
    let definition = app.definitions().check(&text).map_err(invalid)?;
    check_name(&definition, &name)?;
    let version = format!("/definitions/{name}/versions/{}", definition.version);
    let registering = app.clone().into_inner();
    let work = app.detached(async move { registering.definitions().register(&text).await });
    let act = endpoint::act(&req, "definition.register", version);
    let registered = app.recorded(act, async { work.await?.map_err(refused) }).await?;
    let view = DefinitionView::of(&app, &registered.definition);
    if !registered.created {
        return Ok(HttpResponse::Ok().json(view));
    }
    let location = format!("/definitions/{}/versions/{}", registered.definition.name, registered.definition.version);
    Ok(HttpResponse::Created().insert_header(("Location", location)).json(view))
}

fn text(body: Received) -> Result<String, Problem> {
    if let Some(kind) = &body.media_type
        && !MEDIA_TYPES.contains(&kind.as_str())
    {
        let reason = "must be application/yaml or application/json";
        return Err(Problem::in_field(Code::UnsupportedMediaType, "Content-Type", reason));
    }
    let text = std::str::from_utf8(&body.bytes).map_err(|error| {
        Problem::in_field(Code::InvalidBody, "", format!("it is not valid UTF-8 (at byte {})", error.valid_up_to()))
    })?;
    Ok(text.to_owned())
}

/// Before anything is stored: the definition is the one that the path names.
fn check_name(definition: &Definition, name: &str) -> Result<(), Problem> {
    if definition.name != name {
        let reason = format!("is {}, which is not the name in the path", definition.name);
        return Err(Problem::in_field(Code::InvalidDefinition, "name", reason));
    }
    if definition.name == RESERVED_NAME {
        return Err(Problem::in_field(Code::InvalidDefinition, "name", "is reserved: choose another"));
    }
    Ok(())
}

fn invalid(Found(problems): Found) -> Problem {
    let errors = problems.into_iter().map(|problem| FieldProblem::new(problem.place, problem.reason)).collect();
    Problem::at(Code::InvalidDefinition, errors)
}

fn refused(error: RegisterError) -> Problem {
    match error {
        RegisterError::Invalid(problems) => invalid(problems),
        RegisterError::Conflict { .. } => Problem::new(Code::DefinitionConflict, format!("{error}.")),
        RegisterError::Store(error) => store_problem(&error),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::Method;
    use serde_json::{Value, json};

    use super::super::super::testing::{Reply, TestServer};

    fn job(version: u32, step: &str) -> Value {
        let call = |path: &str| json!({"service": "catalog", "method": "POST", "path": path});
        json!({
            "apiVersion": "skald/v1", "name": "job", "version": version,
            "steps": [{"id": step, "call": call("/do"), "compensate": {"call": call("/undo")}}],
        })
    }

    async fn put(server: &TestServer, name: &str, body: &Value) -> Reply {
        server.send(server.request(Method::PUT, &format!("/definitions/{name}")).json(body)).await
    }

    #[actix_web::test]
    async fn a_version_is_registered_once_and_never_changes() {
        let server = TestServer::start().await;
        let first = put(&server, "job", &job(1, "one")).await;
        assert_eq!(first.status, 201, "{}", first.text);
        assert_eq!(server.get(first.header("location")).await.body, first.body);
        assert_eq!(put(&server, "job", &job(1, "one")).await.status, 200);
        put(&server, "job", &job(1, "other")).await.problem(409, "definition_conflict");
        assert_eq!(put(&server, "job", &job(2, "other")).await.status, 201);
        assert_eq!(server.get("/definitions/job").await.body["versions"], json!([1, 2]));
        let saga = server.post("/sagas/job?version=1", &json!({})).await;
        assert_eq!((saga.status, &saga.body["steps"][0]["id"]), (201, &json!("one")));
        assert_eq!(server.post("/sagas/job", &json!({})).await.body["version"], 2);
    }

    #[actix_web::test]
    async fn yaml_does_as_well_with_or_without_its_type() {
        let server = TestServer::start().await;
        let yaml = "apiVersion: skald/v1\nname: job\nversion: 1\nsteps:\n  - id: look\n    effect: none\n    \
                    call: { service: catalog, method: GET, path: /look }\n";
        for (kind, status) in [("application/yaml", 201), ("text/x-yaml; charset=utf-8", 200), ("text/plain", 200)] {
            let request = server.request(Method::PUT, "/definitions/job").header("Content-Type", kind).body(yaml);
            let reply = server.send(request).await;
            assert_eq!(reply.status, status, "{kind}: {}", reply.text);
        }
        assert_eq!(server.send(server.request(Method::PUT, "/definitions/job").body(yaml)).await.status, 200);
        let html = server.request(Method::PUT, "/definitions/job").header("Content-Type", "text/html").body(yaml);
        server.send(html).await.problem(415, "unsupported_media_type");
    }

    #[actix_web::test]
    async fn every_problem_is_told_with_its_place_and_nothing_is_stored() {
        let server = TestServer::start().await;
        let mut broken = job(1, "one");
        broken["deadline"] = json!("soon");
        broken["steps"][0]["timeout"] = json!(3);
        broken["steps"][0]["call"]["service"] = json!("elsewhere");
        let reply = put(&server, "job", &broken).await;
        reply.problem(422, "invalid_definition");
        let places: Vec<&str> =
            reply.body["errors"].as_array().unwrap().iter().map(|error| error["place"].as_str().unwrap()).collect();
        assert!(places.contains(&"deadline") && places.contains(&"steps[0].timeout"), "{places:?}");
        broken = job(1, "one");
        broken["steps"][0]["call"]["service"] = json!("elsewhere");
        let reply = put(&server, "job", &broken).await;
        assert_eq!(reply.body["errors"][0]["place"], "steps[0].call.service", "{}", reply.text);
        put(&server, "other", &job(1, "one")).await.problem(422, "invalid_definition");
        let latin = server.request(Method::PUT, "/definitions/job").body(b"name: caf\xe9".to_vec());
        server.send(latin).await.problem(400, "invalid_body");
        server.send(server.request(Method::PUT, "/definitions/job")).await.problem(422, "invalid_definition");
        server.get("/definitions/job").await.problem(404, "definition_not_found");
    }
}
