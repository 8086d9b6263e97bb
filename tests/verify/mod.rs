//! `skald verify`: content with what is right, also while it changes; finds each kind of wrong that someone plants, and
//! names its saga; writes nothing; needs no more memory for a larger database.

mod planted;

use std::{fs, ops::Range, process::Command, time::Duration};

use futures_util::{StreamExt, stream};
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Deployment, Folder, Postgres, Reply, Sqlite, Stub,
    database::Database,
    eventually, met, order,
    process::{Ended, Process, peak_resident_kib},
    skald::{participant, program},
};

const SETTLED_MAX: Duration = Duration::from_secs(90);

fn verify(database_url: &str) -> Command {
    let mut command = program();
    command.args(["verify", "--json", "--database-url", database_url]);
    command
}

/// With the world's configuration, which names its participants.
fn verify_with_participants(world: &Deployment) -> Command {
    let mut command = verify(&world.database.url());
    command.arg("--participants").arg("--config").arg(world.skald.setup().folder.join("skald.toml"));
    command
}

async fn run(world: &Deployment, mut command: Command) -> Ended {
    Process::run("verify", &mut command, &world.skald.setup().folder).await
}

/// The report, if the exit status agrees with it.
#[track_caller]
fn report(ended: &Ended) -> Value {
    let document: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    assert_eq!(document["checked"], true, "{ended:?}");
    let violations = document["report"]["violation_count"].as_u64().expect("a number");
    assert_eq!(ended.status.code(), Some(i32::from(violations > 0)), "{ended:?}");
    document["report"].clone()
}

/// Checkouts of which every fourth is declined; some with a start key.
async fn run_checkouts(world: &Deployment, count: usize) {
    stream::iter(0..count)
        .for_each_concurrent(10, async |number| {
            let mut input = order(&format!("c-{}", number % 5));
            if number % 4 == 3 {
                input["payment"]["token"] = json!("tok_declined");
            }
            eventually("a start is accepted", SETTLED_MAX, async || {
                let mut request = world.skald.client.request(reqwest::Method::POST, "/sagas/checkout").json(&input);
                if number % 3 == 0 {
                    request = request.header("Idempotency-Key", format!("\"key-{number}\""));
                }
                let answer = world.skald.client.send(request.header("Prefer", "respond-async")).await;
                let answer = answer.expect("Skald answers");
                // A busy machine may lose a lease; then nothing was started.
                met(matches!(answer.status, 201 | 202), || answer.text)
            })
            .await;
        })
        .await;
}

#[rstest]
#[tokio::test]
async fn verify_is_content_while_checkouts_run_among_faults_and_after_1_to_10(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    const CHECKOUTS: usize = 60;
    let world = Deployment::start(backend).await;
    for service in world.shop.services() {
        service.faults(json!({"*": {"lose_reply": 0.15, "error_500": 0.1, "duplicate": 0.1}})).await;
    }
    let running = async {
        run_checkouts(&world, CHECKOUTS).await;
        world.skald.all_settled(SETTLED_MAX).await;
    };
    let checking = async {
        let mut seen = 0;
        loop {
            let found = report(&run(&world, verify_with_participants(&world)).await);
            assert_eq!(found["violations"], json!([]), "{found}");
            seen += 1;
            let page = world.skald.client.get("/sagas?status=running,compensating&limit=1").await.expect(200);
            let sagas = found["sagas"].as_u64().expect("a number");
            if sagas as usize >= CHECKOUTS && page["items"] == json!([]) {
                return seen;
            }
        }
    };
    let ((), checks) = tokio::join!(running, checking);
    world.check().await;
    let found = report(&run(&world, verify_with_participants(&world)).await);
    println!("{checks} checks while checkouts ran; the last: {found}");
    assert_eq!(found["violations"], json!([]), "{found}");
    assert_eq!(found["sagas"], CHECKOUTS);
    assert_eq!(found["start_keys"], CHECKOUTS / 3);
    let ended = world.skald.client.all("/sagas?status=completed,compensated").await.len();
    assert_eq!(found["sagas_reconciled"], ended);
    assert!(found["ledgers"].as_array().is_some_and(|ledgers| ledgers.iter().all(|ledger| ledger["entries"] != 0)));
}

