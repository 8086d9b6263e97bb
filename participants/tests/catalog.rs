//! Catalog over HTTP: verify, reserve, commit, restock, release; out of stock; expiry; management.

use std::time::Duration;

use crate::support::{Backend, Call, Running, eventually};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use skald_participants::Kind;
use uuid::Uuid;

fn verify(saga: Uuid, items: Value) -> Call {
    Call::new(saga, "verify_stock", "/stock/verify", json!({"store_id": null, "items": items}))
}

fn reserve(saga: Uuid, items: Value) -> Call {
    Call::new(saga, "reserve_stock", "/stock/reserve", json!({"order_id": saga, "items": items}))
}

fn reserve_in(store: &str, saga: Uuid, items: Value) -> Call {
    let body = json!({"order_id": saga, "store_id": store, "items": items});
    Call::new(saga, "reserve_stock", "/stock/reserve", body)
}

fn release(saga: Uuid) -> Call {
    Call::of_order(saga, "reserve_stock", "/stock/release")
}

fn commit(saga: Uuid) -> Call {
    Call::of_order(saga, "commit_stock", "/stock/commit")
}

fn restock(saga: Uuid) -> Call {
    Call::of_order(saga, "commit_stock", "/stock/restock")
}

fn one(product: &str, quantity: i64) -> Value {
    json!([{"product_id": product, "quantity": quantity}])
}

#[rstest]
#[tokio::test]
async fn an_order_is_verified_reserved_and_sold_and_all_of_it_can_be_undone(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let catalog = Running::start(Kind::Catalog, backend).await;
    let saga = Uuid::now_v7();
    let verified = catalog.act(&verify(saga, one("p-1", 2))).await;
    assert_eq!(verified.assert_ok()["total"], 3998);
    assert_eq!(verified.body["items"][0]["available"], 1000);

    let reserved = catalog.act(&reserve(saga, one("p-1", 2))).await;
    assert_eq!(reserved.assert_ok()["total"], 3998);
    assert_eq!(reserved.body["items"], json!([{"product_id": "p-1", "quantity": 2, "unit_price": 1999}]));
    assert_eq!(catalog.stock("s-main", "p-1").await, (998, 2, 0));
    assert_eq!(catalog.act(&reserve(saga, one("p-1", 2))).await.body, reserved.body);

    catalog.act(&commit(saga)).await.assert_ok();
    assert_eq!(catalog.stock("s-main", "p-1").await, (998, 0, 2));

    assert_eq!(catalog.undo(&restock(saga)).await.assert_ok()["undone"], true);
    assert_eq!(catalog.stock("s-main", "p-1").await, (998, 2, 0), "restock undoes the commit only");
    assert_eq!(catalog.undo(&release(saga)).await.assert_ok()["undone"], true);
    assert_eq!(catalog.stock("s-main", "p-1").await, (1000, 0, 0));
    assert_eq!(
        catalog.effects(saga).await,
        [
            "action stock_reserved",
            "action stock_committed",
            "compensation stock_restocked",
            "compensation stock_released"
        ],
        "invariant 4; a look at the stock is no effect"
    );
}

#[rstest]
#[tokio::test]
async fn an_order_of_several_items_takes_all_or_none_from_its_store(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let catalog = Running::start(Kind::Catalog, backend).await;
    let items = json!([
        {"product_id": "p-4", "quantity": 2},
        {"product_id": "p-1", "quantity": 1},
        {"product_id": "p-4", "quantity": 1},
    ]);
    let saga = Uuid::now_v7();
    let reserved = catalog.act(&reserve_in("s-north", saga, items)).await;
    assert_eq!(reserved.assert_ok()["total"], 1999 + 3 * 129_900, "items of one product add up");
    assert_eq!(catalog.stock("s-north", "p-4").await, (2, 3, 0));
    assert_eq!(catalog.stock("s-main", "p-4").await, (5, 0, 0));

    let greedy = Uuid::now_v7();
    let items = json!([
        {"product_id": "p-1", "quantity": 1},
        {"product_id": "p-4", "quantity": 3},
        {"product_id": "p-5", "quantity": 1},
    ]);
    let refused = catalog.act(&reserve_in("s-north", greedy, items.clone())).await;
    refused.assert_rejected(422, "out_of_stock");
    let missing = json!([
        {"product_id": "p-4", "quantity": 3, "available": 2},
        {"product_id": "p-5", "quantity": 1, "available": 0},
    ]);
    assert_eq!(refused.body["missing"], missing);
    assert_eq!(catalog.stock("s-north", "p-1").await, (999, 1, 0), "nothing of the refused order is kept");

    catalog.undo(&release(saga)).await.assert_ok();
    let again = catalog.act(&reserve_in("s-north", greedy, items)).await;
    assert_eq!(again.body, refused.body, "the refusal is the key's answer, whatever the stock is now");
    assert_eq!(catalog.undo(&release(greedy)).await.body, json!({"undone": false}));
    assert!(catalog.effects(greedy).await.is_empty());
}

