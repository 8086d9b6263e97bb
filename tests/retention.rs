//! Retention with the real program: what is old leaves for the archive once nobody needs it, is gone for clients, and comes
//! back.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Folder, Postgres, Reply, Sqlite, Stub,
    database::Database,
    eventually, met,
    process::{Ended, Process},
    sample::{definition, step},
    skald::{Setup, Skald, participant, program},
};

/// What a killed run holds, others wait for.
const SOON: Duration = Duration::from_secs(120);
/// How much older everything becomes: some months.
const AGED_BY: Duration = Duration::from_secs(200 * 24 * 3600);

/// Skald with what is old of it going to a folder. Fields are dropped in order: databases last.
struct World {
    skald: Skald,
    _stub: Stub,
    database: Database,
    folder: Folder,
}

impl World {
    async fn start(backend: Backend) -> Self {
        let folder = Folder::new();
        let database = Database::create(backend, folder.path(), "skald").await;
        let stub = Stub::start(|_| Reply::ok());
        let definitions = folder.path().join("definitions");
        fs::create_dir(&definitions).expect("the folder is ours");
        let archive = folder.path().join("archive");
        let retention = format!(
            "[retention]\nage = \"30d\"\nstreams = [\"cart\"]\narchive = \"{}\"\ninterval = \"1s\"\n\n",
            archive.display()
        );
        let config = retention + &participant("stub", &stub.url);
        let setup = Setup { folder: folder.path().to_owned(), database_url: database.url(), definitions, config };
        let skald = Skald::start(setup).await;
        skald.register(&definition("trip", [step("booked")])).await;
        Self { skald, _stub: stub, database, folder }
    }

    /// Kills Skald, makes everything that is there old, and starts it again.
    async fn grow_old(&mut self) {
        self.skald.kill();
        // Ids begin with the time, in milliseconds.
        let seconds = AGED_BY.as_secs();
        let old = |column: &str| match self.database {
            Database::Sqlite(_) => {
                let began = format!("printf('%012x', (unixepoch() - {seconds}) * 1000)");
                format!("{column} = unhex({began} || substr(hex({column}), 13))")
            }
            Database::Postgres(_) => {
                let began = format!("lpad(to_hex((extract(epoch FROM now())::bigint - {seconds}) * 1000), 12, '0')");
                format!("{column} = ({began} || substr(replace({column}::text, '-', ''), 13))::uuid")
            }
        };
        let earlier = |columns: &[&str]| -> String {
            columns.iter().map(|column| format!(", {column} = {column} - {}", AGED_BY.as_micros())).collect()
        };
        let room = match self.database {
            Database::Sqlite(_) => "DROP TRIGGER events_are_not_changed;".to_owned(),
            Database::Postgres(_) => {
                let days = AGED_BY.as_secs() / (24 * 3600);
                format!(
                    "SELECT skald_create_month(date_trunc('month', (now() - interval '{days} days') AT TIME ZONE 'UTC'));"
                )
            }
        };
        let sql = format!(
            "{room} UPDATE sagas SET {}{}; UPDATE streams SET {}{}; UPDATE events SET {}{}; UPDATE start_keys SET {};",
            old("id"),
            earlier(&["created_at_us", "updated_at_us", "ended_at_us"]),
            old("id"),
            earlier(&["created_at_us", "updated_at_us"]),
            old("stream"),
            earlier(&["occurred_at_us"]),
            old("saga"),
        );
        self.database.tamper(&sql).await;
        self.skald.restart().await;
    }

    async fn started(&self, key: &str) -> u16 {
        let request = self.skald.client.request(Method::POST, "/sagas/trip").json(&json!({}));
        let request = request.header("Idempotency-Key", format!("\"{key}\"")).header("Prefer", "wait=20");
        let answer = self.skald.client.send(request).await.expect("Skald answers");
        assert_eq!(answer.body["status"], "completed", "{}", answer.text);
        answer.status
    }

    async fn run(&self, command: &str, arguments: &[&str]) -> Ended {
        let config = self.folder.path().join("skald.toml");
        let mut program: Command = program();
        program.arg(command).arg("--config").arg(config).args(["--database-url", &self.database.url()]).args(arguments);
        Process::run(command, &mut program, self.folder.path()).await
    }

