//! Skald as a process, and what tests do with it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    client::{Answer, Client},
    eventually, met,
    process::Process,
};

/// How long anything may take that is not about time.
pub const SOON: Duration = Duration::from_secs(30);

const STARTS_MAX: usize = 20;

/// How Skald is to be started.
#[derive(Clone, Debug)]
pub struct Setup {
    pub folder: PathBuf,
    pub database_url: String,
    pub definitions: PathBuf,
    /// Text of the configuration file.
    pub config: String,
}

/// One replica.
#[derive(Debug)]
pub struct Skald {
    pub process: Process,
    pub client: Client,
    setup: Setup,
}

/// Skald's program.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skald"));
    // What is meant for the tests is no configuration.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SKALD_")) {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1");
    command
}

/// The section of a configuration that names a participant, with a circuit that closes soon.
pub fn participant(name: &str, url: &str) -> String {
    format!(
        "[participants.{name}]\nbase_url = \"{url}\"\n\
         breaker = {{ failures = 20, open_for = \"300ms\", open_for_max = \"1s\", probes = 3 }}\n\n"
    )
}

/// A checkout that goes through, of one unit of `p-1`.
pub fn order(customer: &str) -> Value {
    json!({
        "customer_id": customer,
        "items": [{"product_id": "p-1", "quantity": 1}],
        "payment": {"method": "card", "token": "tok_ok"},
    })
}

impl Skald {
    /// Starts it and waits until it is ready.
    pub async fn start(setup: Setup) -> Self {
        let skald = Self::start_waiting(setup).await;
        skald.ready().await;
        skald
    }

    /// Starts it and waits until it listens; it may have to wait for its shards.
    pub async fn start_waiting(setup: Setup) -> Self {
        Self::start_at(setup, "127.0.0.1:0").await
    }

    /// The same, at this address.
    pub async fn start_at(setup: Setup, listen: &str) -> Self {
        let mut process = spawn(&setup, listen);
        let client = Client::new(&process.url().await);
        Self { process, client, setup }
    }

