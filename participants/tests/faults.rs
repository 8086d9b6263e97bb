//! Each fault of `PUT /faults`, over HTTP.

use std::time::{Duration, Instant};

use crate::support::{Backend, Call, Running, eventually};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use skald_participants::Kind;
use uuid::Uuid;

async fn catalog(backend: Backend) -> Running {
    Running::start_with(Kind::Catalog, backend, |options| options.faults = true).await
}

fn reserve(saga: Uuid) -> Call {
    let items = json!([{"product_id": "p-4", "quantity": 1}]);
    Call::new(saga, "reserve_stock", "/stock/reserve", json!({"order_id": saga, "items": items}))
}

fn release(saga: Uuid) -> Call {
    Call::of_order(saga, "reserve_stock", "/stock/release")
}

#[rstest]
#[tokio::test]
async fn an_error_and_an_unavailability_have_no_effect(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let catalog = catalog(backend).await;
    let saga = Uuid::now_v7();
    catalog.set_faults(json!({"reserve": {"error_500": 1}})).await;
    let failed = catalog.act(&reserve(saga)).await;
    assert_eq!((failed.status, failed.code(), &failed.body["outcome"]), (500, "injected_error", &Value::Null));
    catalog.set_faults(json!({"reserve": {"unavailable": {"rate": 1, "retry_after_s": 7}}})).await;
    let unavailable = catalog.act(&reserve(saga)).await;
    assert_eq!((unavailable.status, unavailable.retry_after.as_deref()), (503, Some("7")));
    assert!(catalog.effects(saga).await.is_empty());
    catalog.set_faults(json!({})).await;
    catalog.act(&reserve(saga)).await.assert_ok();
    assert_eq!(catalog.effects(saga).await, ["action stock_reserved"]);
}

#[rstest]
#[tokio::test]
async fn a_lost_reply_breaks_the_connection_after_the_effect(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let catalog = catalog(backend).await;
    let saga = Uuid::now_v7();
    catalog.set_faults(json!({"*": {"lose_reply": 1}})).await;
    let error = catalog.try_act(&reserve(saga)).await.expect_err("no answer arrives");
    assert!(error.is_request(), "not even a status line: {error:?}");
    assert_eq!(catalog.effects(saga).await, ["action stock_reserved"]);
    catalog.set_faults(json!({})).await;
    catalog.act(&reserve(saga)).await.assert_ok();
    assert_eq!(catalog.stock("s-main", "p-4").await, (4, 1, 0), "once, although it was called twice");
}

#[rstest]
#[tokio::test]
async fn a_duplicate_delivery_takes_effect_once(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let catalog = catalog(backend).await;
    let saga = Uuid::now_v7();
    catalog.set_faults(json!({"*": {"duplicate": 1}})).await;
    catalog.act(&reserve(saga)).await.assert_ok();
    assert_eq!(catalog.undo(&release(saga)).await.assert_ok()["undone"], true);
    assert_eq!(catalog.effects(saga).await, ["action stock_reserved", "compensation stock_released"]);
}

#[rstest]
#[tokio::test]
async fn a_refusal_stays_the_answer_of_its_key(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let catalog = catalog(backend).await;
    let saga = Uuid::now_v7();
    catalog.set_faults(json!({"reserve": {"refuse": 1}})).await;
    let refused = catalog.act(&reserve(saga)).await;
    refused.assert_rejected(422, "refused_by_fault");
    catalog.set_faults(json!({})).await;
    assert_eq!(catalog.act(&reserve(saga)).await.body, refused.body);
    assert!(catalog.effects(saga).await.is_empty());
}

#[rstest]
#[tokio::test]
async fn a_refused_compensation_can_be_repeated(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let catalog = catalog(backend).await;
    let saga = Uuid::now_v7();
    catalog.act(&reserve(saga)).await.assert_ok();
    catalog.set_faults(json!({"release": {"refuse": 1}})).await;
    catalog.undo(&release(saga)).await.assert_rejected(422, "refused_by_fault");
    catalog.set_faults(json!({})).await;
    assert_eq!(catalog.undo(&release(saga)).await.assert_ok()["undone"], true);
}

#[rstest]
#[tokio::test]
async fn a_delay_comes_before_the_effect(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let catalog = catalog(backend).await;
    catalog.set_faults(json!({"reserve": {"delay": {"rate": 1, "ms": 150}}})).await;
    let started = Instant::now();
    catalog.act(&reserve(Uuid::now_v7())).await.assert_ok();
    assert!(started.elapsed() >= Duration::from_millis(150));
}

#[rstest]
#[tokio::test]
async fn a_hanging_call_never_answers_and_ends_when_its_client_leaves(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let catalog = catalog(backend).await;
    let saga = Uuid::now_v7();
    catalog.set_faults(json!({"reserve": {"hang": 1}})).await;
    let url = catalog.url("/stock/reserve");
    let key = format!("\"{saga}:reserve_stock:action\"");
    let impatient = catalog.http.post(url).header("Idempotency-Key", key).timeout(Duration::from_millis(200));
    let error = impatient.json(&reserve(saga).body).send().await.expect_err("no answer arrives");
    assert!(error.is_timeout(), "{error:?}");
    let faults = eventually("the fault is counted", async || {
        let metrics = catalog.get("/metrics").await;
        metrics.as_str().unwrap().lines().find(|line| line.contains(r#"fault="hang""#)).map(str::to_owned)
    })
    .await;
    assert!(faults.ends_with(" 1"), "{faults}");
    catalog.set_faults(json!({})).await;
    catalog.act(&reserve(saga)).await.assert_ok();
}

#[tokio::test]
async fn a_service_stops_although_a_call_hangs() {
    let catalog = catalog(Backend::Sqlite).await;
    catalog.set_faults(json!({"*": {"hang": 1}})).await;
    let (url, saga) = (catalog.url("/stock/reserve"), Uuid::now_v7());
    let key = format!("\"{saga}:reserve_stock:action\"");
    let hanging = catalog.http.post(url).header("Idempotency-Key", key).json(&reserve(saga).body).send();
    let hanging = tokio::spawn(hanging);
    eventually("the call hangs", async || {
        catalog.get("/metrics").await.as_str().unwrap().contains(r#"fault="hang""#).then_some(())
    })
    .await;
    let started = Instant::now();
    catalog.service.stop().await;
    assert!(started.elapsed() < Duration::from_secs(5), "hanging calls are let go: {:?}", started.elapsed());
    assert_eq!(hanging.await.unwrap().unwrap().status(), 503);
}

#[tokio::test]
async fn faults_are_shown_checked_and_absent_unless_asked_for() {
    let catalog = catalog(Backend::Sqlite).await;
    catalog.set_faults(json!({"reserve": {"lose_reply": 0.25}})).await;
    assert_eq!(catalog.get("/faults").await["reserve"]["lose_reply"], 0.25);
    let bad = catalog.send(Method::PUT, "/faults", r#"{"reserve": {"hang": 2}}"#).await;
    assert_eq!((bad.status, &bad.body["field"]), (422, &json!("reserve.hang")));
    assert_eq!(catalog.get("/faults").await["reserve"]["lose_reply"], 0.25, "a bad setting changes nothing");
    let unknown = catalog.send(Method::PUT, "/faults", r#"{"pay": {}}"#).await;
    assert_eq!((unknown.status, unknown.code()), (422, "invalid_fault"));

    let faultless = Running::start(Kind::Catalog, Backend::Sqlite).await;
    assert_eq!(faultless.send(Method::PUT, "/faults", "{}").await.status, 404);
    assert_eq!(faultless.send(Method::GET, "/faults", "").await.status, 404);
}
