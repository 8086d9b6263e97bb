//! Who may ask: keys made by the command line, a server that needs them, TLS, and what must not be in a log.

use std::{fs, path::Path, process::Command, time::Duration};

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Client, Folder, Postgres, Sqlite,
    client::Answer,
    cluster::free_port,
    database::Database,
    deployment::bundled_definitions,
    eventually, met, order,
    process::{Ended, Process},
    skald::{SOON, Setup, Skald, participant, program},
    workspace,
};

/// A database, and the commands that are given it.
struct World {
    folder: Folder,
    database: Database,
}

impl World {
    async fn start(backend: Backend) -> Self {
        let folder = Folder::new();
        let database = Database::create(backend, folder.path(), "skald").await;
        Self { folder, database }
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = program();
        command.args(arguments).args(["--database-url", &self.database.url()]);
        Process::run("skald", &mut command, self.folder.path()).await
    }

    /// `skald keys ..`, which must do what it is told.
    async fn keys(&self, arguments: &[&str]) -> Ended {
        let ended = self.run(&[&["keys"], arguments].concat()).await;
        assert!(ended.status.success(), "{ended:?}");
        ended
    }

    /// A new key: what is printed, and nothing else is.
    async fn key(&self, name: &str, role: &str) -> String {
        let ended = self.keys(&["create", "--name", name, "--role", role]).await;
        let key = ended.stdout.trim().to_owned();
        assert!(key.starts_with("skald_") && key.len() == 83 && ended.stdout.lines().count() == 1, "{ended:?}");
        assert!(!ended.stderr.contains(&key), "{ended:?}");
        key
    }

    fn setup(&self, config: String) -> Setup {
        let folder = self.folder.path().to_owned();
        let participants = ["catalog", "sales", "orders"].map(|name| participant(name, "http://127.0.0.1:1"));
        let config = config + &participants.concat();
        Setup { folder, database_url: self.database.url(), definitions: bundled_definitions(), config }
    }
}

/// The id in a key.
fn id(key: &str) -> &str {
    key.split('_').nth(1).expect("a key has an id")
}

async fn get_with(client: &Client, key: &str, path: &str) -> Answer {
    client.send(client.request(Method::GET, path).bearer_auth(key)).await.expect("Skald answers")
}

async fn until_status(client: &Client, key: &str, status: u16) {
    eventually(&format!("the key is answered {status}"), SOON, async || {
        let answer = get_with(client, key, "/sagas").await;
        met(answer.status == status, || answer.text)
    })
    .await;
}

#[rstest]
#[tokio::test]
async fn others_reach_a_server_only_when_it_needs_a_key(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = World::start(backend).await;
    let ended = world.run(&["serve", "--listen", "0.0.0.0:0"]).await;
    assert!(!ended.status.success(), "{ended:?}");
    for word in ["0.0.0.0", "skald keys create", "--insecure"] {
        assert!(ended.stderr.contains(word), "{ended:?}");
    }
    let local = Skald::start(world.setup(String::new())).await;
    assert_eq!(local.client.get("/sagas").await.status, 200);
    assert!(local.process.log().contains("no key is needed"), "{}", local.process.log());

    let key = world.key("ops", "admin").await;
    eventually("a key is needed", SOON, async || {
        let answer = local.client.get("/sagas").await;
        met(answer.status == 401, || answer.text)
    })
    .await;
    assert_eq!(get_with(&local.client, &key, "/sagas").await.status, 200);
    drop(local);
    let open = Skald::start_at(world.setup(String::new()), "0.0.0.0:0").await;
    let client = Client::new(&open.client.url.replace("0.0.0.0", "127.0.0.1"));
    assert_eq!(client.get("/sagas").await.problem(401), "unauthenticated");
    assert_eq!(get_with(&client, &key, "/sagas").await.status, 200);
    assert_eq!(client.get("/livez").await.status, 200);
}

