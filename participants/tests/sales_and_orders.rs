//! Sales and orders over HTTP: payments, credit, refunds; confirmed, blocked and cancelled orders.

use crate::support::{Backend, Call, Running, TestDatabase};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use skald_kit::{Db, DbOptions};
use skald_participants::Kind;
use uuid::Uuid;

fn pay(saga: Uuid, customer: &str, amount: i64, token: &str) -> Call {
    let payment = json!({"method": "card", "token": token});
    let body = json!({"order_id": saga, "customer_id": customer, "amount": amount, "payment": payment});
    Call::new(saga, "process_payment", "/payments", body)
}

fn refund(saga: Uuid) -> Call {
    Call::of_order(saga, "process_payment", "/payments/refund")
}

/// Remaining and paid. Checks invariant 1, for money.
async fn credit(sales: &Running, customer: &str) -> (i64, i64) {
    let shown = sales.get(&format!("/customers/{customer}")).await;
    let amount = |name: &str| shown[name].as_i64().unwrap();
    assert_eq!(amount("credit"), amount("remaining") + amount("paid"), "invariant 1: {shown}");
    (amount("remaining"), amount("paid"))
}

#[rstest]
#[tokio::test]
async fn a_payment_uses_credit_and_a_refund_gives_it_back(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let sales = Running::start(Kind::Sales, backend).await;
    let saga = Uuid::now_v7();
    assert_eq!(credit(&sales, "c-1").await, (10_000_000, 0));
    let paid = sales.act(&pay(saga, "c-1", 3998, "tok_ok")).await;
    assert_eq!(paid.assert_ok()["status"], "paid");
    assert_eq!(credit(&sales, "c-1").await, (9_996_002, 3998));
    for _ in 0..2 {
        assert_eq!(sales.undo(&refund(saga)).await.assert_ok()["undone"], true);
        assert_eq!(credit(&sales, "c-1").await, (10_000_000, 0));
    }
    let listed = sales.get(&format!("/payments?order_id={saga}")).await;
    assert_eq!((&listed["items"][0]["status"], &listed["items"][0]["amount"]), (&json!("refunded"), &json!(3998)));
    assert_eq!(sales.effects(saga).await, ["action payment_taken", "compensation payment_refunded"]);
}

#[rstest]
#[tokio::test]
async fn payments_are_declined_for_their_token_their_amount_and_their_credit(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let sales = Running::start(Kind::Sales, backend).await;
    let declined = Uuid::now_v7();
    sales.act(&pay(declined, "c-1", 1, "tok_declined")).await.assert_rejected(402, "payment_declined");
    assert_eq!(sales.undo(&refund(declined)).await.body, json!({"undone": false}));
    sales.act(&pay(Uuid::now_v7(), "c-poor", 101, "tok_ok")).await.assert_rejected(402, "credit_exceeded");
    sales.act(&pay(Uuid::now_v7(), "c-new", 10_000_001, "tok_ok")).await.assert_rejected(402, "credit_exceeded");
    sales.act(&pay(Uuid::now_v7(), "c-1", -1, "tok_ok")).await.assert_rejected(422, "invalid_amount");
    sales.act(&pay(Uuid::now_v7(), "c-1", i64::MAX, "tok_ok")).await.assert_rejected(422, "invalid_amount");
    sales.act(&pay(Uuid::now_v7(), "c-poor", 100, "tok_ok")).await.assert_ok();
    sales.act(&pay(Uuid::now_v7(), "c-poor", 0, "tok_ok")).await.assert_ok();
    assert_eq!(credit(&sales, "c-poor").await, (0, 100));
    assert_eq!(credit(&sales, "c-new").await, (10_000_000, 0));

    let saga = Uuid::now_v7();
    sales.act(&pay(saga, "c-1", 5, "tok_ok")).await.assert_ok();
    let twice = Call { step: "again", ..pay(saga, "c-1", 5, "tok_ok") };
    sales.act(&twice).await.assert_rejected(422, "already_paid");
    assert_eq!(credit(&sales, "c-1").await, (9_999_995, 5));
}