    /// Nothing is wrong with the database; how many events retention removed.
    async fn verified(&self) -> u64 {
        let ended = self.run("verify", &["--json"]).await;
        let document: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        assert_eq!(document["report"]["violation_count"], 0, "{document}");
        let shards = document["report"]["shards"].as_array().expect("a report has shards");
        shards.iter().map(|shard| shard["removed"].as_u64().expect("a number")).sum()
    }

    /// The streams of the log's events, from a cursor on, each once.
    async fn subjects(&self, query: &str, mut cursor: String) -> Vec<String> {
        let mut subjects = Vec::new();
        loop {
            let after = if cursor.is_empty() { String::new() } else { format!("&after={cursor}") };
            let page = self.skald.client.get(&format!("/events?limit=3{query}{after}")).await.expect(200);
            let items = page["items"].as_array().expect("a page has items");
            subjects.extend(items.iter().map(|event| event["subject"].as_str().expect("a stream").to_owned()));
            let next = page["next_cursor"].as_str().expect("a page says where to go on").to_owned();
            if items.is_empty() && next == cursor {
                subjects.sort_unstable();
                subjects.dedup();
                return subjects;
            }
            cursor = next;
        }
    }

    /// A consumer takes and settles what there is for it; gives the streams of the events.
    async fn consume(&self, group: &str) -> Vec<String> {
        let mut subjects = Vec::new();
        let mut settle = json!([]);
        loop {
            let body = json!({"consumer": "one", "limit": 100, "settle": settle});
            let polled = self.skald.client.post(&format!("/groups/{group}/poll"), &body).await.expect(200);
            let deliveries = polled["deliveries"].as_array().expect("a list");
            if deliveries.is_empty() && settle == json!([]) {
                return subjects;
            }
            let of = |delivery: &Value| delivery["event"]["subject"].as_str().expect("a stream").to_owned();
            subjects.extend(deliveries.iter().map(of));
            let settled = |delivery: &Value| {
                let (shard, position, token) = (&delivery["shard"], &delivery["position"], &delivery["token"]);
                json!({"shard": shard, "position": position, "token": token, "outcome": "done"})
            };
            settle = deliveries.iter().map(settled).collect();
        }
    }

    fn archived(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.folder.path().join("archive")).expect("the archive is there");
        let files = files.map(|file| file.expect("it can be read").path());
        files.filter(|file| file.extension().is_some_and(|end| end == "gz")).collect()
    }
}