/// A deployment with sagas of each end and no Skald that runs; with the id of one that completed.
async fn with_sagas(backend: Backend) -> (Deployment, String) {
    let mut world = Deployment::start(backend).await;
    let saga = world.skald.run("checkout", &order("c-1")).await;
    assert_eq!(saga["status"], "completed", "{saga}");
    run_checkouts(&world, 6).await;
    world.skald.all_settled(SETTLED_MAX).await;
    world.skald.kill();
    (world, saga["id"].as_str().expect("an id").to_owned())
}

#[tokio::test]
async fn a_participant_without_a_ledger_is_skipped_by_name_and_one_that_is_down_stops_the_check() {
    let world = Deployment::start(Sqlite).await;
    world.skald.run("checkout", &order("c-1")).await;
    let (none, odd) = (Stub::start(|_| Reply::json(404, json!({}))), Stub::start(|_| Reply::json(200, json!([]))));
    let folder = Folder::new();
    let with = async |more: String| {
        let config = folder.path().join("skald.toml");
        let known = world.skald.setup().config.clone();
        fs::write(&config, format!("{known}{more}")).expect("the folder is ours");
        let mut command = verify(&world.database.url());
        command.arg("--participants").arg("--config").arg(&config);
        run(&world, command).await
    };
    let found = report(&with(participant("archive", &none.url)).await);
    let skipped = json!({"participant": "archive", "entries": 0, "skipped": "it has no /ledger"});
    assert!(found["ledgers"].as_array().is_some_and(|ledgers| ledgers.contains(&skipped)), "{found}");
    assert_eq!((&found["violation_count"], &found["sagas_reconciled"]), (&json!(0), &json!(1)), "{found}");
    for (more, word) in [
        (participant("gone", "http://127.0.0.1:1"), "no answer"),
        (participant("odd", &odd.url), "not a page of a ledger"),
    ] {
        let ended = with(more).await;
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(ended.stderr.contains(word) && ended.stdout.contains("\"checked\":false"), "{ended:?}");
    }
    // Nobody to ask at all.
    let config = folder.path().join("alone.toml");
    for (text, word) in
        [(participant("archive", &none.url), "no participant has a ledger"), (String::new(), "configured")]
    {
        fs::write(&config, text).expect("the folder is ours");
        let mut command = verify(&world.database.url());
        command.arg("--participants").arg("--config").arg(&config);
        let ended = run(&world, command).await;
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(ended.stderr.contains(word), "{ended:?}");
    }
}

#[rstest]
#[tokio::test]
async fn a_database_that_is_not_skalds_is_refused_and_nothing_is_created(#[values(Sqlite, Postgres)] backend: Backend) {
    let folder = Folder::new();
    let database = Database::create(backend, folder.path(), "empty").await;
    let missing = Process::run("verify", &mut verify(&database.url()), folder.path()).await;
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    if let Database::Sqlite(path) = &database {
        assert!(!path.exists(), "it only reads");
        fs::write(path, "").expect("the folder is ours");
    }
    let empty = Process::run("verify", &mut verify(&database.url()), folder.path()).await;
    assert_eq!(empty.status.code(), Some(2), "{empty:?}");
    assert!(empty.stderr.contains("skald migrate"), "{empty:?}");
    assert!(empty.stderr.lines().count() == 1, "{empty:?}");
}

#[tokio::test]
async fn text_for_people_names_counts_and_violations_up_to_the_limit() {
    let (world, saga) = with_sagas(Sqlite).await;
    world.database.tamper("UPDATE sagas SET state = 'X'").await;
    let mut command = program();
    command.args(["verify", "--limit-violations", "2", "--database-url", &world.database.url()]);
    let ended = run(&world, command).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(lines[0].starts_with("invariant 8, saga ") && lines[0].contains("`state`"), "{lines:?}");
    assert!(ended.stdout.contains("and 5 more") && ended.stdout.ends_with(": 7 violations\n"), "{lines:?}");
    assert_eq!(ended.stderr, "", "no progress where nobody watches");
    assert!(ended.stdout.contains(&saga), "{lines:?}");
}