#[rstest]
#[tokio::test]
async fn keys_are_made_once_rotated_with_an_overlap_and_revoked(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = World::start(backend).await;
    let admin = world.key("ops", "admin").await;
    let skald = Skald::start(world.setup(String::new())).await;

    let file = world.folder.path().join("key");
    let mut generate = program();
    let generated = Process::run("skald", generate.args(["keys", "generate"]), world.folder.path()).await.stdout;
    fs::write(&file, &generated).expect("the folder is ours");
    let from_file = ["create", "--name", "shop", "--role", "client", "--from-file", file.to_str().expect("it is text")];
    for already in [false, true] {
        let ended = world.keys(&from_file).await;
        assert_eq!((ended.stdout.as_str(), ended.stderr.contains("already")), ("", already), "{ended:?}");
    }
    let other_role = world.run(&[&["keys"], &from_file[..3], &["--role", "admin"], &from_file[5..]].concat()).await;
    assert!(!other_role.status.success() && other_role.stderr.contains("keeps its name and role"), "{other_role:?}");
    let shop = generated.trim();
    until_status(&skald.client, shop, 200).await;

    let by = ["--actor", "jane", "--reason", "it is time"];
    let rotated = world.keys(&[&["rotate", id(shop), "--overlap", "1h"], &by[..]].concat()).await;
    let successor = rotated.stdout.trim();
    until_status(&skald.client, successor, 200).await;
    until_status(&skald.client, shop, 200).await;
    world.keys(&[&["revoke", id(successor)], &by[..]].concat()).await;
    until_status(&skald.client, successor, 401).await;
    assert!(world.keys(&["revoke", id(successor)]).await.stderr.contains("already"));
    let expired = world.keys(&["rotate", id(shop), "--overlap", "1ms"]).await.stdout;
    until_status(&skald.client, shop, 401).await;
    until_status(&skald.client, expired.trim(), 200).await;

    let list: Value = serde_json::from_str(&world.keys(&["list", "--json"]).await.stdout).expect("it is JSON");
    let states =
        list["items"].as_array().expect("a list").iter().map(|key| (key["role"].as_str(), key["state"].as_str()));
    let mut states: Vec<_> = states.map(|(role, state)| (role.unwrap_or("-"), state.unwrap_or("-"))).collect();
    states.sort_unstable();
    assert_eq!(states, [("admin", "good"), ("client", "expired"), ("client", "good"), ("client", "revoked")]);
    let text = world.keys(&["list"]).await.stdout;
    for key in [&admin, shop, successor] {
        let secret = key.rsplit('_').next().expect("a key has a secret");
        assert!(text.contains(id(key)) && !text.contains(secret) && !list.to_string().contains(secret), "{text}");
    }
    let log = get_with(&skald.client, &admin, "/admin/audit?actor=jane").await.expect(200);
    let done =
        |entry: &Value| [&entry["action"], &entry["target"], &entry["reason"], &entry["outcome"]].map(Value::clone);
    let entries: Vec<[Value; 4]> = log["items"].as_array().expect("a list").iter().map(done).collect();
    let line = |action: &str, key: &str| {
        [json!(action), json!(format!("/keys/{}", id(key))), json!("it is time"), json!("done")]
    };
    assert_eq!(entries, [line("key.revoke", successor), line("key.rotate", shop)]);
}

#[tokio::test]
async fn dev_goes_on_with_a_key() {
    let world = World::start(Sqlite).await;
    let data = world.folder.path().join("data");
    let dev = |key: Option<&str>| {
        let mut dev = program();
        dev.arg("dev").arg("--data-dir").arg(&data);
        for service in ["", "catalog-", "sales-", "orders-", "audit-", "notification-", "views-"] {
            dev.args([format!("--{service}listen"), format!("127.0.0.1:{}", free_port())]);
        }
        if let Some(key) = key {
            dev.env("SKALD_API_KEY", key);
        }
        dev
    };
    fs::create_dir(&data).expect("the folder is ours");
    let url = format!("sqlite:{}", data.join("skald.db").display());
    let mut create = program();
    create.args(["keys", "create", "--name", "dev", "--role", "operator", "--database-url", &url]);
    let key = Process::run("keys", &mut create, world.folder.path()).await.stdout;
    let without = Process::run("dev", &mut dev(None), world.folder.path()).await;
    assert!(!without.status.success() && without.stderr.contains("401"), "{without:?}");
    // The third checkout of its demonstration is choreographed: the services show the key too.
    let process = Process::start("dev", &mut dev(Some(key.trim())), world.folder.path());
    eventually("the demonstration is over", Duration::from_secs(60), async || {
        met(process.log().contains("curl"), || process.log())
    })
    .await;
    assert_eq!(process.log().matches("compensated COMPENSATED").count(), 2, "{}", process.log());
}

