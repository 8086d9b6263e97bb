//! `skald compare` against real servers: what it reports, what it leaves behind, how it ends.

use std::{fs, path::Path, process::Command, time::Duration};

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Deployment, Folder, Postgres, Sqlite,
    cluster::free_port,
    eventually, met,
    process::{Ended, Process},
    skald::program,
};

/// With few sagas of few clients.
fn compare(world: &Deployment, more: &[&str]) -> Command {
    let mut compare = program();
    compare.args(["compare", "--url", &world.skald.client.url, "--catalog", world.shop.catalog.url()]);
    compare.args(["--sales", world.shop.sales.url(), "--orders", world.shop.orders.url()]);
    compare.args(["--sagas", "20", "--rounds", "2", "--clients", "4", "--warm-up", "3", "--declined", "25"]).args(more);
    compare
}

async fn run(folder: &Folder, command: &mut Command) -> Ended {
    Process::run("compare", command, folder.path()).await
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("it was written")).expect("it is JSON")
}

/// The figures of a mode that ran twenty orders, a quarter of them declined, to their ends.
fn check_figures(mode: &Value) {
    assert_eq!(
        (&mode["sagas"], &mode["completed"], &mode["compensated"]),
        (&json!(20), &json!(15), &json!(5)),
        "{mode}"
    );
    assert_eq!((&mode["success_rate"], &mode["compensation_rate"]), (&json!(0.75), &json!(0.25)));
    assert_eq!((&mode["to_end"]["count"], &mode["to_compensate"]["count"]), (&json!(20), &json!(5)));
    let by = |clock: &str, quantile: &str| mode[clock][quantile].as_f64().expect("a number");
    assert!(by("to_end", "p50_ms") <= by("to_end", "max_ms"));
    assert!(by("to_end_by_server", "p50_ms") <= by("to_end", "max_ms"), "the client sees the end after the server");
    assert!(by("to_compensate", "max_ms") <= by("to_end_by_server", "max_ms"), "undoing is a part of it");
    assert!(mode["per_saga"]["events"].as_f64().is_some_and(|events| events > 5.0), "{mode}");
    assert_eq!(mode["rounds"].as_array().map(Vec::len), Some(2));
}

#[rstest]
#[tokio::test]
async fn one_mode_alone_is_measured_by_what_its_sagas_did(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = Deployment::start(backend).await;
    let folder = Folder::new();
    let (json, html) = (folder.path().join("c.json"), folder.path().join("c.html"));
    let mut command = compare(&world, &["--modes", "orchestrated"]);
    let ended = run(&folder, command.arg("--json").arg(&json).arg("--html").arg(&html)).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    for word in ["orchestrated", "75.0 %", "p95", "all 20 orders ended as they must"] {
        assert!(ended.stdout.contains(word), "`{word}` is not in\n{}", ended.stdout);
    }

    let report = read_json(&json);
    let mode = &report["modes"][0];
    check_figures(mode);
    let prefix = report["settings"]["correlation_prefix"].as_str().expect("sagas can be found");
    let of_run = |saga: &&Value| saga["correlation_id"].as_str().is_some_and(|id| id.starts_with(prefix));
    let sagas = world.skald.sagas().await;
    let orders: Vec<u64> = sagas.iter().filter(of_run).filter_map(order_number).filter(|order| *order < 20).collect();
    assert_eq!(orders.len(), 20, "beside those of the warm-up");
    let measured = |saga: &&Value| order_number(saga).is_some_and(|order| order < 20);
    let events: u64 = sagas.iter().filter(measured).filter_map(|saga| saga["revision"].as_u64()).sum();
    assert_eq!(mode["per_saga"]["events"], json!(events as f64 / 20.0));
    // Five calls complete a checkout; a declined one is three and an undo. Nothing went wrong, so no call was repeated.
    let calls = json!((15.0 * 5.0 + 5.0 * 4.0) / 20.0);
    for count in ["operations", "attempts", "requests_to_participants"] {
        assert_eq!(mode["per_saga"][count], calls, "{count}");
    }
    assert_eq!(mode["per_saga"]["requests_from_participants"], json!(0.0));
    let page = fs::read_to_string(&html).expect("it was written");
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg") && !page.contains("src="));
    let shelf = world.shop.catalog.shelf("s-main", "p-1").await;
    assert_eq!(shelf, (1_000, 0, 0), "it buys goods of its own");
    world.check().await;
}

/// The number that a saga's correlation id ends with.
fn order_number(saga: &Value) -> Option<u64> {
    saga["correlation_id"].as_str()?.rsplit('-').next()?.parse().ok()
}

