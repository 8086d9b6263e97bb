//! Views: read models that follow the log, and what they are without having followed it.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use skald_kit::{Db, DbOptions, Tx, TxFuture, params};
use skald_participants::WorkerKind;

use super::{Bus, Working, checkout, failed_checkout, go_on, input, saga};
use crate::support::{Backend, eventually};

async fn start(backend: Backend) -> Working {
    Working::start(WorkerKind::Views, Bus::Http, backend, None).await
}

/// Waits until every projection has taken in the whole log.
async fn caught_up(views: &Working) {
    let log = views.store.data().log.clone();
    let of = |category: &Value| log.iter().filter(|event| event["category"] == *category).count();
    eventually("the views have caught up", async || {
        let projections = views.get("/projections").await;
        let mut all = projections["items"].as_array().unwrap().iter();
        let done = |item: &Value| item["events"] == of(&item["category"]) && item["at_end"] == true;
        all.all(done).then_some(())
    })
    .await;
}

/// Rebuilds or verifies; the lines of progress, of which the last one tells the result.
async fn replay(views: &Working, name: &str, what: &str) -> Vec<Value> {
    let answer = views.send(Method::POST, &format!("/projections/{name}/{what}")).await;
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "application/x-ndjson"), "{answer:?}");
    // One line alone is parsed as JSON already.
    match answer.body {
        Value::String(text) => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        line => vec![line],
    }
}

const NAMES: [&str; 4] = ["orders-by-customer", "sales-by-store-and-day", "sagas-by-state", "cart-contents"];

