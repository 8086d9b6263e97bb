//! Each read model by example, and all of them by one law: rows depend on the log, not on how it was read.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::json;
use skald_kit::{Db, DbOptions};

use super::{
    super::{
        compare,
        generation::Generation,
        progress::Progress,
        projection::{Changes, RowKey},
        statements::TABLES,
    },
    *,
};

/// One event to be: stream, kind, type, data. The shard goes by the stream.
type Told = (String, &'static str, &'static str, Value);

/// The log of what is told, in this order: positions by shard, versions by stream, a minute between events.
fn log(told: &[Told]) -> Vec<Event> {
    let mut positions: BTreeMap<u16, i64> = BTreeMap::new();
    let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
    let begin: DateTime<Utc> = "2026-01-31T23:00:00Z".parse().unwrap();
    let mut events = Vec::new();
    for (minute, (stream, kind, type_name, data)) in (0..).zip(told) {
        let shard = u16::from(stream.bytes().last().unwrap() % 3);
        let position = positions.entry(shard).or_default();
        *position += 1;
        let version = versions.entry(stream).or_default();
        *version += 1;
        let category = stream.split('-').next().unwrap();
        events.push(
            serde_json::from_value(json!({
                "id": format!("{stream}:{version}"), "type": type_name, "stream": stream, "version": version,
                "shard": shard, "position": position, "kind": kind, "category": category, "definition": "checkout",
                "mode": "orchestrated", "time": begin + TimeDelta::minutes(minute), "data": data,
            }))
            .unwrap(),
        );
    }
    events
}

fn saga(stream: &str, script: &[(&'static str, &'static str, Value)]) -> Vec<Told> {
    let input = json!({"customer_id": format!("c-{}", stream.len() % 2), "items": [
        {"product_id": "p-1", "quantity": 2}, {"product_id": "p-2", "quantity": 1}]});
    let started = ("SagaStarted", "CheckoutInitiated", json!({"input": input}));
    let all = std::iter::once(&started).chain(script);
    all.map(|(kind, type_name, data)| (stream.to_owned(), *kind, *type_name, data.clone())).collect()
}

fn completed(stream: &str) -> Vec<Told> {
    saga(
        stream,
        &[
            ("StepStarted", "StepStarted", json!({"step": "confirm_order", "operation": "action"})),
            ("StepSucceeded", "OrderConfirmed", json!({"step": "confirm_order"})),
            ("SagaCompleted", "CheckoutSucceeded", json!({"output": {"total": 500}})),
        ],
    )
}

fn declined(stream: &str) -> Vec<Told> {
    let failed = json!({"step": "process_payment", "code": "declined", "reason": "no money"});
    saga(
        stream,
        &[
            ("StepRejected", "PaymentFailed", json!({"step": "process_payment"})),
            ("SagaFailed", "SagaFailed", failed),
            ("StepCompensated", "StockReleased", json!({"step": "reserve_stock"})),
            ("SagaCompensated", "CheckoutFailed", json!({})),
        ],
    )
}

fn parked_and_retried(stream: &str) -> Vec<Told> {
    saga(
        stream,
        &[
            ("StepParked", "StepParked", json!({"step": "commit_stock", "operation": "action"})),
            ("OperatorActed", "OperatorActed", json!({"action": "retry", "step": "commit_stock"})),
            ("StepRetried", "StepRetried", json!({"step": "commit_stock", "operation": "action"})),
        ],
    )
}

fn cart(stream: &str) -> Vec<Told> {
    let event = |type_name: &'static str, data: Value| (stream.to_owned(), "Appended", type_name, data);
    vec![
        event("CartItemAdded", json!({"product_id": "p-1", "quantity": 2, "customer_id": "c-1"})),
        event("CartItemAdded", json!({"product_id": "p-2"})),
        event("CartItemAdded", json!({"product_id": "p-1"})),
        event("CartItemRemoved", json!({"product_id": "p-2"})),
        event("CartItemAdded", json!({"product_id": "p-3", "quantity": 5})),
        event("CartItemRemoved", json!({"product_id": "p-3", "quantity": 4})),
        event("SomethingElse", json!({"product_id": "p-1", "store_id": "s-9"})),
        event("CartCheckedOut", json!({})),
        event("CartItemAdded", json!({"product_id": "p-1", "quantity": 7})),
    ]
}