#[rstest]
#[tokio::test]
async fn orders_that_cannot_be_are_refused_by_name(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let catalog = Running::start(Kind::Catalog, backend).await;
    let fresh = Uuid::now_v7;
    for (items, code, words) in [
        (one("p-9", 1), "unknown_product", "p-9"),
        (one("p-1", 0), "invalid_items", "items[0].quantity"),
        (one("p-1", 1_000_001), "invalid_items", "items[0].quantity"),
        (one("p-1", 1_000_000), "out_of_stock", "1000 of p-1"),
        (json!([]), "invalid_items", "items"),
    ] {
        for call in [verify(fresh(), items.clone()), reserve(fresh(), items.clone())] {
            let refused = catalog.act(&call).await;
            refused.assert_rejected(422, code);
            assert!(refused.body["detail"].as_str().unwrap().contains(words), "{refused:?}");
        }
    }
    catalog.act(&reserve_in("s-nowhere", fresh(), one("p-1", 1))).await.assert_rejected(422, "unknown_product");
    for call in [commit(fresh()), Call::of_order(fresh(), "x", "/stock/release"), restock(fresh())] {
        catalog.act(&call).await.assert_rejected(422, "hold_not_found");
    }

    let saga = fresh();
    catalog.act(&reserve(saga, one("p-1", 1))).await.assert_ok();
    let twice = Call { step: "another_step", ..reserve(saga, one("p-1", 1)) };
    catalog.act(&twice).await.assert_rejected(422, "already_reserved");
    assert_eq!(catalog.stock("s-main", "p-1").await, (999, 1, 0));
    catalog.undo(&release(saga)).await.assert_ok();
    catalog.act(&commit(saga)).await.assert_rejected(422, "hold_released");
}

#[rstest]
#[tokio::test]
async fn what_is_sold_cannot_be_released_before_it_is_restocked(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let catalog = Running::start(Kind::Catalog, backend).await;
    let saga = Uuid::now_v7();
    catalog.act(&reserve(saga, one("p-4", 5))).await.assert_ok();
    catalog.act(&commit(saga)).await.assert_ok();
    catalog.undo(&release(saga)).await.assert_rejected(422, "hold_sold");
    catalog.undo(&restock(saga)).await.assert_ok();
    assert_eq!(catalog.undo(&release(saga)).await.assert_ok()["undone"], true, "the refusal was not stored");
    assert_eq!(catalog.stock("s-main", "p-4").await, (5, 0, 0));
}

async fn expiring(backend: Backend) -> Running {
    Running::start_with(Kind::Catalog, backend, |options| {
        options.hold_grace = Duration::ZERO;
        options.sweep_every = Duration::from_millis(20);
    })
    .await
}

async fn wait_for_expiry(catalog: &Running, saga: Uuid, times: usize) {
    eventually("the hold expires", async || {
        let effects = catalog.effects(saga).await;
        (effects.iter().filter(|effect| *effect == "expiry hold_expired").count() == times).then_some(())
    })
    .await;
}

#[rstest]
#[tokio::test]
async fn a_hold_ends_by_itself_and_that_is_its_undo(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let catalog = expiring(backend).await;
    let saga = Uuid::now_v7();
    catalog.act(&reserve(saga, one("p-4", 3))).await.assert_ok();
    wait_for_expiry(&catalog, saga, 1).await;
    assert_eq!(catalog.stock("s-main", "p-4").await, (5, 0, 0));
    assert_eq!(catalog.undo(&release(saga)).await.assert_ok()["undone"], false);
    assert_eq!(catalog.effects(saga).await, ["action stock_reserved", "expiry hold_expired"], "invariant 4");
    let entry = &catalog.get(&format!("/ledger?saga_id={saga}")).await["items"][1];
    assert_eq!(entry["key"], format!("{saga}:reserve_stock:expiry"));
}

#[rstest]
#[tokio::test]
async fn a_hold_lasts_until_the_deadline_and_its_grace(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let catalog = expiring(backend).await;
    let (lasting, ending) = (Uuid::now_v7(), Uuid::now_v7());
    let deadline = Some("2999-01-01T00:00:00Z".to_owned());
    let held = catalog.act(&Call { deadline, ..reserve(lasting, one("p-4", 1)) }).await;
    assert_eq!(held.assert_ok()["held_until"], "2999-01-01T00:00:00.000Z");
    catalog.act(&reserve(ending, one("p-4", 1))).await.assert_ok();
    wait_for_expiry(&catalog, ending, 1).await;
    assert_eq!(catalog.stock("s-main", "p-4").await, (4, 1, 0));
}