#[rstest]
#[case(Sqlite, "checkout")]
#[case(Postgres, "checkout")]
#[case(Sqlite, "order-first")]
#[tokio::test]
async fn both_modes_end_the_same_orders_the_same_13(#[case] backend: Backend, #[case] definition: &str) {
    let world = Deployment::choreographed(backend, None).await;
    let folder = Folder::new();
    let json = folder.path().join("c.json");
    let ended = run(&folder, compare(&world, &["--definition", definition]).arg("--json").arg(&json)).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains("same final state in both modes"), "{}", ended.stdout);
    let report = read_json(&json);
    assert_eq!(report["modes"].as_array().map(Vec::len), Some(2), "{report}");
    check_figures(&report["modes"][0]);
    check_figures(&report["modes"][1]);
    let agreement = &report["agreement"];
    assert_eq!((&agreement["compared"], &agreement["same"]), (&json!(20), &json!(20)), "{agreement}");
    world.check().await;
}

#[tokio::test]
async fn a_mode_that_nobody_carries_out_is_named_and_the_other_one_measured() {
    let world = Deployment::start(Sqlite).await;
    let folder = Folder::new();
    let json = folder.path().join("c.json");
    let ended = run(&folder, compare(&world, &["--patience", "5s"]).arg("--json").arg(&json)).await;
    assert_eq!(ended.status.code(), Some(2), "not all that was asked for was measured: {ended:?}");
    assert!(ended.stdout.contains("choreographed was not measured: its first saga"), "{}", ended.stdout);
    assert!(ended.stdout.contains("--skald-url"), "{}", ended.stdout);
    let report = read_json(&json);
    assert_eq!(report["missing"][0]["mode"], "choreographed");
    assert_eq!(report["modes"].as_array().map(Vec::len), Some(1));
    check_figures(&report["modes"][0]);
}

#[tokio::test]
async fn faults_are_as_before_when_it_ends_and_when_it_is_interrupted() {
    let world = Deployment::start(Sqlite).await;
    let folder = Folder::new();
    let before =
        json!({"payments": {"error_500": 0.0, "lose_reply": 0.0, "duplicate": 0.5, "refuse": 0.0, "hang": 0.0}});
    world.shop.sales.faults(before.clone()).await;
    let faults = async || world.shop.sales.client.get("/faults").await.expect(200);
    let modes = ["--modes", "orchestrated", "--faults", "lose_reply=20%,delay=30%:5ms"];

    let ended = run(&folder, &mut compare(&world, &modes)).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains("delay=30%:5ms,lose_reply=20%"), "{}", ended.stdout);
    assert_eq!(faults().await, before);

    let mut endless = program();
    endless.args(compare(&world, &modes).get_args().filter(|arg| *arg != "--sagas" && *arg != "20"));
    let mut process = Process::start("endless", endless.args(["--duration", "10m"]), folder.path());
    eventually("the faults are set", Duration::from_secs(60), async || {
        let faults = faults().await;
        met(faults["*"]["lose_reply"] == 0.2, || format!("{faults}: {}", process.log()))
    })
    .await;
    assert_eq!(process.terminate(Duration::from_secs(60)).await.code(), Some(2));
    assert_eq!(faults().await, before);
    world.skald.all_settled(Duration::from_secs(60)).await;
    world.check().await;
}

#[tokio::test]
async fn what_is_missing_is_named_with_the_option_that_says_where_it_is() {
    let world = Deployment::start(Sqlite).await;
    let folder = Folder::new();
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    for flag in ["--url", "--sales"] {
        let mut command = program();
        let given = compare(&world, &[]);
        let mut args = given.get_args();
        while let Some(arg) = args.next() {
            command.arg(arg);
            if arg == flag {
                args.next();
                command.arg(&nowhere);
            }
        }
        let ended = run(&folder, &mut command).await;
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        for word in [flag, &nowhere] {
            assert!(ended.stderr.contains(word), "`{word}` is not in `{}`", ended.stderr);
        }
    }
    let ended = run(&folder, &mut compare(&world, &["--definition", "nothing-like-it"])).await;
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert!(ended.stderr.contains("PUT") && ended.stderr.contains("nothing-like-it"), "{}", ended.stderr);
    let unwritable = folder.path().join("no/such/folder.json");
    let ended = run(&folder, compare(&world, &[]).arg("--json").arg(&unwritable)).await;
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr.contains("cannot write"), "before anything is run: {}", ended.stderr);
}
