//! The bundled checkout, one business outcome at a time.

use futures_util::future::join_all;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{Backend, Deployment, Postgres, Sqlite, order};

/// An order with some fields changed.
fn order_with(changes: Value) -> Value {
    let mut input = order("c-1");
    for (name, value) in changes.as_object().expect("changes are an object") {
        input[name] = value.clone();
    }
    input
}

fn item(product: &str, quantity: i64) -> Value {
    json!({"product_id": product, "quantity": quantity})
}

#[rstest]
#[tokio::test]
async fn a_checkout_completes_with_each_effect_once_3(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    let saga = world.skald.run("checkout", &order_with(json!({"items": [item("p-1", 2)]}))).await;
    assert_eq!((&saga["status"], &saga["state"]), (&json!("completed"), &json!("SALE_CONFIRMED")), "{saga}");
    assert_eq!(saga["output"], json!({"order_id": saga["id"], "total": 2 * 1_999}));
    let steps = saga["steps"].as_array().expect("a saga has steps");
    assert!(steps.iter().all(|step| step["outcome"] == "succeeded" && step["attempts"][0]["http_status"] == 200));

    let id = saga["id"].as_str().expect("a saga has an id");
    let types = world.skald.event_types(id).await;
    let domain: Vec<&str> = types.iter().map(String::as_str).filter(|name| !name.starts_with("Step")).collect();
    let expected = ["CheckoutInitiated", "StockVerified", "StockReserved", "PaymentAuthorized", "OrderConfirmed"];
    assert_eq!(domain[..5], expected);
    assert_eq!(domain[5..], ["StockCommitted", "CheckoutSucceeded"]);
    assert_eq!(world.shop.catalog.shelf("s-main", "p-1").await, (998, 0, 2));
    let order = world.shop.orders.client.get(&format!("/orders/{id}")).await.expect(200);
    assert_eq!((&order["status"], &order["total"]), (&json!("confirmed"), &json!(3_998)));
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn a_declined_payment_releases_the_stock_4(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    let declined = order_with(json!({"payment": {"method": "card", "token": "tok_declined"}}));
    let saga = world.skald.run("checkout", &declined).await;
    assert_eq!((&saga["status"], &saga["state"]), (&json!("compensated"), &json!("COMPENSATED")), "{saga}");
    assert_eq!(saga["failure"]["step"], "process_payment");
    assert_eq!(saga["failure"]["code"], "payment_declined");
    assert_eq!(saga["steps"][1]["status"], "compensated");
    assert_eq!(saga["steps"][1]["compensation"]["status"], "compensated");

    let id = saga["id"].as_str().expect("a saga has an id");
    let types = world.skald.event_types(id).await;
    let at = |name: &str| types.iter().position(|other| other == name).unwrap_or_else(|| panic!("{name} in {types:?}"));
    let order = ["StockReserved", "PaymentFailed", "SagaFailed", "StockReleased", "CheckoutFailed"].map(at);
    assert!(order.is_sorted(), "{types:?}");
    assert_eq!(world.shop.catalog.effects_of(id).await, ["reserve_stock:action", "reserve_stock:compensation"]);
    assert!(world.shop.sales.effects_of(id).await.is_empty());
    assert_eq!(world.shop.catalog.shelf("s-main", "p-1").await, (1_000, 0, 0));
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn each_refusal_ends_compensated_with_nothing_left_behind_4(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    for (changes, step, code, state) in [
        (json!({"items": [item("p-5", 1)]}), "verify_stock", "out_of_stock", "STOCK_INSUFFICIENT"),
        (json!({"items": [item("p-1", 1), item("p-4", 6)]}), "verify_stock", "out_of_stock", "STOCK_INSUFFICIENT"),
        (json!({"items": [item("p-99", 1)]}), "verify_stock", "unknown_product", "STOCK_INSUFFICIENT"),
        (json!({"customer_id": "c-poor"}), "process_payment", "credit_exceeded", "COMPENSATED"),
        (json!({"customer_id": "blocked"}), "confirm_order", "customer_blocked", "COMPENSATED"),
    ] {
        let saga = world.skald.run("checkout", &order_with(changes.clone())).await;
        assert_eq!(saga["status"], "compensated", "{changes}: {saga}");
        assert_eq!((&saga["failure"]["step"], &saga["failure"]["code"]), (&json!(step), &json!(code)), "{changes}");
        assert_eq!(saga["state"], state, "{changes}");
    }
    assert_eq!(world.shop.catalog.shelf("s-main", "p-1").await, (1_000, 0, 0));
    let refunded = world.shop.sales.client.all("/payments?customer_id=blocked").await;
    assert_eq!(refunded.len(), 1);
    assert_eq!(refunded[0]["status"], "refunded");
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn two_stores_and_several_items_keep_their_stock_apart_1(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    let several = json!([item("p-1", 3), item("p-2", 2), item("p-3", 10)]);
    let north = order_with(json!({"store_id": "s-north", "items": several}));
    let main = order_with(json!({"items": [item("p-2", 1), item("p-2", 4)]}));
    let declined = json!({"method": "card", "token": "tok_declined"});
    let refused = order_with(json!({"store_id": "s-north", "items": several, "payment": declined}));
    let (north, main, refused) = tokio::join!(
        world.skald.run("checkout", &north),
        world.skald.run("checkout", &main),
        world.skald.run("checkout", &refused),
    );
    assert_eq!(north["status"], "completed", "{north}");
    assert_eq!(main["status"], "completed", "{main}");
    assert_eq!(refused["status"], "compensated", "{refused}");
    assert_eq!(north["output"]["total"], 3 * 1_999 + 2 * 4_950 + 10 * 250);
    assert_eq!(main["output"]["total"], 5 * 4_950);
    let catalog = &world.shop.catalog;
    assert_eq!(catalog.shelf("s-north", "p-1").await, (997, 0, 3));
    assert_eq!(catalog.shelf("s-north", "p-2").await, (998, 0, 2));
    assert_eq!(catalog.shelf("s-north", "p-3").await, (990, 0, 10));
    assert_eq!(catalog.shelf("s-main", "p-1").await, (1_000, 0, 0));
    assert_eq!(catalog.shelf("s-main", "p-2").await, (995, 0, 5));
    world.check().await;
}

#[rstest]
#[tokio::test]
async fn the_last_unit_and_the_last_credit_are_sold_once_1(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    world.shop.catalog.stock_up("s-main", "p-5", 1).await;
    world.shop.sales.set_credit("c-thin", 4_999).await;
    let last_unit =
        |number: usize| order_with(json!({"customer_id": format!("c-{number}"), "items": [item("p-5", 1)]}));
    let last_credit = |_| order_with(json!({"customer_id": "c-thin", "items": [item("p-1", 1)]}));
    let inputs: Vec<Value> = (0..10).map(last_unit).chain((0..10).map(last_credit)).collect();
    let sagas = join_all(inputs.iter().map(|input| world.skald.run("checkout", input))).await;
    let completed = |sagas: &[Value]| sagas.iter().filter(|saga| saga["status"] == "completed").count();
    assert_eq!(completed(&sagas[..10]), 1, "one unit");
    assert_eq!(completed(&sagas[10..]), 2, "4999 is enough for two at 1999");
    assert_eq!(world.shop.catalog.shelf("s-main", "p-5").await, (0, 0, 1));
    world.check().await;
}
