//! The specification as OpenAPI 3.0.3, for generators that do not read 3.1.
//!
//! Says the same in the older words, or less: what 3.0 has no word for is left out where a reader can do without it
//! ([`DROPPED`]), and is an error where it cannot, so that nothing gets lost unnoticed.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

/// Keywords of a schema that mean the same in both and hold no schemas.
#[rustfmt::skip]
const SHARED: &[&str] = &[
    "default", "deprecated", "description", "discriminator", "enum", "example", "format", "maxItems", "maxLength",
    "maxProperties", "maximum", "minItems", "minLength", "minProperties", "minimum", "multipleOf", "pattern", "readOnly",
    "required", "title", "type", "uniqueItems", "writeOnly",
];

/// Keywords that 3.0 lacks and that only narrow what is allowed, or only explain.
const DROPPED: [&str; 5] = ["$comment", "$schema", "contentEncoding", "contentMediaType", "propertyNames"];

/// Keywords about values of one type; they go where several types become any.
const OF_ONE_TYPE: [&str; 6] = ["format", "maxLength", "maximum", "minLength", "minimum", "pattern"];

/// # Errors
///
/// A schema says what 3.0 cannot say.
pub fn to_3_0(specification: &Value) -> Result<Value> {
    let mut document = specification.clone();
    document["openapi"] = json!("3.0.3");
    if let Some(license) = document.pointer_mut("/info/license").and_then(Value::as_object_mut) {
        license.remove("identifier");
    }
    for kind in ["parameters", "headers", "responses", "requestBodies"] {
        each(document.pointer_mut(&format!("/components/{kind}")), body)?;
    }
    each(document.pointer_mut("/components/schemas"), schema)?;
    each(document.pointer_mut("/paths"), path)?;
    drop_roles(&mut document);
    // In 3.0 only an extension can hold them.
    if let Some(mut webhooks) = document.as_object_mut().and_then(|document| document.shift_remove("webhooks")) {
        each(Some(&mut webhooks), path)?;
        document["x-webhooks"] = webhooks;
    }
    Ok(document)
}

/// Changes each value of an object, if there is one.
fn each(values: Option<&mut Value>, change: fn(&mut Value) -> Result<()>) -> Result<()> {
    for (name, value) in values.and_then(Value::as_object_mut).into_iter().flatten() {
        change(value).with_context(|| name.clone())?;
    }
    Ok(())
}

fn path(item: &mut Value) -> Result<()> {
    each(Some(item), |operation| {
        let Value::Object(fields) = operation else { return Ok(()) };
        for parameter in fields.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
            body(parameter)?;
        }
        fields.get_mut("requestBody").map_or(Ok(()), body)?;
        each(fields.get_mut("responses"), body)
    })
}

/// A parameter, a header, a response, a request's body, or one media type of it: whatever has schemas.
fn body(of: &mut Value) -> Result<()> {
    let Value::Object(fields) = of else { return Ok(()) };
    fields.get_mut("schema").map_or(Ok(()), schema)?;
    each(fields.get_mut("headers"), body)?;
    each(fields.get_mut("content"), body)
}

/// 3.1 lets an operation name the roles that it needs of any kind of credentials, 3.0 of OAuth 2 and OpenID Connect only.
fn drop_roles(document: &mut Value) {
    let Some(Value::Object(schemes)) = document.pointer("/components/securitySchemes").cloned() else { return };
    let has_scopes = |name: &str| {
        schemes.get(name).is_some_and(|scheme| scheme["type"] == "oauth2" || scheme["type"] == "openIdConnect")
    };
    let items = document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut);
    let operations = items.filter_map(Value::as_object_mut).flat_map(Map::values_mut);
    let alternatives = operations.filter_map(|operation| operation.get_mut("security")?.as_array_mut()).flatten();
    for (name, roles) in alternatives.filter_map(Value::as_object_mut).flatten() {
        if !has_scopes(name) {
            *roles = json!([]);
        }
    }
}

fn schema(value: &mut Value) -> Result<()> {
    let Value::Object(fields) = value else { return Ok(()) };
    rename(fields);
    narrow_types(fields)?;
    enclose_reference(fields);
    for (keyword, value) in fields.iter_mut() {
        match keyword.as_str() {
            "properties" => each(Some(value), schema)?,
            "items" | "additionalProperties" | "not" => schema(value).with_context(|| keyword.clone())?,
            "allOf" | "anyOf" | "oneOf" => value.as_array_mut().into_iter().flatten().try_for_each(schema)?,
            "$ref" | "nullable" | "exclusiveMinimum" | "exclusiveMaximum" => {}
            other if SHARED.contains(&other) || other.starts_with("x-") => {}
            other => bail!("OpenAPI 3.0 has no `{other}`: say it otherwise, or teach xtask/src/sdk/downgrade.rs"),
        }
    }
    Ok(())
}

