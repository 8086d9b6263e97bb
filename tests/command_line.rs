//! The command line: what a person sees who starts Skald, rightly or wrongly.

use std::{fs, net::TcpListener, path::Path, process::Command, time::Duration};

use rstest::rstest;

use crate::harness::{
    Backend, Client, Folder, Postgres, Sqlite,
    cluster::free_port,
    database::Database,
    deployment::bundled_definitions,
    eventually, met, order,
    process::{Ended, Process},
    sample::definition,
    skald::program,
    workspace,
};

async fn run(folder: &Folder, command: &mut Command) -> Ended {
    Process::run("skald", command, folder.path()).await
}

/// It failed, and says why on one line that has these words.
#[track_caller]
fn failed_in_one_line(ended: &Ended, words: &[&str]) {
    assert!(!ended.status.success(), "{ended:?}");
    let lines: Vec<&str> = ended.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(lines.len(), 1, "{ended:#?}");
    for word in words {
        assert!(lines[0].contains(word), "`{word}` is not in `{}`", lines[0]);
    }
}

/// `skald dev` with everything on ports that are free.
pub fn dev(data: &Path, listen: u16) -> Command {
    let mut dev = program();
    dev.arg("dev").arg("--data-dir").arg(data).args(["--listen", &format!("127.0.0.1:{listen}")]);
    for service in ["catalog", "sales", "orders", "audit", "notification", "views"] {
        dev.args([format!("--{service}-listen"), format!("127.0.0.1:{}", free_port())]);
    }
    dev
}

#[tokio::test]
async fn dev_starts_everything_and_shows_what_to_try() {
    let folder = Folder::new();
    let (data, port) = (folder.path().join("data"), free_port());
    let mut process = Process::start("dev", &mut dev(&data, port), folder.path());
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    eventually("skald dev is ready", Duration::from_secs(30), async || {
        let answer = client.try_get("/readyz").await.map_err(|error| error.to_string())?;
        met(answer.status == 200, || answer.text)
    })
    .await;
    let saga = client.post("/sagas/checkout", &order("c-1")).await.expect(201);
    assert_eq!(saga["status"], "completed", "{saga}");
    for word in ["curl", "tok_declined", &format!("127.0.0.1:{port}/sagas/checkout"), "compensated"] {
        eventually(&format!("`{word}` is shown"), Duration::from_secs(30), async || {
            met(process.log().contains(word), || process.log())
        })
        .await;
    }

    let second = run(&folder, &mut dev(&data, free_port())).await;
    failed_in_one_line(&second, &["in use", &data.display().to_string()]);
    assert!(process.exited().is_none(), "the first one goes on");
    let status = process.terminate(Duration::from_secs(40)).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn dev_says_in_one_line_why_it_cannot_start() {
    let folder = Folder::new();
    let busy = TcpListener::bind("127.0.0.1:0").expect("there are free ports");
    let port = busy.local_addr().expect("it is bound").port();
    let ended = run(&folder, &mut dev(&folder.path().join("data"), port)).await;
    failed_in_one_line(&ended, &[&port.to_string()]);

    let file = folder.path().join("file");
    fs::write(&file, "").expect("the folder is ours");
    // Not even root can make folders in these places.
    for place in [file.join("data"), file, Path::new("/proc/skald").to_owned()] {
        let ended = run(&folder, &mut dev(&place, free_port())).await;
        failed_in_one_line(&ended, &[&place.display().to_string()]);
    }
}

#[tokio::test]
async fn validate_names_every_problem_of_every_file() {
    let folder = Folder::new();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("the folder is ours");
        path
    };
    let mut two = definition("two", []);
    two["deadline"] = "soon".into();
    two["extra"] = 1.into();
    let broken = [file("two.json", &two.to_string()), file("not.yaml", "name: [")];
    let good = bundled_definitions().join("checkout.yaml");

    let ended = run(&folder, program().arg("validate").arg(&good)).await;
    assert!(ended.status.success(), "{ended:?}");
    let ended = run(&folder, program().arg("validate").arg(&good).args(&broken)).await;
    assert!(!ended.status.success());
    let shown = ended.stdout + &ended.stderr;
    for word in ["two.json", "deadline", "extra", "steps", "not.yaml"] {
        assert!(shown.contains(word), "`{word}` is not in\n{shown}");
    }
    assert!(!run(&folder, program().args(["validate", "nowhere.yaml"])).await.status.success());
}