    /// Starts it again on the same database, from a shell that has run `limits` before.
    pub async fn restart_limited(&mut self, limits: &str) {
        self.kill();
        let config = self.setup.folder.join("skald.toml");
        let skald = program();
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{limits} && exec \"$0\" \"$@\"")]).arg(skald.get_program());
        shell.env("NO_COLOR", "1");
        let command = serve(&mut shell, &config, &self.setup);
        self.process = Process::start("skald", command.args(["--listen", "127.0.0.1:0"]), &self.setup.folder);
        self.client = Client::new(&self.process.url().await);
        self.ready().await;
    }

    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    pub async fn ready(&self) {
        eventually("Skald is ready", SOON, async || match self.client.try_get("/readyz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.text),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same database and port, and waits until it is ready.
    pub async fn restart(&mut self) {
        self.kill();
        let listen = self.client.url.trim_start_matches("http://").to_owned();
        self.process = spawn(&self.setup, &listen);
        self.process.url().await;
        self.ready().await;
    }

    /// Starts it again where it was, as a supervisor does: once more when it ends instead of listening. Gives how often
    /// it did. It may have to wait for its shards.
    pub async fn revive(&mut self) -> usize {
        for failed in 0..STARTS_MAX {
            if self.start_once().await.is_ok() {
                return failed;
            }
        }
        panic!("Skald ended {STARTS_MAX} times instead of listening:\n{}", self.process.log());
    }

    /// Starts it again where it was, and waits until it listens or has ended instead.
    pub async fn start_once(&mut self) -> Result<(), ExitStatus> {
        self.kill();
        let listen = self.client.url.trim_start_matches("http://").to_owned();
        self.process = spawn(&self.setup, &listen);
        self.process.listens().await.map(drop)
    }

    /// Starts a saga and does not wait for its end; gives the answer.
    pub async fn begin(&self, definition: &str, input: &Value) -> Answer {
        let request = self.client.request(Method::POST, &format!("/sagas/{definition}")).json(input);
        self.client.send(request.header("Prefer", "respond-async")).await.expect("Skald answers")
    }

    /// Starts a saga and does not wait for its end; gives its id.
    pub async fn begun(&self, definition: &str, input: &Value) -> String {
        let answer = self.begin(definition, input).await;
        assert!(matches!(answer.status, 201 | 202), "{}", answer.text);
        answer.body["id"].as_str().expect("a saga has an id").to_owned()
    }

    /// Runs a saga to its end and gives it.
    pub async fn run(&self, definition: &str, input: &Value) -> Value {
        let id = self.begun(definition, input).await;
        self.ended(&id).await
    }

    pub async fn saga(&self, id: &str) -> Value {
        self.client.get(&format!("/sagas/{id}")).await.expect(200)
    }

    /// Waits until the saga is as wanted.
    pub async fn until(&self, id: &str, what: &str, within: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("saga {id} is {what}"), within, async || {
            let saga = self.saga(id).await;
            if wanted(&saga) { Ok(saga) } else { Err(saga.to_string()) }
        })
        .await
    }

    pub async fn until_status(&self, id: &str, status: &str) -> Value {
        self.until(id, status, SOON, |saga| saga["status"] == status).await
    }

    pub async fn ended(&self, id: &str) -> Value {
        self.until(id, "ended", SOON, |saga| !saga["ended_at"].is_null()).await
    }

    /// Waits until no saga is on its way: all ended or parked.
    pub async fn all_settled(&self, within: Duration) {
        eventually("all sagas ended or parked", within, async || {
            let page = self.client.get("/sagas?status=running,compensating&limit=1").await.expect(200);
            met(page["items"] == json!([]), || page["items"][0].to_string())
        })
        .await;
    }

    /// All sagas, newest first.
    pub async fn sagas(&self) -> Vec<Value> {
        self.client.all("/sagas").await
    }

    /// All events of a saga.
    pub async fn events(&self, id: &str) -> Vec<Value> {
        let mut events = Vec::new();
        let mut after = "0".to_owned();
        loop {
            let page = self.client.get(&format!("/sagas/{id}/events?limit=250&after={after}")).await.expect(200);
            events.extend(page["items"].as_array().expect("a list has items").iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => after = next.to_owned(),
                None => return events,
            }
        }
    }

    /// The types of all events of a saga.
    pub async fn event_types(&self, id: &str) -> Vec<String> {
        let events = self.events(id).await;
        events.iter().map(|event| event["type"].as_str().expect("an event has a type").to_owned()).collect()
    }

    /// An operator's command, e.g. `compensate` or `steps/reserve_stock/skip`.
    pub async fn admin(&self, id: &str, command: &str, mut body: Value) -> Answer {
        let fields = body.as_object_mut().expect("a command's body is an object");
        fields.entry("reason").or_insert_with(|| json!("the test says so"));
        let request = self.client.request(Method::POST, &format!("/admin/sagas/{id}/{command}")).json(&body);
        self.client.send(request.header("X-Actor", "tester")).await.expect("Skald answers")
    }

    /// Registers a definition.
    pub async fn register(&self, definition: &Value) {
        let name = definition["name"].as_str().expect("a definition has a name");
        let answer = self.client.put(&format!("/definitions/{name}"), definition).await;
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text);
    }

    /// A metric's value, over all its labels that hold `labels`; 0 when there is none.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.client.get("/metrics").await.text;
        let of_metric = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']) && rest.contains(labels))
        });
        of_metric.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

fn spawn(setup: &Setup, listen: &str) -> Process {
    let config = setup.folder.join("skald.toml");
    // Another process may be reading it at this moment: what is right already is left alone.
    if !fs::read_to_string(&config).is_ok_and(|written| written == setup.config) {
        fs::write(&config, &setup.config).expect("the test's folder is writable");
    }
    Process::start("skald", serve(&mut program(), &config, setup).args(["--listen", listen]), &setup.folder)
}

fn serve<'a>(command: &'a mut Command, config: &Path, setup: &Setup) -> &'a mut Command {
    command.arg("serve").arg("--config").arg(config).arg("--definitions").arg(&setup.definitions);
    command.args(["--database-url", &setup.database_url])
}
