//! An input that takes from a stream what the client left out: a checkout from a cart.

use serde_json::{Value, value::RawValue};
use skald_core::{definition::Definition, json::Document};

use super::super::{
    events::state::of_named,
    problem::{Code, Problem},
};
use crate::{app::App, events::stream_name::StreamName};

/// The input with those properties of the stream's state that it lacks and that the definition's schema names; what came is
/// kept as it was written.
///
/// # Errors
///
/// When there is no such stream, it is a saga's, or the input is no object.
pub async fn from_stream(
    app: &App,
    definition: &Definition,
    stream: &StreamName,
    input: &Document,
) -> Result<Document, Problem> {
    let StreamName::Other(name) = stream else {
        return Err(Problem::in_field(Code::InvalidParameter, "from", "must not be a saga"));
    };
    let Value::Object(given) = &**input.value() else {
        return Err(Problem::in_field(Code::InvalidInput, "/", "must be an object, for `from` to fill in"));
    };
    let (_, state) = of_named(app, stream, name, None).await?;
    let schema = definition.input.document();
    let named = |property: &str| schema.is_some_and(|schema| schema["properties"].get(property).is_some());
    // The text of an object ends with its brace: what is filled in goes before that.
    let mut text = input.text().get().strip_suffix('}').unwrap_or_default().to_owned();
    let mut whole = given.clone();
    if let Value::Object(fields) = state {
        for (property, value) in fields {
            if named(&property) && !whole.contains_key(&property) {
                let separator = if whole.is_empty() { "" } else { "," };
                text.push_str(&format!("{separator}{}:{value}", Value::from(property.as_str())));
                whole.insert(property, value);
            }
        }
    }
    text.push('}');
    Ok(Document::new(RawValue::from_string(text).map_err(Problem::internal)?, Value::Object(whole)))
}

#[cfg(test)]
mod tests {
    use reqwest::Method;
    use serde_json::{Value, json};

    use super::super::super::testing::{Reply, TestServer};
    use crate::storage::SqliteStore;

    type Server = TestServer<SqliteStore>;

    async fn add(server: &Server, cart: &str, id: &str, data: Value) {
        let event = json!({"event_id": id, "type": "CartItemAdded", "data": data});
        let body = json!({"expected_version": "any", "events": [event]});
        assert_eq!(server.post(&format!("/streams/{cart}/events"), &body).await.status, 201);
    }

    async fn with_cart() -> Server {
        let server = Server::logged().await;
        add(&server, "cart-1", "a", json!({"product_id": "p-1", "quantity": 2, "customer_id": "c-cart"})).await;
        server
    }

    async fn keyed(server: &Server, key: &str, path: &str, body: &Value) -> Reply {
        server.send(server.request(Method::POST, path).header("Idempotency-Key", key).json(body)).await
    }

    #[actix_web::test]
    async fn a_checkout_takes_from_the_cart_what_it_lacks() {
        let server = with_cart().await;
        let body = r#"{ "payment": {"method": "card", "token": "tok_ok"} }"#;
        let reply = server.send(server.request(Method::POST, "/sagas/checkout?from=cart-1").body(body)).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        let items = json!([{"product_id": "p-1", "quantity": 2}]);
        assert_eq!((&reply.body["input"]["items"], &reply.body["input"]["customer_id"]), (&items, &json!("c-cart")));
        // Nothing that the schema does not name; and what was given, as it was written.
        assert_eq!(reply.body["input"].as_object().unwrap().len(), 3);
        assert!(
            reply.text.contains(r#"{ "payment": {"method": "card", "token": "tok_ok"} ,"items":"#),
            "{}",
            reply.text
        );
        let given = json!({"customer_id": "c-2", "payment": {"method": "card", "token": "tok_ok"}});
        let generic = json!({"definition": "checkout", "input": given, "from": "cart-1"});
        let reply = server.post("/sagas", &generic).await;
        assert_eq!((reply.status, &reply.body["input"]["customer_id"]), (201, &json!("c-2")), "{}", reply.text);
    }

    #[actix_web::test]
    async fn a_repeated_checkout_is_the_first_one_though_the_cart_went_on() {
        let server = with_cart().await;
        let body = json!({"payment": {"method": "card", "token": "tok_ok"}});
        let first = keyed(&server, "k", "/sagas/checkout?from=cart-1", &body).await;
        add(&server, "cart-1", "b", json!({"product_id": "p-2"})).await;
        add(&server, "cart-2", "c", json!({"product_id": "p-2"})).await;
        let again = keyed(&server, "k", "/sagas/checkout?from=cart-1", &body).await;
        assert_eq!((again.status, again.header("idempotent-replayed"), again.id()), (201, "true", first.id()));
        assert_eq!(again.body["input"], first.body["input"]);
        keyed(&server, "k", "/sagas/checkout?from=cart-2", &body).await.problem(422, "idempotency_key_reused");
        keyed(&server, "k", "/sagas/checkout", &body).await.problem(422, "idempotency_key_reused");
    }

    #[actix_web::test]
    async fn what_cannot_be_filled_in_is_refused() {
        let server = with_cart().await;
        let body = json!({"payment": {"method": "card", "token": "tok_ok"}});
        server.post("/sagas/checkout?from=cart-9", &body).await.problem(404, "stream_not_found");
        server.post("/sagas/checkout?from=cart", &body).await.problem(400, "invalid_parameter");
        let saga = server.start_note().await;
        server.post(&format!("/sagas/checkout?from={saga}"), &body).await.problem(400, "invalid_parameter");
        server.post("/sagas/checkout?from=cart-1", &json!([])).await.problem(422, "invalid_input");
        server.post("/sagas/checkout?from=cart-1", &json!({})).await.problem(422, "invalid_input");
        let generic = json!({"definition": "checkout", "input": body, "from": "x"});
        assert!(server.post("/sagas", &generic).await.problem(400, "invalid_body").contains("from"));
    }
}