#[rstest]
#[tokio::test]
async fn a_commit_after_expiry_takes_what_is_available_or_has_to_wait(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let catalog = expiring(backend).await;
    let (late, other) = (Uuid::now_v7(), Uuid::now_v7());
    catalog.act(&reserve(late, one("p-4", 3))).await.assert_ok();
    wait_for_expiry(&catalog, late, 1).await;
    let deadline = Some("2999-01-01T00:00:00Z".to_owned());
    catalog.act(&Call { deadline, ..reserve(other, one("p-4", 4)) }).await.assert_ok();

    let short = catalog.act(&commit(late)).await;
    assert_eq!((short.status, short.retry_after.as_deref()), (503, Some("5")));
    catalog.undo(&release(other)).await.assert_ok();
    catalog.act(&commit(late)).await.assert_ok();
    assert_eq!(catalog.stock("s-main", "p-4").await, (2, 0, 3));

    assert_eq!(catalog.undo(&restock(late)).await.assert_ok()["undone"], true);
    assert_eq!(catalog.stock("s-main", "p-4").await, (5, 0, 0), "the hold itself was undone by its expiry");
    assert_eq!(catalog.undo(&release(late)).await.assert_ok()["undone"], false);
    assert_eq!(
        catalog.effects(late).await,
        ["action stock_reserved", "expiry hold_expired", "action stock_committed", "compensation stock_restocked"],
    );
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_orders_at_once_never_oversell(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let catalog = Running::start(Kind::Catalog, backend).await;
    let orders = (0..40).map(|number| {
        let catalog = &catalog;
        async move {
            let saga = Uuid::now_v7();
            let mut items =
                vec![json!({"product_id": "p-4", "quantity": 1}), json!({"product_id": "p-1", "quantity": 1})];
            if number % 2 == 0 {
                items.reverse();
            }
            catalog.act(&reserve(saga, json!(items))).await.status
        }
    });
    let mut statuses = futures_util::future::join_all(orders).await;
    statuses.sort_unstable();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 5, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 422).count(), 35, "{statuses:?}");
    assert_eq!(catalog.stock("s-main", "p-4").await, (0, 5, 0));
    assert_eq!(catalog.stock("s-main", "p-1").await, (995, 5, 0));
}

#[rstest]
#[tokio::test]
async fn products_and_stock_are_managed_and_listed(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let catalog = Running::start(Kind::Catalog, backend).await;
    let post = async |path: &str, body: Value| catalog.send(Method::POST, path, &body.to_string()).await;
    let tea = json!({"id": "p-6", "name": "Tea", "price": 700});
    assert_eq!(post("/products", tea.clone()).await.status, 201);
    assert_eq!(post("/products", tea.clone()).await.code(), "product_exists");
    assert_eq!(post("/products", json!({"id": "p-7", "name": "Tea", "price": -1})).await.code(), "invalid_value");

    let adjust =
        |store: &str, product: &str, delta: i64| json!({"store_id": store, "product_id": product, "delta": delta});
    assert_eq!(post("/stock/adjust", adjust("s-new", "p-6", 7)).await.body["available"], 7);
    assert_eq!(post("/stock/adjust", adjust("s-new", "p-6", -3)).await.body["initial"], 4);
    assert_eq!(post("/stock/adjust", adjust("s-new", "p-6", -5)).await.code(), "stock_too_low");
    assert_eq!(post("/stock/adjust", adjust("s-new", "p-6", i64::MAX)).await.code(), "invalid_value");
    assert_eq!(post("/stock/adjust", adjust("s-new", "p-9", 1)).await.status, 404);
    assert_eq!(catalog.stock("s-new", "p-6").await, (4, 0, 0));

    let page = catalog.get("/products?limit=4").await;
    assert_eq!(page["items"].as_array().unwrap().len(), 4);
    let rest = catalog.get(&format!("/products?limit=4&cursor={}", page["next_cursor"].as_str().unwrap())).await;
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next_cursor"]), (2, &Value::Null));
    assert_eq!(rest["items"][1], tea);
    let page = catalog.get("/stock?limit=1&product_id=p-1").await;
    let rest = catalog.get(&format!("/stock?product_id=p-1&cursor={}", page["next_cursor"].as_str().unwrap())).await;
    assert_eq!((&page["items"][0]["store_id"], &rest["items"][0]["store_id"]), (&json!("s-main"), &json!("s-north")));
    assert_eq!(catalog.get("/stock?store_id=s-new").await["items"].as_array().unwrap().len(), 1);
}

#[rstest]
#[tokio::test]
async fn an_adjustment_with_a_key_happens_once(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let catalog = Running::start(Kind::Catalog, backend).await;
    let saga = Uuid::now_v7();
    let call = Call::new(saga, "top_up", "/stock/adjust", json!({"product_id": "p-5", "delta": 4}));
    let first = catalog.act(&call).await;
    assert_eq!(first.assert_ok()["available"], 4);
    assert_eq!(catalog.act(&call).await.body, first.body);
    assert_eq!(catalog.stock("s-main", "p-5").await, (4, 0, 0));
    assert_eq!(catalog.effects(saga).await, ["action stock_adjusted"]);
}