/// The file as it was: a reader leaves no mark.
#[tokio::test]
async fn verify_leaves_the_file_as_it_was() {
    let (world, _) = with_sagas(Sqlite).await;
    let Database::Sqlite(path) = &world.database else { panic!("it is SQLite") };
    world.database.tamper("PRAGMA wal_checkpoint(TRUNCATE)").await;
    let before = fs::read(path).expect("it is there");
    report(&run(&world, verify(&world.database.url())).await);
    assert!(fs::read(path).expect("it is there") == before);
}

#[tokio::test]
async fn memory_does_not_grow_with_the_database() {
    let mut world = Deployment::start(Sqlite).await;
    let saga = world.skald.run("checkout", &order("c-1")).await["id"].as_str().expect("an id").to_owned();
    world.skald.kill();
    let Database::Sqlite(path) = &world.database else { panic!("it is SQLite") };
    let mut seen = Vec::new();
    for (copies, first) in [(2_000, 1), (18_000, 2_001)] {
        copy_saga(&world.database, &saga, first..first + copies).await;
        let file_kib = path.metadata().expect("it is there").len() / 1024;
        let (events, peak_kib) = checked_within(&world).await;
        println!("{events} events in a file of {file_kib} KiB: at most {peak_kib} KiB resident");
        seen.push((events, file_kib, peak_kib));
    }
    let [(_, small_kib, of_small_kib), (events, large_kib, of_large_kib)] = seen[..] else {
        panic!("two were checked")
    };
    assert!(events > 200_000, "{seen:?}");
    let growth_kib = of_large_kib.saturating_sub(of_small_kib);
    assert!(of_small_kib > 0 && growth_kib < (large_kib - small_kib) / 4, "{seen:?}");
}

/// Checks the database; gives how many events it has, and the most memory in KiB that the check took.
async fn checked_within(world: &Deployment) -> (u64, u64) {
    let mut process = Process::start("verify", &mut verify(&world.database.url()), &world.skald.setup().folder);
    let mut peak_kib = 0;
    let status = eventually("the check has ended", Duration::from_secs(300), async || {
        peak_kib = peak_resident_kib(process.pid()).unwrap_or(0).max(peak_kib);
        process.exited().ok_or_else(|| format!("it runs and has had {peak_kib} KiB"))
    })
    .await;
    let log = process.log();
    assert!(status.success(), "{log}");
    let found: Value = serde_json::from_str(&log).expect("it is JSON");
    (found["report"]["shards"][0]["events"].as_u64().expect("a number"), peak_kib)
}

/// Writes the saga anew under other ids, made of these numbers.
async fn copy_saga(database: &Database, saga: &str, numbers: Range<u64>) {
    let id = database.id_literal(saga);
    let other_id = "unhex(substr(hex(ID), 1, 16) || printf('%016X', n))";
    let Range { start, end } = numbers;
    let count =
        format!("WITH RECURSIVE copy(n) AS (SELECT {start} UNION ALL SELECT n + 1 FROM copy WHERE n + 1 < {end})");
    let columns = "shard, definition, definition_version, mode, status, state, version, correlation_id, failure, \
                   created_at_us, updated_at_us, ended_at_us, deadline_at_us, wake_at_us";
    let of_events = "shard, version, epoch, events, kind, type, occurred_at_us, actor, schema_version, \
                     schema_versions, data";
    let (of_saga, of_event) = (other_id.replace("ID", "id"), other_id.replace("ID", "stream"));
    database
        .tamper(&format!(
            "BEGIN;
             {count} INSERT INTO events (position, stream, {of_events})
                 SELECT (SELECT head FROM shards) + (n - {start}) * (SELECT version FROM sagas WHERE id = {id}) + version,
                        {of_event}, {of_events}
                 FROM copy, events WHERE stream = {id};
             {count} INSERT INTO sagas (id, {columns}) SELECT {of_saga}, {columns} FROM copy, sagas WHERE id = {id};
             UPDATE shards SET head = (SELECT max(position) FROM events);
             COMMIT;
             PRAGMA wal_checkpoint(TRUNCATE)"
        ))
        .await;
}