#[rstest]
#[tokio::test]
async fn payments_are_listed_by_customer_and_credit_is_managed(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let sales = Running::start(Kind::Sales, backend).await;
    let set =
        async |credit: i64| sales.send(Method::PUT, "/customers/c-2", &json!({"credit": credit}).to_string()).await;
    assert_eq!(set(30).await.body["remaining"], 30);
    for _ in 0..3 {
        sales.act(&pay(Uuid::now_v7(), "c-2", 10, "tok_ok")).await.assert_ok();
    }
    sales.act(&pay(Uuid::now_v7(), "c-2", 1, "tok_ok")).await.assert_rejected(402, "credit_exceeded");
    assert_eq!(set(29).await.code(), "credit_in_use");
    assert_eq!(set(-1).await.code(), "invalid_value");
    assert_eq!(set(31).await.body["remaining"], 1);

    let page = sales.get("/payments?customer_id=c-2&limit=2").await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = sales.get(&format!("/payments?customer_id=c-2&cursor={cursor}")).await;
    assert_eq!((page["items"].as_array().unwrap().len(), rest["items"].as_array().unwrap().len()), (2, 1));
    assert_eq!(sales.get("/payments?customer_id=c-3").await["items"], json!([]));
}

fn confirm(saga: Uuid, customer: &str) -> Call {
    let items = json!([{"product_id": "p-1", "quantity": 2}]);
    let body = json!({"customer_id": customer, "items": items, "total": 3998});
    Call::put(saga, "confirm_order", format!("/orders/{saga}"), body)
}

fn cancel(saga: Uuid, reason: Value) -> Call {
    Call::new(saga, "confirm_order", format!("/orders/{saga}/cancel"), json!({"reason": reason}))
}

#[rstest]
#[tokio::test]
async fn an_order_is_confirmed_and_cancelled(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let orders = Running::start(Kind::Orders, backend).await;
    let saga = Uuid::now_v7();
    let confirmed = orders.act(&confirm(saga, "c-1")).await;
    assert_eq!(confirmed.assert_ok()["status"], "confirmed");
    assert_eq!(orders.get(&format!("/orders/{saga}")).await["total"], 3998);
    assert_eq!(orders.undo(&cancel(saga, json!("payment_declined"))).await.assert_ok()["undone"], true);
    let shown = orders.get(&format!("/orders/{saga}")).await;
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("cancelled"), &json!("payment_declined")));
    assert_eq!(orders.effects(saga).await, ["action order_confirmed", "compensation order_cancelled"]);
}

#[rstest]
#[tokio::test]
async fn a_blocked_customer_and_impossible_orders_are_refused(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let orders = Running::start(Kind::Orders, backend).await;
    let saga = Uuid::now_v7();
    orders.act(&confirm(saga, "blocked")).await.assert_rejected(422, "customer_blocked");
    assert_eq!(orders.undo(&cancel(saga, Value::Null)).await.body, json!({"undone": false}));
    assert_eq!(orders.send(Method::GET, &format!("/orders/{saga}"), "").await.code(), "not_found");

    let saga = Uuid::now_v7();
    orders.act(&confirm(saga, "c-1")).await.assert_ok();
    let twice = Call { step: "again", ..confirm(saga, "c-1") };
    orders.act(&twice).await.assert_rejected(422, "order_exists");
    let empty = Call { body: json!({"customer_id": "c-1", "items": [], "total": 0}), ..confirm(Uuid::now_v7(), "c-1") };
    orders.act(&empty).await.assert_rejected(422, "invalid_items");
    orders.act(&cancel(Uuid::now_v7(), Value::Null)).await.assert_rejected(422, "order_not_found");
}

#[rstest]
#[tokio::test]
async fn orders_are_listed_by_customer_page_by_page(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let orders = Running::start(Kind::Orders, backend).await;
    for customer in ["c-1", "c-2", "c-1", "c-1"] {
        orders.act(&confirm(Uuid::now_v7(), customer)).await.assert_ok();
    }
    let page = orders.get("/orders?customer_id=c-1&limit=2").await;
    let rest = orders.get(&format!("/orders?customer_id=c-1&cursor={}", page["next_cursor"].as_str().unwrap())).await;
    assert_eq!((page["items"].as_array().unwrap().len(), rest["items"].as_array().unwrap().len()), (2, 1));
    assert_eq!(orders.get("/orders").await["items"].as_array().unwrap().len(), 4);
}

