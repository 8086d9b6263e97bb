//! Every kind of wrong, planted past Skald and past its services, is found and named.

use rstest::rstest;
use serde_json::{Value, json};

use super::{report, run, verify, verify_with_participants, with_sagas};
use crate::harness::{Backend, Deployment, Postgres, Sqlite, database::Database, order};

/// The id of no saga.
const NOBODY: &str = "0190163d-8694-739b-aea5-966c26f8ad91";

/// Tables that are brought back to how they were.
struct Original<'a> {
    database: &'a Database,
    tables: &'static [&'static str],
}

impl<'a> Original<'a> {
    async fn keep(database: &'a Database, tables: &'static [&'static str]) -> Self {
        for table in tables {
            database.tamper(&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
        }
        Self { database, tables }
    }

    async fn restore(&self) {
        for table in self.tables {
            self.database.tamper(&format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept_{table}")).await;
        }
    }
}

#[rstest]
#[tokio::test]
async fn each_wrong_in_the_database_is_found_with_its_saga_6_to_10(#[values(Sqlite, Postgres)] backend: Backend) {
    let (world, saga) = with_sagas(backend).await;
    let database = &world.database;
    if backend == Sqlite {
        database.tamper("DROP TRIGGER events_are_not_changed; DROP TRIGGER events_are_not_deleted").await;
    }
    one_event_per_row(database).await;
    let original = Original::keep(database, &["events", "sagas", "shards", "start_keys", "log_holes"]).await;
    let clean = report(&run(&world, verify(&database.url())).await);
    assert_eq!(clean["violation_count"], 0, "{clean}");
    let id = database.id_literal(&saga);
    let of_saga = wrong_events(&id).into_iter().chain(wrong_rows(&id));
    let of_saga = of_saga.map(|(invariant, words, sql)| (invariant, Some(saga.as_str()), words, sql));
    for (invariant, saga, words, sql) in of_saga.chain(wrong_elsewhere(&id, &database.id_literal(NOBODY))) {
        database.tamper(&sql).await;
        let found = report(&run(&world, verify(&database.url())).await);
        assert!(has(&found, invariant, saga, words), "{sql}\n{found:#}");
        original.restore().await;
    }
    let clean = report(&run(&world, verify(&database.url())).await);
    assert_eq!(clean["violation_count"], 0, "{clean}");
}

/// So that each event can be wrong by itself.
async fn one_event_per_row(database: &Database) {
    let columns = "shard, position, stream, version, epoch, kind, type, occurred_at_us, actor, schema_version, data, \
                   event_id, correlation_id, causation_id";
    let rows = format!(
        "CREATE TABLE one_per_row AS SELECT {columns} FROM event_log;
         DELETE FROM events;
         INSERT INTO events ({columns}) SELECT {columns} FROM one_per_row"
    );
    database.tamper(&rows).await;
}

/// What can be wrong with the events of a completed saga: the invariant, words of the violation, and how to bring it about.
fn wrong_events(id: &str) -> Vec<(u8, &'static str, String)> {
    let columns = "shard, stream, epoch, occurred_at_us, schema_version";
    let set = |what: &str, of: &str| format!("UPDATE events SET {what} WHERE stream = {id} AND {of}");
    let delete = |of: &str| format!("DELETE FROM events WHERE stream = {id} AND {of}");
    let one_more = format!(
        "INSERT INTO events ({columns}, position, version, kind, data)
         SELECT {columns}, (SELECT head + 1 FROM shards WHERE shard = e.shard), version + 1, 'SagaAbandoned', '{{}}'
         FROM events AS e WHERE kind = 'SagaCompleted' AND stream = {id};
         UPDATE shards SET head = head + 1 WHERE shard = (SELECT shard FROM sagas WHERE id = {id})"
    );
    vec![
        (6, "nothing after SagaCompleted", one_more),
        (7, "version 3 next", delete("version = 3")),
        (7, "position", delete("version = 3")),
        (7, "the saga's shard", set("shard = 77", "version = 2")),
        (8, "SagaStarted as the first event", delete("version = 1")),
        (8, "can be read", set("data = '{'", "version = 4")),
        (8, "the row of the events up to version 4", set("events = 2", "version = 4")),
        (8, "the type", set("type = 'Invented'", "version = 2")),
        (8, "no such definition", set("data = replace(data, 'checkout', 'x')", "version = 1")),
        (8, "a row and no events", delete("true")),
        (9, "or a later one", set("epoch = epoch - 1", "version > 2")),
        (9, "which the shard's row has", set("epoch = 99", "true")),
    ]
}

/// The same for its row.
fn wrong_rows(id: &str) -> Vec<(u8, &'static str, String)> {
    let set = |what: &str| format!("UPDATE sagas SET {what} WHERE id = {id}");
    let columns = [
        ("`definition`", "definition = 'x'"),
        ("`definition_version`", "definition_version = definition_version + 1"),
        ("`mode`", "mode = 'choreographed'"),
        ("`status`", "status = 'parked'"),
        ("`state`", "state = 'X'"),
        ("`version`", "version = version + 1"),
        ("`correlation_id`", "correlation_id = 'x'"),
        ("`failure`", "failure = '{\"code\":\"c\",\"reason\":\"r\"}'"),
        ("`created_at`", "created_at_us = 0"),
        ("`updated_at`", "updated_at_us = 0"),
        ("`ended_at`", "ended_at_us = NULL"),
        ("`deadline_at`", "deadline_at_us = NULL"),
        ("`wake_at`", "wake_at_us = 5"),
        ("row that can be read", "status = 'lost'"),
    ];
    let mut wrong: Vec<_> = columns.into_iter().map(|(words, what)| (8, words, set(what))).collect();
    wrong.push((7, "the saga's shard 78", set("shard = 78")));
    wrong.push((8, "events and no row", format!("DELETE FROM sagas WHERE id = {id}")));
    wrong
}

/// What can be wrong beside that saga: in other sagas' rows, in shards and start keys. `nobody` is the id of no saga.
fn wrong_elsewhere(id: &str, nobody: &str) -> Vec<(u8, Option<&'static str>, &'static str, String)> {
    let columns = "shard, definition, definition_version, mode, status, state, version, correlation_id, failure, \
                   created_at_us, updated_at_us, ended_at_us, deadline_at_us, wake_at_us";
    let copied = format!("INSERT INTO sagas (id, {columns}) SELECT {nobody}, {columns} FROM sagas WHERE id = {id}");
    let hole = "INSERT INTO log_holes (shard, first, last) SELECT shard, max(position), max(position) FROM events GROUP BY shard";
    let key = |what: &str| format!("UPDATE start_keys SET {what} WHERE key = 'key-0'");
    vec![
        (7, None, "up to the head", "UPDATE shards SET head = head + 1 WHERE shard = 0".to_owned()),
        (7, None, "nothing in a hole", hole.to_owned()),
        (8, Some(NOBODY), "a row and no events", copied),
        (10, Some(NOBODY), "no such saga", key(&format!("saga = {nobody}"))),
        (10, None, "one of checkout", key("definition = 'x'")),
        (10, None, "one in shard", key("shard = 77")),
    ]
}

/// Whether the report has a violation of this invariant, of this saga (None: of any or none), whose text has `words`.
fn has(report: &Value, invariant: u8, saga: Option<&str>, words: &str) -> bool {
    report["violations"].as_array().expect("a list").iter().any(|violation| {
        let told = format!("{} {}", violation["expected"], violation["found"]);
        violation["invariant"] == invariant && saga.is_none_or(|saga| violation["saga"] == saga) && told.contains(words)
    })
}

#[rstest]
#[tokio::test]
async fn each_wrong_in_a_ledger_is_found_with_its_saga_1_3_4_5(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut world = Deployment::start(backend).await;
    let completed = world.skald.run("checkout", &order("c-1")).await["id"].as_str().expect("an id").to_owned();
    // Refused by the orders: stock and payment were taken, and are given back.
    world.shop.orders.faults(json!({"orders": {"refuse": 1.0}})).await;
    let undone = world.skald.run("checkout", &order("c-2")).await;
    assert_eq!(undone["status"], "compensated", "{undone}");
    let undone = undone["id"].as_str().expect("an id").to_owned();
    world.skald.kill();

    let clean = report(&run(&world, verify_with_participants(&world)).await);
    assert_eq!((&clean["violation_count"], &clean["sagas_reconciled"]), (&json!(0), &json!(2)), "{clean}");
    let sales = world.shop.sales.database();
    if backend == Postgres {
        sales.tamper("ALTER TABLE saga_ledger ALTER id DROP IDENTITY").await;
    }
    let original = Original::keep(sales, &["saga_ledger"]).await;
    let cases = wrong_entries(&completed, &undone);
    for (invariant, saga, words, sql) in cases {
        sales.tamper(&sql).await;
        let found = report(&run(&world, verify_with_participants(&world)).await);
        assert!(has(&found, invariant, Some(saga), words), "{sql}\n{found:#}");
        original.restore().await;
    }
    let clean = report(&run(&world, verify_with_participants(&world)).await);
    assert_eq!(clean["violation_count"], 0, "{clean}");
}

/// What can be wrong in the ledger of sales about a saga that completed and one that was undone: the invariant, the saga,
/// words of the violation, and how to bring it about.
fn wrong_entries<'a>(completed: &'a str, undone: &'a str) -> [(u8, &'a str, &'static str, String); 11] {
    let entry = |saga: &str, step: &str, operation: &str| {
        format!("saga_id = '{saga}' AND step = '{step}' AND operation = '{operation}'")
    };
    let paid = entry(completed, "process_payment", "action");
    let (taken, refunded) =
        (entry(undone, "process_payment", "action"), entry(undone, "process_payment", "compensation"));
    let columns = "at_us, key, saga_id, step, operation, effect, detail";
    let again = |which: &str| {
        format!("INSERT INTO saga_ledger (id, {columns}) SELECT id + 1000, {columns} FROM saga_ledger WHERE {which}")
    };
    [
        (3, completed, "took effect never", format!("DELETE FROM saga_ledger WHERE {paid}")),
        (3, completed, "took effect twice", again(&paid)),
        (3, "nobody", "sagas that the log knows", format!("UPDATE saga_ledger SET saga_id = 'nobody' WHERE {paid}")),
        (3, completed, "definition's steps", format!("UPDATE saga_ledger SET step = 'swim' WHERE {paid}")),
        (3, completed, "no effect, as the def", format!("UPDATE saga_ledger SET step = 'verify_stock' WHERE {paid}")),
        (4, undone, "as many undos as effects", format!("DELETE FROM saga_ledger WHERE {refunded}")),
        (4, undone, "no undo of what had no effect", format!("DELETE FROM saga_ledger WHERE {taken}")),
        (4, undone, "one undo at most", again(&refunded)),
        (
            4,
            undone,
            "`process_payment` undone before `reserve_stock`",
            format!("UPDATE saga_ledger SET at_us = at_us + 600000000 WHERE {refunded}"),
        ),
        (5, undone, "no effect after the compensation", format!("UPDATE saga_ledger SET id = id + 1000 WHERE {taken}")),
        (1, undone, "gives back", format!("UPDATE saga_ledger SET detail = '{{\"amount\": 1}}' WHERE {refunded}")),
    ]
}
