//! The specification: what the annotations of the endpoints say, and one path per registered definition with its own
//! input, so that generated clients know the inputs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use skald_core::definition::Definition;
use utoipa::{
    Modify, OpenApi, Path as _,
    openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{admin, definitions, endpoint, events, groups, operations, problem, problem::Code, sagas, webhooks};
use crate::access::scope::Scope;

/// The endpoints as annotated.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Skald",
        description = "Runs business transactions that span services, durably, and undoes what must be undone.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers((url = "/", description = "This server")),
    tags(
        (name = "sagas", description = "Start sagas and look at them"),
        (name = "callbacks", description = "For participants that answer later"),
        (name = "events", description = "The log: read it, follow it, append to it"),
        (name = "groups", description = "Consumer groups: each event handled at least once, each stream in order"),
        (name = "webhooks", description = "Be told when a saga ends or parks"),
        (name = "definitions", description = "What sagas there can be"),
        (name = "admin", description = "What operators do; each action needs who and why, and is recorded"),
        (name = "operations", description = "Health, metrics, this document"),
    ),
    paths(
        sagas::start_any::handle,
        sagas::list::handle,
        sagas::get::handle,
        sagas::events::handle,
        sagas::stream::handle,
        sagas::complete::handle,
        events::list::handle,
        events::tail::handle,
        events::stats::handle,
        events::replay::handle,
        events::stream_events::handle,
        events::append::handle,
        events::append_many::handle,
        events::state::handle,
        groups::list::handle,
        groups::get::handle,
        groups::put::handle,
        groups::drop::handle,
        groups::poll::handle,
        groups::settle::handle,
        groups::stream::handle,
        groups::parked::list,
        groups::parked::replay,
        groups::parked::drop,
        definitions::list::handle,
        definitions::schema::handle,
        definitions::get::handle,
        definitions::register::handle,
        definitions::version::handle,
        admin::retry::handle,
        admin::compensate::handle,
        admin::abandon::handle,
        admin::retry_step::handle,
        admin::skip::handle,
        admin::resolve::handle,
        admin::bulk::retry,
        admin::bulk::compensate,
        admin::bulk::abandon,
        admin::definitions::pause,
        admin::definitions::resume,
        admin::participants::pause,
        admin::participants::resume,
        admin::pauses::handle,
        admin::replicas::handle,
        admin::audit::handle,
        admin::subjects::get,
        admin::subjects::erase,
        webhooks::list::handle,
        webhooks::create::handle,
        webhooks::get::handle,
        webhooks::delete::handle,
        webhooks::enable::handle,
        webhooks::rotate::handle,
        webhooks::attempts::handle,
        operations::livez::handle,
        operations::readyz::handle,
        operations::metrics::handle,
        operations::specification::handle,
    ),
    components(schemas(problem::ProblemBody<'static>, problem::FieldProblem)),
    modifiers(&Schemes),
)]
struct Annotated;

/// How requests show who asks.
struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scopes = Scope::ALL.map(|scope| format!("- `{scope}`: {}", scope.meaning()));
        let text = format!(
            "A key (`skald_..`) or a token (JWT) of the configured issuer. Its role has these scopes, or some of them; each \
             operation names the one that it needs:\n\n{}",
            scopes.join("\n")
        );
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(text)).build();
        let text = "Came with the call that it completes. No key is needed besides.";
        let token = ApiKeyValue::with_description("Saga-Callback-Token", text);
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(endpoint::BEARER, SecurityScheme::Http(bearer));
        components.add_security_scheme("callback_token", SecurityScheme::ApiKey(ApiKey::Header(token)));
    }
}

/// The specification with the highest version of each of these definitions.
#[must_use]
pub fn specification(definitions: &[Arc<Definition>]) -> Value {
    let mut document = serde_json::to_value(Annotated::openapi()).expect("a specification has string keys");
    let start = serde_json::to_value(sagas::start::__path_handle::operation()).expect("an operation has string keys");
    let highest: BTreeMap<&str, &Definition> =
        definitions.iter().map(|definition| (definition.name.as_str(), &**definition)).collect();
    for definition in highest.into_values() {
        add_start(&mut document, start.clone(), definition);
    }
    let operations = document["paths"].as_object_mut().expect("there are paths").values_mut();
    for operation in operations.filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
        add_refusals(operation);
        add_correlation_id(operation);
    }
    document
}