/// Old words for new ones.
fn rename(fields: &mut Map<String, Value>) {
    fields.retain(|keyword, _| !DROPPED.contains(&keyword.as_str()));
    if let Some(only) = fields.shift_remove("const") {
        fields.insert("enum".to_owned(), json!([only]));
    }
    if let Some(examples) = fields.shift_remove("examples")
        && let Some(first) = examples.get(0)
    {
        fields.insert("example".to_owned(), first.clone());
    }
    for (exclusive, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        if let Some(limit) = fields.get(exclusive).filter(|limit| limit.is_number()).cloned() {
            fields.insert(bound.to_owned(), limit);
            fields.insert(exclusive.to_owned(), json!(true));
        }
    }
}

/// In 3.0 a value has one type, and may be null besides.
fn narrow_types(fields: &mut Map<String, Value>) -> Result<()> {
    let Some(Value::Array(types)) = fields.get("type").cloned() else { return Ok(()) };
    let (nulls, others): (Vec<Value>, Vec<Value>) = types.into_iter().partition(|kind| kind == "null");
    match others.as_slice() {
        [one] => drop(fields.insert("type".to_owned(), one.clone())),
        [] => bail!("OpenAPI 3.0 has no type for null alone"),
        // Without a type anything is allowed. A union would make wrapper classes in most languages.
        _ => fields.retain(|keyword, _| keyword != "type" && !OF_ONE_TYPE.contains(&keyword.as_str())),
    }
    if !nulls.is_empty() {
        fields.insert("nullable".to_owned(), json!(true));
    }
    Ok(())
}

/// In 3.0 a reference stands alone; what stood beside it goes around it.
fn enclose_reference(fields: &mut Map<String, Value>) {
    if fields.len() > 1
        && let Some(target) = fields.shift_remove("$ref")
    {
        fields.insert("allOf".to_owned(), json!([{"$ref": target}]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn downgraded(mut from: Value) -> Value {
        schema(&mut from).unwrap();
        from
    }

    #[test]
    fn a_schema_says_the_same_in_the_older_words() {
        for (new, old) in [
            (
                json!({"type": ["string", "null"], "maxLength": 3}),
                json!({"type": "string", "maxLength": 3, "nullable": true}),
            ),
            (json!({"type": ["integer", "string"], "minimum": 0, "title": "t"}), json!({"title": "t"})),
            (json!({"const": "a"}), json!({"enum": ["a"]})),
            (json!({"exclusiveMinimum": 0}), json!({"exclusiveMinimum": true, "minimum": 0})),
            (json!({"examples": ["x", "y"]}), json!({"example": "x"})),
            (json!({"$ref": "#/a"}), json!({"$ref": "#/a"})),
            (json!({"$ref": "#/a", "description": "d"}), json!({"description": "d", "allOf": [{"$ref": "#/a"}]})),
            (
                json!({"properties": {"const": {"const": 1}}, "propertyNames": {"type": "string"}}),
                json!({"properties": {"const": {"enum": [1]}}}),
            ),
        ] {
            assert_eq!(downgraded(new), old);
        }
    }

    #[test]
    fn what_3_0_cannot_say_is_refused_with_its_place() {
        let cart = json!({"properties": {"lines": {"items": {"prefixItems": []}}}});
        let error = to_3_0(&json!({"components": {"schemas": {"Cart": cart}}})).unwrap_err();
        assert!(format!("{error:#}").starts_with("Cart: lines: items: OpenAPI 3.0 has no `prefixItems`"), "{error:#}");
    }

    #[test]
    fn roles_are_for_kinds_of_credentials_that_have_them() {
        let document = |roles: Value| {
            json!({
                "openapi": "3.0.3",
                "components": {"securitySchemes": {"key": {"type": "http"}, "login": {"type": "oauth2"}}},
                "paths": {"/carts": {"get": {"security": [{"key": roles, "login": ["read"]}]}}},
            })
        };
        assert_eq!(to_3_0(&document(json!(["read"]))).unwrap(), document(json!([])));
    }

    #[test]
    fn every_place_that_has_schemas_is_reached() {
        let document = |openapi: &str, schema: Value, webhooks: &str| {
            let has_schema = json!({"schema": schema});
            let content = json!({"content": {"application/json": has_schema}, "headers": {"ETag": has_schema}});
            let operation = json!({"parameters": [has_schema], "requestBody": content, "responses": {"200": content}});
            json!({
                "openapi": openapi,
                "paths": {"/carts": {"get": operation}},
                "components": {
                    "schemas": {"Cart": schema},
                    "parameters": {"a": has_schema},
                    "headers": {"a": has_schema},
                    "responses": {"a": content},
                    "requestBodies": {"a": content},
                },
                webhooks: {"ended": {"post": operation}},
            })
        };
        let new = document("3.1.0", json!({"const": 1}), "webhooks");
        assert_eq!(to_3_0(&new).unwrap(), document("3.0.3", json!({"enum": [1]}), "x-webhooks"));
    }
}