fn place(saga: Uuid, customer: &str) -> Call {
    let items = json!([{"product_id": "p-1", "quantity": 2}]);
    Call::new(saga, "create_order", format!("/orders/{saga}/place"), json!({"customer_id": customer, "items": items}))
}

fn confirm_pending(saga: Uuid) -> Call {
    Call::new(saga, "confirm_order", format!("/orders/{saga}/confirm"), json!({"total": 3998}))
}

#[rstest]
#[tokio::test]
async fn an_order_can_come_first_and_each_undo_leads_one_step_back(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let orders = Running::start(Kind::Orders, backend).await;
    let saga = Uuid::now_v7();
    let shown = async || {
        let shown = orders.get(&format!("/orders/{saga}")).await;
        (shown["status"].clone(), shown["total"].clone())
    };
    assert_eq!(orders.act(&place(saga, "c-1")).await.assert_ok()["status"], "pending");
    assert_eq!(shown().await, (json!("pending"), Value::Null));
    assert_eq!(orders.act(&confirm_pending(saga)).await.assert_ok()["status"], "confirmed");
    assert_eq!(shown().await, (json!("confirmed"), json!(3998)));
    let reopen = Call { path: format!("/orders/{saga}/reopen"), body: json!({}), ..confirm_pending(saga) };
    assert_eq!(orders.undo(&reopen).await.assert_ok()["undone"], true);
    assert_eq!(shown().await, (json!("pending"), Value::Null));
    let cancel = Call { step: "create_order", ..cancel(saga, json!("declined")) };
    assert_eq!(orders.undo(&cancel).await.assert_ok()["undone"], true);
    assert_eq!(shown().await, (json!("cancelled"), Value::Null));
    let effects = [
        "action order_placed",
        "action order_confirmed",
        "compensation order_reopened",
        "compensation order_cancelled",
    ];
    assert_eq!(orders.effects(saga).await, effects);
}

#[rstest]
#[tokio::test]
async fn only_a_pending_order_is_confirmed(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let orders = Running::start(Kind::Orders, backend).await;
    let saga = Uuid::now_v7();
    orders.act(&confirm_pending(saga)).await.assert_rejected(422, "order_not_found");
    orders.act(&place(Uuid::now_v7(), "blocked")).await.assert_rejected(422, "customer_blocked");
    let saga = Uuid::now_v7();
    orders.act(&confirm(saga, "c-1")).await.assert_ok();
    let step = "another";
    orders.act(&Call { step, ..confirm_pending(saga) }).await.assert_rejected(422, "order_not_pending");
    orders.act(&Call { step: "third", ..place(saga, "c-1") }).await.assert_rejected(422, "order_exists");
    let saga = Uuid::now_v7();
    orders.act(&place(saga, "c-1")).await.assert_ok();
    let negative = Call { body: json!({"total": -1}), ..confirm_pending(saga) };
    orders.act(&negative).await.assert_rejected(422, "invalid_amount");
}

#[rstest]
#[tokio::test]
async fn a_table_of_before_there_were_pending_orders_is_brought_up_to_date(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::create(backend).await;
    let db = Db::connect(&database.url, &DbOptions::default()).await.unwrap();
    db.create(&[
        "CREATE TABLE orders (
             id TEXT NOT NULL PRIMARY KEY, customer_id TEXT NOT NULL, items TEXT NOT NULL, total BIGINT NOT NULL,
             status TEXT NOT NULL CHECK (status IN ('confirmed', 'cancelled')), reason TEXT,
             created_at TEXT NOT NULL, updated_at TEXT NOT NULL
         )",
        "CREATE INDEX orders_customer ON orders (customer_id, id)",
        "INSERT INTO orders VALUES ('o-1', 'c-1', '[]', 5, 'confirmed', NULL, '2026-01-01T00:00:00Z', '2026-01-01T00:00:00Z')",
    ])
    .await
    .unwrap();
    db.close().await;
    let orders = Running::start_on(Kind::Orders, database, Box::new(|_| {})).await;
    assert_eq!(orders.get("/orders/o-1").await["total"], 5);
    let saga = Uuid::now_v7();
    orders.act(&place(saga, "c-1")).await.assert_ok();
    let orders = orders.restart().await;
    assert_eq!(orders.get("/orders?customer_id=c-1").await["items"].as_array().unwrap().len(), 2);
}
