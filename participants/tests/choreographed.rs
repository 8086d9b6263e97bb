//! Choreographed sagas over the three services: nobody calls them, and all agree, whatever the bus and the network do.

use std::time::Duration;

use crate::{
    redis_server::RedisServer,
    store::Store,
    support::{Backend, Running, eventually},
};
use rstest::rstest;
use serde_json::{Value, json};
use skald_core::{
    decide::{Input, OperatorAction, OperatorCommand},
    state::Status,
    time::Millis,
};
use skald_participants::{Kind, SkaldOptions};
use uuid::Uuid;

const CHECKOUT: &str = include_str!("../../definitions/checkout.yaml");
const ORDER_FIRST: &str = include_str!("../../definitions/order-first.yaml");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bus {
    Http,
    Redis,
}

struct Shop {
    store: Store,
    catalog: Running,
    sales: Running,
    orders: Running,
    _redis: Option<RedisServer>,
}

impl Shop {
    async fn open(bus: Bus, backend: Backend) -> Self {
        let store = Store::start().await;
        store.define(CHECKOUT);
        store.define(ORDER_FIRST);
        let mut redis = None;
        if bus == Bus::Redis {
            let server = RedisServer::start().await;
            store.publish_to(&server.url()).await;
            redis = Some(server);
        }
        let (bus, lease) = (redis.as_ref().map(RedisServer::url), Duration::from_secs(1));
        let skald = SkaldOptions { bus, lease, ..SkaldOptions::new(&store.url) };
        let start = async |kind| {
            let skald = skald.clone();
            Running::start_with(kind, backend, move |options| {
                options.faults = true;
                options.skald = Some(skald.clone());
            })
            .await
        };
        let (catalog, sales, orders) =
            (start(Kind::Catalog).await, start(Kind::Sales).await, start(Kind::Orders).await);
        Self { store, catalog, sales, orders, _redis: redis }
    }

    async fn ended(&self, saga: Uuid) -> Status {
        let status = async || Some(self.store.status(saga)).filter(|status| status.is_ended());
        eventually(&format!("saga {saga} ends"), status).await
    }

    async fn effects(&self, saga: Uuid) -> [Vec<String>; 3] {
        [self.catalog.effects(saga).await, self.sales.effects(saga).await, self.orders.effects(saga).await]
    }

    fn types(&self, saga: Uuid) -> Vec<String> {
        self.store.types(&saga.to_string())
    }
}

