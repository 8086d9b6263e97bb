//! What a service answers to requests that make no sense: a problem that names what is wrong.

use crate::support::{Answer, Backend, Call, Running};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::Utc;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use sha2::Sha256;
use skald_kit::SigningSecrets;
use skald_participants::{Kind, ServiceOptions};
use uuid::Uuid;

#[rstest]
#[tokio::test]
async fn paths_methods_and_queries_are_checked(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let catalog = Running::start(Kind::Catalog, backend).await;
    for (method, path, status, code) in [
        (Method::GET, "/nowhere", 404, "no_such_path"),
        (Method::GET, "/stock/reserve", 405, "method_not_allowed"),
        (Method::DELETE, "/products", 405, "method_not_allowed"),
        (Method::GET, "/stock?shop=1", 400, "invalid_query"),
        (Method::GET, "/stock?store_id=%00", 400, "invalid_query"),
        (Method::GET, "/stock?limit=0", 400, "invalid_query"),
        (Method::GET, "/stock?limit=x", 400, "invalid_query"),
        (Method::GET, "/stock?cursor=zz", 400, "invalid_cursor"),
        (Method::GET, "/ledger?limit=1001", 400, "invalid_query"),
        (Method::GET, "/ledger?after=x", 400, "invalid_query"),
    ] {
        let answer = catalog.send(method, path, "").await;
        assert_eq!((answer.status, answer.code()), (status, code), "{path}: {answer:?}");
        assert_eq!(answer.content_type, "application/problem+json");
        assert_eq!(answer.body["status"], status);
    }
    assert_eq!(catalog.get("/livez").await["status"], "live");
    assert_eq!(catalog.get("/ledger?after=9223372036854775807").await["items"], json!([]));

    let orders = Running::start(Kind::Orders, backend).await;
    assert_eq!(orders.send(Method::GET, "/orders/a%00b", "").await.code(), "invalid_path");
}

#[rstest]
#[tokio::test]
async fn where_calls_must_be_signed_the_others_have_no_effect(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    // Of 24 bytes that are 0.
    const SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let signing = |options: &mut ServiceOptions| options.signing = SigningSecrets::new([SECRET]).ok();
    let orders = Running::start_with(Kind::Orders, backend, signing).await;
    let saga = Uuid::nil();
    let (path, body) =
        (format!("/orders/{saga}"), r#"{"customer_id":"c-1","items":[{"product_id":"p-1","quantity":1}],"total":5}"#);
    let call = |signature: &str, body: &str| {
        let key = format!("{saga}:confirm_order:action");
        let request = orders.http.put(orders.url(&path)).header("Idempotency-Key", format!("\"{key}\""));
        let request = request.header("webhook-id", key).header("webhook-timestamp", Utc::now().timestamp());
        request.header("webhook-signature", signature.to_owned()).body(body.to_owned())
    };
    let unsigned = orders.act(&Call::put(saga, "confirm_order", path.clone(), json!({}))).await;
    assert_eq!((unsigned.status, unsigned.code()), (401, "unsigned"), "{unsigned:?}");
    let forged = Answer::read(call("v1,AAAA", body).send().await.unwrap()).await;
    assert_eq!((forged.status, forged.code()), (401, "unsigned"), "{forged:?}");
    assert_eq!(orders.effects(saga).await, [""; 0]);

    let request = call("", body).build().unwrap();
    let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
    let signed = format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp"));
    let tag = Hmac::<Sha256>::new_from_slice(&[0; 24]).unwrap().chain_update(signed).finalize().into_bytes();
    let signature = format!("v1,{}", STANDARD.encode(tag));
    let taken = Answer::read(call(&signature, body).send().await.unwrap()).await;
    assert_eq!(taken.status, 200, "{taken:?}");
    let other = Answer::read(call(&signature, &body.replace('5', "6")).send().await.unwrap()).await;
    assert_eq!((other.status, other.code()), (401, "unsigned"), "{other:?}");
}

#[rstest]
#[tokio::test]
async fn bodies_are_checked_and_nothing_is_written(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let catalog = Running::start(Kind::Catalog, backend).await;
    let saga = Uuid::now_v7();
    let key = format!("\"{saga}:reserve_stock:action\"");
    let item = json!({"product_id": "p-1", "quantity": 1});
    let long = "x".repeat((1 << 20) + 1);
    let nested = "[".repeat(200_000);
    for (body, status, code, field) in [
        ("{", 400, "invalid_json", None),
        ("\u{feff}{}", 400, "invalid_json", None),
        (nested.as_str(), 400, "invalid_body", None),
        ("null", 400, "invalid_body", None),
        (r#"{"order_id":"o"}"#, 400, "invalid_body", None),
        (r#"{"order_id":"o","items":[],"coupon":1}"#, 400, "invalid_body", Some("coupon")),
        (
            r#"{"order_id":"o","items":[{"product_id":"p-1","quantity":1.5}]}"#,
            400,
            "invalid_body",
            Some("items[0].quantity"),
        ),
        (
            r#"{"order_id":"o","items":[{"product_id":"p-1","quantity":1e99}]}"#,
            400,
            "invalid_body",
            Some("items[0].quantity"),
        ),
        (r#"{"order_id":"o\u0000","items":[]}"#, 400, "invalid_body", Some("order_id")),
        (r#"{"order_id":"o","order_id":"p","items":[]}"#, 400, "invalid_body", None),
        (long.as_str(), 413, "body_too_large", None),
    ] {
        let request = catalog.http.post(catalog.url("/stock/reserve")).header("Idempotency-Key", &key);
        let response = request.body(body.to_owned()).send().await.unwrap();
        let answered = response.status().as_u16();
        let problem: serde_json::Value = response.json().await.unwrap();
        let excerpt = &body[..body.len().min(80)];
        assert_eq!((answered, problem["code"].as_str()), (status, Some(code)), "{excerpt}: {problem}");
        if let Some(field) = field {
            assert_eq!(problem["field"], field, "{excerpt}: {problem}");
        }
    }
    let good = Call::new(saga, "reserve_stock", "/stock/reserve", json!({"order_id": saga, "items": [item]}));
    catalog.act(&good).await.assert_ok();
    let other = Call { body: json!({"order_id": saga, "items": []}), ..good };
    assert_eq!(catalog.act(&other).await.code(), "idempotency_key_reused");
}

#[tokio::test]
async fn headers_are_checked_and_the_correlation_id_comes_back() {
    let orders = Running::start(Kind::Orders, Backend::Sqlite).await;
    let url = orders.url("/orders/o-1");
    let missing = orders.http.put(&url).header("X-Correlation-Id", "c-7").body("{}").send().await.unwrap();
    assert_eq!((missing.status().as_u16(), missing.headers()["x-correlation-id"].to_str().unwrap()), (400, "c-7"));
    let problem: serde_json::Value = missing.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["header"]), (&json!("invalid_header"), &json!("Idempotency-Key")));
}

#[tokio::test]
async fn metrics_count_calls_by_operation_and_status() {
    let sales = Running::start(Kind::Sales, Backend::Sqlite).await;
    let saga = Uuid::now_v7();
    let payment = json!({"method": "card", "token": "tok_declined"});
    let body = json!({"order_id": saga, "customer_id": "c-1", "amount": 1, "payment": payment});
    sales.act(&Call::new(saga, "pay", "/payments", body)).await.assert_rejected(402, "payment_declined");
    let metrics = sales.get("/metrics").await;
    let line = r#"participant_calls_total{operation="payments",service="sales",status="402"} 1"#;
    assert!(metrics.as_str().unwrap().contains(line), "{metrics}");
}