#[tokio::test]
async fn no_secret_is_in_a_log() {
    let world = World::start(Sqlite).await;
    let (admin, stranger) = (world.key("ops", "admin").await, format!("skald_0123456789ab_{}", "f".repeat(64)));
    let config = "[log]\nlevel = \"trace\"\n[server]\ncallback_secret = { value = \"hunter-callback\" }\n";
    let mut setup = world.setup(config.to_owned());
    let (section, header) =
        ("[participants.catalog]\n", "secret_header = { name = \"X-Key\", value = \"hunter-catalog\" }\n");
    setup.config = setup.config.replace(section, &[section, header].concat());
    let skald = Skald::start(setup).await;
    for key in [&admin, &stranger] {
        let start = skald.client.request(Method::POST, "/sagas/checkout").json(&order("c-1"));
        let answer = skald.client.send(start.bearer_auth(key).header("Prefer", "respond-async")).await;
        assert_eq!(answer.expect("Skald answers").status, if *key == admin { 202 } else { 401 });
    }
    let token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJqYW5lIn0.hunter";
    assert_eq!(get_with(&skald.client, token, "/sagas").await.status, 401);
    eventually("the call was tried", SOON, async || {
        let metrics = get_with(&skald.client, &admin, "/metrics").await.text;
        met(metrics.lines().any(|line| line.starts_with("participant_call") && line.contains("catalog")), || metrics)
    })
    .await;
    let log = skald.process.log();
    assert!(log.contains("TRACE") && log.contains("/sagas/checkout"), "{log}");
    for key in [admin.as_str(), &stranger] {
        assert!(!log.contains(key.rsplit('_').next().expect("a key has a secret")), "a key's secret is in the log");
    }
    assert!(!log.contains("hunter"), "{}", log.lines().find(|line| line.contains("hunter")).unwrap_or_default());
}

#[tokio::test]
async fn tls_is_spoken_with_the_certificate_that_is_there_now() {
    let world = World::start(Sqlite).await;
    let files = workspace().join("tests/tls");
    let config =
        format!("[server]\ntls = {{ certificate = \"{0}/server.pem\", key = \"{0}/server.key\" }}\n", files.display());
    let setup = world.setup(config);
    let mut process = serve(&setup);
    let url = process.url().await;
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let authority = fs::read(files.join("authority.pem")).expect("it is in the repository");
    let authority = reqwest::Certificate::from_pem(&authority).expect("it is a certificate");
    // Also sets what TLS works with, for this process.
    let plain = Client::new(&url.replace("https", "http"));
    let trusting = reqwest::Client::builder().tls_certs_only([authority]).build().expect("it needs nothing");
    let answer = trusting.get(format!("{url}/livez")).send().await.expect("the certificate is trusted");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    assert!(plain.try_get("/livez").await.is_err(), "without TLS nothing is answered");
    let strict = Client::new(&url);
    assert!(strict.try_get("/livez").await.is_err(), "nobody else trusts that certificate");
}

/// `skald serve` as it is, for a client that speaks TLS.
fn serve(setup: &Setup) -> Process {
    let config = setup.folder.join("skald.toml");
    fs::write(&config, &setup.config).expect("the folder is ours");
    let mut command: Command = program();
    command.arg("serve").arg("--config").arg(&config).args(["--listen", "127.0.0.1:0"]);
    command.args(["--database-url", &setup.database_url]);
    Process::start("skald", &mut command, Path::new(&setup.folder))
}