fn order(customer: &str, product: &str, token: &str) -> Value {
    json!({
        "customer_id": customer,
        "items": [{"product_id": product, "quantity": 2}],
        "payment": {"method": "card", "token": token},
    })
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkout_succeeds_without_anybody_calling(
    #[values(Bus::Http, Bus::Redis)] bus: Bus,
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let shop = Shop::open(bus, backend).await;
    let saga = shop.store.begin("checkout", &order("c-1", "p-1", "tok_ok"));
    assert_eq!(shop.ended(saga).await, Status::Completed);
    let types = [
        "CheckoutInitiated",
        "StockVerified",
        "StockReserved",
        "PaymentAuthorized",
        "OrderConfirmed",
        "StockCommitted",
        "CheckoutSucceeded",
    ];
    assert_eq!(shop.types(saga), types);
    let effects = [
        vec!["action stock_reserved", "action stock_committed"],
        vec!["action payment_taken"],
        vec!["action order_confirmed"],
    ];
    assert_eq!(shop.effects(saga).await, effects);
    assert_eq!(shop.catalog.stock("s-main", "p-1").await, (998, 0, 2));
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declined_payment_undoes_what_others_did(#[values(Bus::Http, Bus::Redis)] bus: Bus) {
    let shop = Shop::open(bus, Backend::Sqlite).await;
    let saga = shop.store.begin("checkout", &order("c-1", "p-1", "tok_declined"));
    assert_eq!(shop.ended(saga).await, Status::Compensated);
    let types = [
        "CheckoutInitiated",
        "StockVerified",
        "StockReserved",
        "PaymentFailed",
        "SagaFailed",
        "StockReleased",
        "CheckoutFailed",
    ];
    assert_eq!(shop.types(saga), types);
    assert_eq!(shop.effects(saga).await[0], ["action stock_reserved", "compensation stock_released"]);
    assert_eq!(shop.catalog.stock("s-main", "p-1").await, (1000, 0, 0));
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_comes_first_is_confirmed_or_cancelled(#[values(Bus::Http, Bus::Redis)] bus: Bus) {
    let shop = Shop::open(bus, Backend::Sqlite).await;
    let good = shop.store.begin("order-first", &order("c-1", "p-1", "tok_ok"));
    let unpaid = shop.store.begin("order-first", &order("c-1", "p-1", "tok_declined"));
    let blocked = shop.store.begin("order-first", &order("blocked", "p-1", "tok_ok"));
    assert_eq!(shop.ended(good).await, Status::Completed);
    assert_eq!(shop.ended(unpaid).await, Status::Compensated);
    assert_eq!(shop.ended(blocked).await, Status::Compensated);
    let shown = shop.orders.get(&format!("/orders/{good}")).await;
    assert_eq!((&shown["status"], &shown["total"]), (&json!("confirmed"), &json!(3998)));
    let shown = shop.orders.get(&format!("/orders/{unpaid}")).await;
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("cancelled"), &json!("the card was declined")));
    assert_eq!(shop.effects(unpaid).await[2], ["action order_placed", "compensation order_cancelled"]);
    assert_eq!(shop.types(blocked), ["OrderFirstInitiated", "OrderCreationFailed", "SagaFailed", "OrderFirstFailed"]);
    assert_eq!(shop.catalog.stock("s-main", "p-1").await, (998, 0, 2));
}

fn operator(action: OperatorAction) -> Input {
    Input::Operator(OperatorCommand {
        actor: "o-1".to_owned(),
        reason: "a test".to_owned(),
        request_id: None,
        correlation_id: None,
        expected_revision: None,
        action,
    })
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_its_saga_goes_on_without_is_undone(#[values(Bus::Http, Bus::Redis)] bus: Bus) {
    let shop = Shop::open(bus, Backend::Sqlite).await;
    shop.catalog.set_faults(json!({"reserve": {"delay": {"rate": 1, "ms": 1500}}})).await;
    let saga = shop.store.begin("checkout", &order("c-1", "p-1", "tok_ok"));
    eventually("the reservation begins", async || {
        shop.catalog.get("/metrics").await.as_str().unwrap().contains(r#"fault="delay""#).then_some(())
    })
    .await;
    // Past the deadline, silent for as long again, and given up by an operator.
    shop.store.input(saga, Input::Tick, Millis(130_000));
    shop.store.input(saga, Input::Tick, Millis(600_000));
    shop.store.input(saga, operator(OperatorAction::Abandon), Millis(600_000));
    assert_eq!(shop.ended(saga).await, Status::Abandoned);
    let effects = async || {
        let effects = shop.catalog.effects(saga).await;
        (effects == ["action stock_reserved", "compensation stock_released"]).then_some(())
    };
    eventually("the stock is given back", effects).await;
    assert_eq!(shop.types(saga).last().unwrap(), "SagaAbandoned");
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_deadline_what_hangs_is_cancelled(
    #[values(Bus::Http, Bus::Redis)] bus: Bus,
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let shop = Shop::open(bus, backend).await;
    shop.sales.set_faults(json!({"payments": {"hang": 1}})).await;
    let saga = shop.store.begin("checkout", &order("c-1", "p-1", "tok_ok"));
    eventually("the payment is due", async || shop.types(saga).contains(&"StockReserved".to_owned()).then_some(()))
        .await;
    shop.store.input(saga, Input::Tick, Millis(130_000));
    assert_eq!(shop.ended(saga).await, Status::Compensated);
    let effects = [vec!["action stock_reserved", "compensation stock_released"], vec![], vec![]];
    assert_eq!(shop.effects(saga).await, effects);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_yet_is_done_later_and_holds_nothing_back() {
    let shop = Shop::open(Bus::Http, Backend::Sqlite).await;
    shop.sales.set_faults(json!({"payments": {"error_500": 1}})).await;
    let saga = shop.store.begin("checkout", &order("c-1", "p-1", "tok_ok"));
    eventually("the payment is due", async || shop.types(saga).contains(&"StockReserved".to_owned()).then_some(()))
        .await;
    eventually("its event is settled all the same", async || {
        let metrics = shop.sales.get("/metrics").await;
        let metrics = metrics.as_str().unwrap();
        let consumed = r#"events_consumed_total{consumer="reactor-sales",mode="choreographed",result="done""#;
        let line = metrics.lines().find(|line| line.starts_with(consumed))?;
        line.ends_with(" 3").then_some(())
    })
    .await;
    let other = shop.store.begin("checkout", &order("c-1", "p-5", "tok_ok"));
    assert_eq!(shop.ended(other).await, Status::Compensated, "there are no kettles");
    shop.sales.set_faults(json!({})).await;
    assert_eq!(shop.ended(saga).await, Status::Completed);
}

/// Many sagas under every fault of the services, with a store that fails and loses answers, and services that die.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_agree_under_faults_and_crashes(
    #[values(Bus::Http, Bus::Redis)] bus: Bus,
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let mut shop = Shop::open(bus, backend).await;
    let faults = json!({"*": {
        "error_500": 0.1, "unavailable": {"rate": 0.05}, "lose_reply": 0.2, "duplicate": 0.2,
        "delay": {"rate": 0.2, "ms": 30},
    }});
    for service in [&shop.catalog, &shop.sales, &shop.orders] {
        service.set_faults(faults.clone()).await;
    }
    let mut sagas = Vec::new();
    for number in 0..60 {
        let token = if number % 3 == 0 { "tok_declined" } else { "tok_ok" };
        let definition = if number % 2 == 0 { "checkout" } else { "order-first" };
        sagas.push((shop.store.begin(definition, &order(&format!("c-{number}"), "p-1", token)), token));
        if number % 20 == 10 {
            shop.store.fail_next(2);
            shop.store.lose_next_answers(3);
        }
        if number == 30 {
            shop.sales = shop.sales.restart().await;
            shop.catalog = shop.catalog.restart().await;
        }
    }
    let mut sold = 0;
    for (saga, token) in sagas {
        let status = shop.ended(saga).await;
        let expected = if token == "tok_ok" { Status::Completed } else { Status::Compensated };
        assert_eq!(status, expected, "{:?}", shop.types(saga));
        sold += 2 * i64::from(token == "tok_ok");
        for effects in shop.effects(saga).await {
            let count = |name: &str| effects.iter().filter(|effect| effect.ends_with(name)).count();
            assert!(effects.iter().all(|effect| count(effect) == 1), "invariant 3: {effects:?}");
            let undone = effects.iter().filter(|effect| effect.starts_with("compensation")).count();
            let done = effects.len() - undone;
            assert_eq!(undone, if status == Status::Completed { 0 } else { done }, "invariants 4 and 5: {effects:?}");
        }
    }
    assert_eq!(shop.catalog.stock("s-main", "p-1").await, (1000 - sold, 0, sold));
}

/// A metric of the three services, over all its labels.
async fn counted(shop: &Shop, name: &str) -> f64 {
    let mut sum = 0.0;
    for service in [&shop.catalog, &shop.sales, &shop.orders] {
        let text = service.get("/metrics").await;
        let of_metric = text.as_str().unwrap().lines().filter(|line| line.starts_with(name));
        sum += of_metric.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>();
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_cannot_be_had_handled_or_posted_are_counted() {
    let shop = Shop::open(Bus::Http, Backend::Sqlite).await;
    shop.catalog.set_faults(json!({"verify": {"error_500": 1}})).await;
    let saga = shop.store.begin("checkout", &order("c-1", "p-1", "tok_ok"));
    let at_least_one = async |name: &str| {
        eventually(name, async || (counted(&shop, name).await >= 1.0).then_some(())).await;
    };
    at_least_one("event_processing_errors_total").await;
    assert_eq!(counted(&shop, "event_publish_errors_total").await, 0.0);
    shop.store.fail_next(20);
    shop.catalog.set_faults(json!({})).await;
    assert_eq!(shop.ended(saga).await, Status::Completed);
    // Whichever requests fail, the one or the other, until some of each kind have.
    for name in ["event_publish_errors_total", "event_consume_errors_total"] {
        eventually(name, async || {
            shop.store.fail_next(20);
            let saga = shop.store.begin("checkout", &order("c-1", "p-1", "tok_ok"));
            shop.ended(saga).await;
            (counted(&shop, name).await >= 1.0).then_some(())
        })
        .await;
    }
    let (posted, handled) = (
        counted(&shop, "event_publish_duration_seconds_count").await,
        counted(&shop, "event_processing_duration_seconds_count").await,
    );
    assert!(posted >= 5.0 && handled >= 5.0, "{posted} {handled}");
}