/// The rows that a log comes to, without a database.
fn rows(projection: &dyn Projection, events: &[Event]) -> BTreeMap<RowKey, Value> {
    let mut rows: BTreeMap<RowKey, Value> = BTreeMap::new();
    let mut states: BTreeMap<String, Value> = BTreeMap::new();
    for event in events.iter().filter(|event| event.category == projection.category()) {
        let mut changes = Changes::default();
        if let Some(state) = projection.fold(states.remove(&event.stream), event, &mut changes) {
            states.insert(event.stream.clone(), state);
        }
        let summary = |key: String| Some((key.clone(), rows.get(&(key, String::new()))?.clone()));
        let known = changes.summaries().into_iter().filter_map(summary).collect();
        for (key, value) in changes.into_rows(known) {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
    }
    rows
}

fn row<'r>(rows: &'r BTreeMap<RowKey, Value>, key: &str, item: &str) -> &'r Value {
    rows.get(&(key.to_owned(), item.to_owned())).unwrap_or(&Value::Null)
}

#[test]
fn a_customer_has_orders_of_every_status() {
    let told = [completed("saga-aa"), declined("saga-bb"), parked_and_retried("saga-cc")].concat();
    let rows = rows(&orders::OrdersByCustomer, &log(&told));
    let summary = json!({"orders": 3, "spent": 500, "by_status": {"confirmed": 1, "failed": 1, "pending": 1}});
    assert_eq!(row(&rows, "c-1", ""), &summary);
    let confirmed = row(&rows, "c-1", "saga-aa");
    assert_eq!(
        (&confirmed["status"], &confirmed["total"], &confirmed["item_count"]),
        (&json!("confirmed"), &json!(500), &json!(3))
    );
    let failed = row(&rows, "c-1", "saga-bb");
    assert_eq!((&failed["status"], &failed["failure"]["code"]), (&json!("failed"), &json!("declined")));
    let unordered = (String::from("saga-x"), "SagaStarted", "NoteStarted", json!({"input": {"text": "x"}}));
    assert!(self::rows(&orders::OrdersByCustomer, &log(&[unordered])).is_empty());
}

#[test]
fn sales_are_counted_on_the_day_on_which_they_were_completed() {
    let told = [completed("saga-aa"), declined("saga-bb"), vec![("x-1".to_owned(), "Appended", "X", json!({})); 48]];
    let mut told = told.concat();
    told.extend(completed("saga-cc"));
    told.extend(completed("saga-dd"));
    let rows = rows(&sales::SalesByStoreAndDay, &log(&told));
    let day = |day: &str, count: i64| json!({"day": day, "store_id": "s-main", "orders": count, "items": 3 * count, "revenue": 500 * count});
    assert_eq!(row(&rows, "s-main:2026-01-31", ""), &day("2026-01-31", 1));
    assert_eq!(row(&rows, "s-main:2026-02-01", ""), &day("2026-02-01", 2));
    assert_eq!(rows.len(), 2);
}

#[test]
fn a_saga_is_in_one_state_at_a_time() {
    let script = parked_and_retried("saga-aa");
    for (events, status) in [(1, "running"), (2, "parked"), (3, "parked"), (4, "running")] {
        let rows = rows(&sagas::SagasByState, &log(&script[..events]));
        assert_eq!(row(&rows, status, ""), &json!({"count": 1, "by_definition": {"checkout": 1}}), "{events}");
        assert_eq!(rows.len(), 2, "{rows:?}");
    }
    let script = declined("saga-bb");
    for (events, status) in [(2, "running"), (3, "compensating"), (4, "compensating"), (5, "compensated")] {
        let rows = rows(&sagas::SagasByState, &log(&script[..events]));
        assert_eq!(row(&rows, status, "saga-bb")["version"], events, "{rows:?}");
    }
    let rows = rows(&sagas::SagasByState, &log(&[completed("saga-aa"), completed("saga-bb")].concat()));
    assert_eq!(row(&rows, "completed", "")["count"], 2);
    assert_eq!(row(&rows, "running", ""), &Value::Null);
}