fn fill(views: &Working, sagas: usize) {
    for number in 0..sagas {
        match number % 4 {
            0 => _ = failed_checkout(&views.store, "c-2", None),
            1 => _ = saga(&views.store, "checkout", &[("SagaStarted", "CheckoutInitiated", input("c-1", None))]),
            _ => _ = checkout(&views.store, "c-1", None),
        }
        let added = json!({"product_id": format!("p-{}", number % 3), "quantity": 1, "customer_id": "c-1"});
        views.store.append(&format!("cart-{}", number % 5), "CartItemAdded", added);
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_models_show_what_the_log_says(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let views = start(backend).await;
    let good = checkout(&views.store, "c-1", None);
    let bad = failed_checkout(&views.store, "c-1", None);
    let open = saga(&views.store, "order-first", &[("SagaStarted", "OrderFirstInitiated", input("c-1", None))]);
    views.store.append("cart-42", "CartItemAdded", json!({"product_id": "p-1", "quantity": 2, "customer_id": "c-1"}));
    caught_up(&views).await;

    let orders = views.get("/read-models/orders-by-customer/c-1").await;
    assert_eq!((&orders["key"], &orders["orders"].as_array().unwrap().len()), (&json!("c-1"), &3));
    assert_eq!((&orders["spent"], &orders["by_status"]["confirmed"]), (&json!(3998), &json!(1)));
    let newest: Vec<&Value> = orders["orders"].as_array().unwrap().iter().map(|order| &order["order_id"]).collect();
    assert_eq!(newest, [&json!(open), &json!(bad), &json!(good)]);
    let page = views.get("/read-models/orders-by-customer/c-1?limit=2").await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = views.get(&format!("/read-models/orders-by-customer/c-1?limit=2&cursor={cursor}")).await;
    assert_eq!((&rest["orders"][0]["order_id"], &rest["next_cursor"]), (&json!(good), &Value::Null));

    let sales = views.get("/read-models/sales-by-store-and-day").await;
    let day = &sales["items"][0];
    let today = chrono::Utc::now().format("%Y-%m-%d").to_string();
    assert!(day["key"] == format!("s-main:{}", day["day"].as_str().unwrap()) && day["day"].as_str() <= Some(&today));
    assert_eq!((&day["orders"], &day["items"], &day["revenue"]), (&json!(1), &json!(2), &json!(3998)));

    let running = views.get("/read-models/sagas-by-state/running").await;
    assert_eq!((&running["count"], &running["sagas"][0]["saga"]), (&json!(1), &json!(open)));
    let parked = views.get("/read-models/sagas-by-state/parked").await;
    assert_eq!((&parked["count"], &parked["sagas"]), (&json!(0), &json!([])), "a status that no saga has");
    let states = views.get("/read-models/sagas-by-state").await;
    let keys: Vec<&Value> = states["items"].as_array().unwrap().iter().map(|state| &state["key"]).collect();
    assert_eq!(keys, ["compensated", "completed", "running"]);

    let cart = views.get("/read-models/cart-contents/cart-42").await;
    assert_eq!(cart["items"], json!([{"product_id": "p-1", "quantity": 2}]));
    for path in [
        "/read-models/cart-contents/cart-43",
        "/read-models/carts",
        "/read-models/carts/cart-42",
        "/read-models/sagas-by-state/late",
    ] {
        let answer = views.send(Method::GET, path).await;
        assert_eq!((answer.status, answer.code()), (404, "not_found"), "{path}");
    }
    let metrics = views.send(Method::GET, "/metrics").await.body;
    for line in [
        r#"projection_updates_total{projection="cart-contents",service="views"} 1"#,
        r#"projection_lag_seconds{projection="sagas-by-state",service="views"} 0"#,
        r#"events_consumed_total{consumer="sagas-by-state",mode="orchestrated",result="done",service="views"} 10"#,
    ] {
        assert!(metrics.as_str().unwrap().contains(line), "{line} is not in {metrics}");
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_in_is_not_taken_in_again(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let mut views = start(backend).await;
    for round in 0..5 {
        fill(&views, 8);
        match round {
            1 => views.store.fail_next(3),
            2 => views.store.lose_next_answers(3),
            _ => {}
        }
        // In the middle of it.
        views = views.restart().await;
    }
    caught_up(&views).await;
    let sales = views.get("/read-models/sales-by-store-and-day").await;
    let orders: i64 = sales["items"].as_array().unwrap().iter().map(|day| day["orders"].as_i64().unwrap()).sum();
    assert_eq!(orders, 20, "{sales}");
    for name in NAMES {
        let lines = replay(&views, name, "verify").await;
        let last = lines.last().unwrap();
        assert_eq!((&last["phase"], &last["difference_count"]), (&json!("verified"), &json!(0)), "{name}: {last}");
    }
}

fn meddle(tx: &mut Tx) -> TxFuture<'_, ()> {
    Box::pin(async move {
        let wrong = "UPDATE view_rows SET value = $1
                     WHERE projection = 'sagas-by-state' AND key = 'completed' AND item = ''";
        tx.execute(wrong, params![r#"{"count":7}"#]).await?;
        let missing = "DELETE FROM view_rows WHERE projection = 'sagas-by-state' AND key = 'running'";
        tx.execute(missing, params![]).await?;
        Ok(())
    })
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_repairs_while_reads_and_the_log_go_on(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let views = start(backend).await;
    fill(&views, 40);
    caught_up(&views).await;
    // Somebody meddles with the rows.
    let db = Db::connect(&views.database.url, &DbOptions::default()).await.unwrap();
    // SQLite has one writer, and that is in the worker.
    eventually("the rows can be written", async || db.transaction(meddle).await.ok()).await;
    let lines = replay(&views, "sagas-by-state", "verify").await;
    let last = lines.last().unwrap();
    assert_eq!((&last["phase"], &last["difference_count"]), (&json!("verified"), &json!(12)), "{last}");
    let told = last["differences"].as_array().unwrap();
    let completed = told.iter().find(|told| told["key"] == "completed").unwrap();
    assert_eq!((&completed["live"]["count"], &completed["replayed"]["count"]), (&json!(7), &json!(20)));
    assert!(told.iter().any(|told| told["key"] == "running" && told["live"].is_null()));

    let reading = async {
        for number in 0..30 {
            let answer = views.send(Method::GET, "/read-models/sagas-by-state/completed").await;
            let count = answer.assert_ok()["count"].as_i64().unwrap();
            // The wrong number and what has come since, or the right one.
            assert!((7..=17).contains(&count) || count >= 20, "half of a rebuild is seen: {count}");
            if number % 3 == 0 {
                checkout(&views.store, "c-1", None);
            }
        }
    };
    let (lines, ()) = tokio::join!(replay(&views, "sagas-by-state", "rebuild"), reading);
    let last = lines.last().unwrap();
    assert_eq!(last["phase"], "rebuilt", "{last}");
    assert!(lines.iter().any(|line| line["phase"] == "replaying" && line["total"].as_i64() > Some(0)), "{lines:?}");
    caught_up(&views).await;
    assert_eq!(views.get("/read-models/sagas-by-state/completed").await["count"], 30);
    assert_eq!(views.get("/read-models/sagas-by-state/running").await["count"], 10);
    let last = replay(&views, "sagas-by-state", "verify").await.pop().unwrap();
    assert_eq!(last["difference_count"], 0, "{last}");
    let left = "SELECT COUNT(DISTINCT generation) AS count FROM view_rows WHERE projection = 'sagas-by-state'";
    assert_eq!(db.row(left, params![]).await.unwrap().unwrap().get::<i64>("count").unwrap(), 1);
    db.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verification_holds_while_the_log_grows_under_it() {
    let views = start(Backend::Sqlite).await;
    fill(&views, 20);
    let growing = async {
        for _ in 0..20 {
            fill(&views, 3);
            tokio::task::yield_now().await;
        }
    };
    let verifying = async {
        for _ in 0..5 {
            for name in NAMES {
                let last = replay(&views, name, "verify").await.pop().unwrap();
                assert_eq!(
                    (&last["phase"], &last["difference_count"]),
                    (&json!("verified"), &json!(0)),
                    "{name}: {last}"
                );
            }
        }
    };
    tokio::join!(growing, verifying);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_cannot_read_the_log_says_so_and_changes_nothing() {
    let views = start(Backend::Sqlite).await;
    let open = saga(&views.store, "checkout", &[("SagaStarted", "CheckoutInitiated", input("c-1", None))]);
    caught_up(&views).await;
    views.store.fail_next(1000);
    let last = replay(&views, "orders-by-customer", "rebuild").await.pop().unwrap();
    assert!(last["phase"] == "failed" && last["error"].as_str().unwrap().contains("503"), "{last}");
    assert_eq!(views.get("/read-models/orders-by-customer/c-1").await["by_status"]["pending"], 1);
    let lag = async || {
        let projections = views.get("/projections").await;
        let behind = |item: &Value| item["lag_seconds"].as_f64() > Some(0.0);
        projections["items"].as_array().unwrap().iter().all(behind).then_some(())
    };
    eventually("the lag is seen", lag).await;
    views.store.fail_next(0);
    go_on(&views.store, open, "checkout", &[("SagaAbandoned", "SagaAbandoned", json!({}))]);
    caught_up(&views).await;
    assert_eq!(views.get("/read-models/orders-by-customer/c-1").await["by_status"], json!({"abandoned": 1}));
    assert_eq!(views.send(Method::POST, "/projections/x/verify").await.code(), "not_found");
}