#[rstest]
#[tokio::test]
async fn what_is_old_leaves_once_nobody_needs_it_and_comes_back_7_8(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut world = World::start(backend).await;
    for key in ["a", "b", "c"] {
        assert_eq!(world.started(key).await, 201);
    }
    let events = json!([{"event_id": "1", "type": "CartItemAdded", "data": {"product_id": "p-1", "quantity": 2}}]);
    let append = json!({"expected_version": 0, "events": events});
    world.skald.client.post("/streams/cart-1/events", &append).await.expect(201);
    let group = json!({"filter": {}, "start": "beginning"});
    world.skald.client.put("/groups/audit", &group).await.expect(201);
    let page = world.skald.client.get("/events?limit=2").await.expect(200);
    let cursor = page["next_cursor"].as_str().expect("a page says where to go on").to_owned();

    world.grow_old().await;
    // The group has read nothing: all stays, however often it is looked for.
    eventually("retention ran", SOON, async || {
        let runs = world.skald.metric("retention_runs_total", "done").await;
        met(runs >= 2.0, || runs.to_string())
    })
    .await;
    let kept = eventually("a dry run tells", SOON, async || {
        let ended = world.run("retain", &["--dry-run", "--json"]).await;
        // The server may be at it.
        serde_json::from_str::<Value>(&ended.stdout).map_err(|_| format!("{ended:?}"))
    })
    .await;
    assert_eq!(kept["sagas"], 0, "{kept}");
    assert!(kept["kept"].to_string().contains("consumer group audit"), "{kept}");
    let sagas = world.skald.sagas().await;
    let old: Vec<String> = sagas.iter().map(|saga| saga["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(old.len(), 3);
    let before = (world.skald.saga(&old[0]).await, world.skald.events(&old[0]).await);
    let cart = world.skald.client.get("/streams/cart-1/state").await.expect(200);

    let young = world.skald.run("trip", &json!({})).await["id"].as_str().expect("an id").to_owned();
    let read = world.consume("audit").await;
    assert!(read.contains(&young) && old.iter().all(|saga| read.contains(saga)), "{read:?}");
    for saga in &old {
        eventually("an old saga is gone", SOON, async || {
            let answer = world.skald.client.get(&format!("/sagas/{saga}")).await;
            met(answer.status == 410, || answer.text.clone())
        })
        .await;
        for path in [
            format!("/sagas/{saga}"),
            format!("/sagas/{saga}/events"),
            format!("/sagas/{saga}/stream"),
            format!("/streams/{saga}/events"),
            format!("/streams/{saga}/state"),
            format!("/streams/{saga}/state?version=1"),
        ] {
            assert_eq!(world.skald.client.get(&path).await.problem(410), "saga_removed", "{path}");
        }
        assert_eq!(world.skald.admin(saga, "compensate", json!({})).await.problem(410), "saga_removed");
    }
    eventually("the cart is gone", SOON, async || {
        let answer = world.skald.client.get("/streams/cart-1/state").await;
        met(answer.status == 404, || answer.text.clone())
    })
    .await;
    assert_eq!(world.skald.saga(&young).await["status"], "completed");

    // Whoever reads goes on with what there is, from wherever it is.
    for (query, cursor) in [("", ""), ("&kind=SagaStarted", ""), ("", &*cursor), ("&mode=orchestrated", &*cursor)] {
        assert_eq!(world.subjects(query, cursor.to_owned()).await, [&*young], "{query} {cursor}");
    }
    world.skald.client.put("/groups/late", &group).await.expect(201);
    let mut late = world.consume("late").await;
    late.dedup();
    assert_eq!(late, [&*young]);
    eventually("it is counted", SOON, async || {
        let removed = async |kind: &str| world.skald.metric("retention_removed_total", kind).await;
        let counts = (removed("saga").await, removed("stream").await, removed("event").await);
        met(counts.0 == 3.0 && counts.1 == 1.0 && counts.2 == f64::from(3 * before.1.len() as u32 + 1), || {
            format!("{counts:?}")
        })
    })
    .await;
    assert_eq!(world.verified().await, 3 * before.1.len() as u64 + 1);
    assert_eq!(world.started("a").await, 201, "a key goes with its saga");

    world.skald.kill();
    let files = world.archived();
    let files: Vec<&str> = files.iter().map(|file| file.to_str().expect("a path is text")).collect();
    for _ in 0..2 {
        // It may have been killed while it removed.
        eventually("what is archived is restored", SOON, async || {
            let ended = world.run("restore", &files).await;
            met(ended.status.success(), || format!("{ended:?}"))
        })
        .await;
    }
    assert_eq!(world.verified().await, 0);
    let setup = world.skald.setup();
    let stays = Setup { config: setup.config.replace("age = \"30d\"\n", ""), ..setup.clone() };
    world.skald = Skald::start(stays).await;
    assert_eq!(world.skald.saga(&old[0]).await, before.0);
    assert_eq!(world.skald.events(&old[0]).await, before.1);
    assert_eq!(world.skald.client.get("/streams/cart-1/state").await.expect(200), cart);
}

#[tokio::test]
async fn retain_refuses_what_it_is_not_told_enough_for() {
    let folder = Folder::new();
    let config = folder.path().join("skald.toml");
    for (text, word) in [
        ("", "retention.age"),
        ("[retention]\nage = \"29d\"\narchive = \"a\"\n", "30d"),
        ("[retention]\nage = \"30d\"\n", "retention.archive"),
        ("[retention]\nstreams = [\"saga\"]\n", "retention.streams"),
    ] {
        fs::write(&config, text).expect("the folder is ours");
        let mut command = program();
        command.arg("retain").arg("--config").arg(&config).args(["--database-url", "sqlite:none.db"]);
        let ended = Process::run("retain", &mut command, folder.path()).await;
        assert!(!ended.status.success() && ended.stderr.contains(word), "{word}: {ended:?}");
    }
}