#[tokio::test]
async fn the_configuration_of_docker_compose_fits_the_definitions_that_it_mounts() {
    let folder = Folder::new();
    let config = workspace().join("deploy/compose/skald.toml");
    let definitions = fs::read_dir(bundled_definitions()).expect("there are definitions");
    let definitions = definitions.map(|entry| entry.expect("the folder can be read").path());
    let ended = run(&folder, program().arg("validate").arg("--config").arg(config).args(definitions)).await;
    assert!(ended.status.success(), "{ended:?}");
}

#[tokio::test]
async fn serve_refuses_a_configuration_it_does_not_know() {
    let folder = Folder::new();
    let config = folder.path().join("skald.toml");
    for (text, word) in [
        ("[server]\nlisten_to = \"127.0.0.1:0\"\n", "listen_to"),
        ("[sever]\n", "sever"),
        ("[database]\nlease = 5\n", "lease"),
        ("[participants.sales]\nbase_url = \"ftp://x\"\n", "participants.sales.base_url"),
        ("[participants.sales]\ntimeout = \"3s\"\n", "participants.sales.base_url"),
        ("[server\n", "skald.toml"),
    ] {
        fs::write(&config, text).expect("the folder is ours");
        let ended = run(&folder, program().arg("serve").arg("--config").arg(&config)).await;
        assert!(!ended.status.success(), "{text}");
        assert!(ended.stderr.contains(word), "`{word}` is not in `{}`", ended.stderr);
    }
    let ended = run(&folder, program().args(["serve", "--config", "nowhere.toml"])).await;
    assert!(!ended.status.success() && ended.stderr.contains("nowhere.toml"), "{ended:?}");
}

#[rstest]
#[tokio::test]
async fn migrate_can_be_run_twice_and_serve_can_be_told_not_to(#[values(Sqlite, Postgres)] backend: Backend) {
    let folder = Folder::new();
    let database = Database::create(backend, folder.path(), "skald").await;
    let serve = |listen: &str| {
        let mut serve = program();
        serve.args(["serve", "--no-migrate", "--listen", listen, "--database-url", &database.url()]);
        serve
    };
    let ended = run(&folder, &mut serve("127.0.0.1:0")).await;
    assert!(!ended.status.success() && ended.stderr.contains("skald migrate"), "{ended:?}");
    for _ in 0..2 {
        let ended = run(&folder, program().args(["migrate", "--database-url", &database.url()])).await;
        assert!(ended.status.success(), "{ended:?}");
    }
    let mut process = Process::start("skald", &mut serve("127.0.0.1:0"), folder.path());
    let client = Client::new(&process.url().await);
    eventually("Skald is ready", Duration::from_secs(30), async || {
        let answer = client.try_get("/readyz").await.map_err(|error| error.to_string())?;
        met(answer.status == 200, || answer.text)
    })
    .await;
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_said_in_one_line_without_the_password() {
    let folder = Folder::new();
    let url = format!("postgres://skald:hunter2@127.0.0.1:{}/skald", free_port());
    let ended = run(&folder, program().args(["migrate", "--database-url", &url])).await;
    failed_in_one_line(&ended, &["database"]);
    assert!(!ended.stderr.contains("hunter2") && !ended.stdout.contains("hunter2"), "{ended:?}");
}

#[tokio::test]
async fn healthcheck_asks_the_server_of_the_configuration() {
    let folder = Folder::new();
    let (config, listen) = (folder.path().join("skald.toml"), format!("127.0.0.1:{}", free_port()));
    let database = folder.path().join("skald.db");
    let text = format!("[server]\nlisten = \"{listen}\"\n[database]\nurl = \"sqlite:{}\"\n", database.display());
    fs::write(&config, text).expect("the folder is ours");
    let healthcheck = async |flags: &[&str]| {
        run(&folder, program().arg("healthcheck").arg("--config").arg(&config).args(flags)).await
    };
    failed_in_one_line(&healthcheck(&[]).await, &["no answer from", &listen, "/readyz"]);
    let mut process = Process::start("skald", program().arg("serve").arg("--config").arg(&config), folder.path());
    process.url().await;
    eventually("skald healthcheck succeeds", Duration::from_secs(30), async || {
        let ended = healthcheck(&[]).await;
        met(ended.status.success(), || ended.stderr)
    })
    .await;
    assert!(healthcheck(&["--live"]).await.status.success());
}