/// `POST /sagas/{definition}` for one definition: its own path, name and input.
fn add_start(document: &mut Value, mut operation: Value, definition: &Definition) {
    let name = pascal_case(&definition.name);
    operation["operationId"] = json!(format!("start{name}"));
    operation["tags"] = json!(["sagas"]);
    operation["summary"] = json!(format!("Start a saga of {}.", definition.name));
    if let Some(description) = &definition.description {
        let general = operation["description"].as_str().unwrap_or_default();
        operation["description"] = json!(format!("{description}\n\n{general}"));
    }
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        parameters.retain(|parameter| parameter["in"] != "path");
    }
    if let Some(schema) = definition.input.document() {
        let component = format!("{name}Input");
        let mut schema = (**schema).clone();
        relocate(&mut schema, &format!("#/components/schemas/{component}"));
        document["components"]["schemas"][&component] = schema;
        let reference = json!({"$ref": format!("#/components/schemas/{component}")});
        operation["requestBody"]["content"]["application/json"]["schema"] = reference;
    }
    document["paths"][format!("/sagas/{}", definition.name)] = json!({"post": operation});
}

/// `order-first` as `OrderFirst`.
fn pascal_case(name: &str) -> String {
    let word = |word: &str| {
        let mut chars = word.chars();
        chars.next().map(|first| first.to_uppercase().chain(chars).collect::<String>()).unwrap_or_default()
    };
    name.split(['-', '_']).map(word).collect()
}

/// References within a schema begin at its own root; in the document that root lies elsewhere.
fn relocate(schema: &mut Value, root: &str) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(target) if key == "$ref" && target.starts_with('#') => {
                        *target = format!("{root}{}", &target[1..]);
                    }
                    value => relocate(value, root),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| relocate(item, root)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What is answered to whoever may not, or asks too often.
fn add_refusals(operation: &mut Value) {
    let guarded = operation["security"].as_array().into_iter().flatten().any(|one| !one[endpoint::BEARER].is_null());
    if !guarded {
        return;
    }
    let codes = [Code::Unauthenticated, Code::InvalidCredentials, Code::Forbidden, Code::RateLimited];
    let mut refusals = serde_json::to_value(problem::responses(&codes)).expect("responses have string keys");
    for status in ["401", "403", "429"] {
        operation["responses"][status] = refusals[status].take();
    }
    if let Some(responses) = operation["responses"].as_object_mut() {
        responses.sort_keys();
    }
}

/// Every request may carry a correlation id, and every answer does.
fn add_correlation_id(operation: &mut Value) {
    let (name, text) = ("X-Correlation-Id", json!({"type": "string"}));
    if !operation["parameters"].is_array() {
        operation["parameters"] = json!([]);
    }
    let parameters = operation["parameters"].as_array_mut().expect("made one above");
    parameters.push(json!({
        "name": name,
        "in": "header",
        "description": "Names what this request belongs to: 1 to 128 visible ASCII characters. One is made if left out.",
        "required": false,
        "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    }));
    for response in operation["responses"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        response["headers"][name] = json!({"description": "The request's, or the one that was made", "schema": text});
    }
}

/// The specification as last made, and for which definitions.
#[derive(Debug, Default)]
pub struct Published(Mutex<Option<(Vec<String>, Bytes)>>);

impl Published {
    /// The specification as text; made anew when definitions have come.
    #[must_use]
    pub fn text(&self, definitions: &[Arc<Definition>]) -> Bytes {
        let hashes: Vec<String> = definitions.iter().map(|definition| definition.hash.clone()).collect();
        let mut last = self.0.lock().expect("nothing panics while it holds this lock");
        match &*last {
            Some((known, text)) if *known == hashes => text.clone(),
            _ => {
                let text = Bytes::from(specification(definitions).to_string());
                *last = Some((hashes, text.clone()));
                text
            }
        }
    }
}

#[cfg(test)]
mod tests;