#[test]
fn a_cart_holds_what_was_added_and_not_removed_until_it_is_checked_out() {
    let rows = rows(&carts::CartContents, &log(&cart("cart-1")));
    let mut cart = row(&rows, "cart-1", "").clone();
    assert_eq!(cart["version"], 9);
    let items = json!([{"product_id": "p-1", "quantity": 3}, {"product_id": "p-3", "quantity": 1}]);
    let fields = cart.as_object_mut().unwrap();
    fields.retain(|field, _| field != "version" && field != "updated_at");
    assert_eq!(cart, json!({"items": items, "checked_out": true, "customer_id": "c-1"}));
}

/// Streams that run at the same time, each cut off somewhere.
fn streams() -> impl Strategy<Value = Vec<Vec<Told>>> {
    prop::collection::vec((0..4_usize, 0..10_usize), 1..12).prop_map(|picks| {
        let streams = picks.into_iter().enumerate().map(|(number, (script, cut))| {
            let mut told = match script {
                0 => completed(&format!("saga-{number:02}")),
                1 => declined(&format!("saga-1{number:02}")),
                2 => parked_and_retried(&format!("saga-{number:02}")),
                _ => cart(&format!("cart-{number:02}")),
            };
            told.truncate(1 + cut);
            told
        });
        streams.collect()
    })
}

/// Takes from the front of the queues, by turns that the numbers choose.
fn interleaved<T: Clone>(queues: &[Vec<T>], choices: &[usize]) -> Vec<T> {
    let mut rest: Vec<&[T]> = queues.iter().map(Vec::as_slice).collect();
    let mut all = Vec::new();
    for choice in choices.iter().cycle() {
        rest.retain(|queue| !queue.is_empty());
        if rest.is_empty() {
            break;
        }
        let index = choice % rest.len();
        let (first, others) = rest[index].split_first().unwrap();
        all.push(first.clone());
        rest[index] = others;
    }
    all
}

/// Reads the log page by page, some pages twice, into a new generation.
async fn read(db: &Db, projection: &'static dyn Projection, events: &[Event], cuts: &[usize]) -> Generation {
    let mut generation = Generation::begin(db, projection).await.unwrap();
    let mut rest = events;
    for (number, cut) in cuts.iter().cycle().enumerate() {
        if rest.is_empty() {
            break;
        }
        let (page, later) = rest.split_at((1 + cut).min(rest.len()));
        for _ in 0..=cut % 2 {
            let cursor = Some(format!("p{number}"));
            generation.take_in(db, projection, page.to_vec(), cursor).await.unwrap();
        }
        rest = later;
    }
    generation
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Shards are read in any order and in any pages, some of them again: the rows are the same, and they are those of the
    /// plain fold.
    #[test]
    fn rows_depend_on_the_log_and_not_on_how_it_was_read(
        streams in streams(),
        committed in prop::collection::vec(0..12_usize, 1..40),
        merged in prop::collection::vec(0..12_usize, 1..40),
        cuts in prop::collection::vec(0..9_usize, 1..9),
    ) {
        let events = log(&interleaved(&streams, &committed));
        let of_shard = |shard: u16| events.iter().filter(|event| event.shard == shard).cloned().collect::<Vec<_>>();
        let otherwise = interleaved(&[of_shard(0), of_shard(1), of_shard(2)], &merged);
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let url = format!("sqlite:{}", folder.path().join("views.db").display());
            let db = Db::connect(&url, &DbOptions::default()).await.unwrap();
            db.create(TABLES).await.unwrap();
            for projection in ALL {
                Generation::live(&db, projection).await.unwrap();
                let of_category = |events: &[Event]| -> Vec<Event> {
                    events.iter().filter(|event| event.category == projection.category()).cloned().collect()
                };
                let one = read(&db, projection, &of_category(&events), &[249]).await;
                let other = read(&db, projection, &of_category(&otherwise), &cuts).await;
                assert_eq!(one.events, other.events);
                let (progress, _lines) = Progress::new();
                let compared = compare::compare(&db, projection.name(), one.number, other.number, &progress).await.unwrap();
                assert_eq!(compared.differences, [], "{}", projection.name());
                assert_eq!(usize::try_from(compared.rows).unwrap(), rows(projection, &events).len());
            }
            db.close().await;
        });
    }
}
