//! The demo services as processes: catalog, sales and orders, each with a database of its own.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    client::Client,
    database::{Backend, Database},
    eventually,
    process::Process,
};

const REVIVED_WITHIN: Duration = Duration::from_secs(60);

/// One demo service, or a worker.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    // Before the database, so that it is gone when that is dropped.
    process: Process,
    pub client: Client,
    database: Database,
    folder: PathBuf,
    part: Vec<String>,
}

/// Whose choreographed sagas a service takes part in, or whose events a worker lives on, and where it hears of them.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Of one or several replicas, separated by commas.
    pub skald_url: Option<String>,
    /// None: from Skald itself.
    pub bus: Option<String>,
}

impl Part {
    fn flags(&self) -> Vec<String> {
        let flag =
            |name: &str, value: &Option<String>| value.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>();
        [flag("--skald-url", &self.skald_url), flag("--bus", &self.bus)].concat()
    }
}

/// The three that a checkout calls.
#[derive(Debug)]
pub struct Shop {
    pub catalog: Service,
    pub sales: Service,
    pub orders: Service,
}

/// One effect, as the service that made it recorded it.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    pub id: i64,
    pub at: String,
    pub key: String,
    pub saga_id: String,
    pub step: String,
    pub operation: String,
    pub effect: String,
    pub detail: Value,
}

impl Shop {
    pub async fn start(backend: Backend, folder: &Path) -> Self {
        Self::taking(&Part::default(), backend, folder).await
    }

    pub async fn taking(part: &Part, backend: Backend, folder: &Path) -> Self {
        let (catalog, sales, orders) = tokio::join!(
            Service::taking(part, "catalog", backend, folder),
            Service::taking(part, "sales", backend, folder),
            Service::taking(part, "orders", backend, folder),
        );
        Self { catalog, sales, orders }
    }

    pub fn services(&self) -> [&Service; 3] {
        [&self.catalog, &self.sales, &self.orders]
    }

    /// Ends all faults.
    pub async fn heal(&self) {
        for service in self.services() {
            service.faults(json!({})).await;
        }
    }
}

impl Service {
    async fn taking(part: &Part, name: &'static str, backend: Backend, folder: &Path) -> Self {
        let database = Database::create(backend, folder, name).await;
        Self::launch(name, database, folder, "127.0.0.1:0", part.flags()).await
    }

    /// On this database, at this address.
    pub async fn start_at(part: &Part, name: &'static str, database: Database, folder: &Path, listen: &str) -> Self {
        Self::launch(name, database, folder, listen, part.flags()).await
    }

    /// A worker beside the three, with these flags of its own.
    pub async fn worker(part: &Part, name: &'static str, flags: &[String], backend: Backend, folder: &Path) -> Self {
        let database = Database::create(backend, folder, name).await;
        Self::launch(name, database, folder, "127.0.0.1:0", [&part.flags(), flags].concat()).await
    }

    async fn launch(name: &'static str, database: Database, folder: &Path, listen: &str, part: Vec<String>) -> Self {
        let mut process = Process::start(name, command(name, &database, listen).args(&part), folder);
        let client = Client::new(&process.url().await);
        Self { name, process, client, database, folder: folder.to_owned(), part }
    }

    fn command_at(&self, listen: &str) -> Command {
        let mut command = command(self.name, &self.database, listen);
        command.args(&self.part);
        command
    }

    pub fn url(&self) -> &str {
        &self.client.url
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again where it was.
    pub async fn restart(&mut self) {
        self.kill();
        let listen = self.client.url.trim_start_matches("http://").to_owned();
        self.process = Process::start(self.name, &mut self.command_at(&listen), &self.folder);
        self.process.url().await;
    }

    /// The same as a supervisor does it: once more when it ends instead of listening, for want of its database.
    pub async fn revive(&mut self) {
        self.kill();
        let listen = self.client.url.trim_start_matches("http://").to_owned();
        eventually(&format!("{} listens again", self.name), REVIVED_WITHIN, async || {
            self.process = Process::start(self.name, &mut self.command_at(&listen), &self.folder);
            self.process.listens().await.map(drop).map_err(|status| status.to_string())
        })
        .await;
    }

    /// Sets what goes wrong from now on, by operation or `*`.
    pub async fn faults(&self, faults: Value) {
        self.client.put("/faults", &faults).await.expect(200);
    }

    /// Every effect there has been, in the order they were made.
    pub async fn ledger(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let after = entries.last().map_or(0, |entry| entry.id);
            let page = self.client.get(&format!("/ledger?limit=1000&after={after}")).await.expect(200);
            let page: Vec<Entry> = serde_json::from_value(page["items"].clone()).expect("entries have this form");
            if page.is_empty() {
                return entries;
            }
            entries.extend(page);
        }
    }

    /// The effects of one saga, as `step:operation`, in order.
    pub async fn effects_of(&self, saga: &str) -> Vec<String> {
        let entries = self.ledger().await;
        let of_saga = entries.iter().filter(|entry| entry.saga_id == saga);
        of_saga.map(|entry| format!("{}:{}", entry.step, entry.operation)).collect()
    }

    /// A shelf of the catalog: available, reserved and sold units.
    pub async fn shelf(&self, store: &str, product: &str) -> (i64, i64, i64) {
        let page = self.client.get(&format!("/stock?store_id={store}&product_id={product}")).await.expect(200);
        let shelf = &page["items"][0];
        let units = |name: &str| shelf[name].as_i64().unwrap_or_else(|| panic!("{name} of {page}"));
        (units("available"), units("reserved"), units("sold"))
    }

    /// Puts units on a shelf of the catalog.
    pub async fn stock_up(&self, store: &str, product: &str, units: i64) {
        let body = json!({"store_id": store, "product_id": product, "delta": units});
        self.client.post("/stock/adjust", &body).await.expect(200);
    }

    /// Sets what a customer may spend at sales.
    pub async fn set_credit(&self, customer: &str, credit: i64) {
        self.client.put(&format!("/customers/{customer}"), &json!({"credit": credit})).await.expect(200);
    }
}

fn command(name: &str, database: &Database, listen: &str) -> Command {
    let mut command = Command::new(program());
    command.args([name, "--listen", listen, "--faults", "--database-url", &database.url()]);
    command.env("RUST_LOG", "info,actix_server=warn").env("NO_COLOR", "1");
    command
}

/// The services' program, beside Skald's own. Cargo builds only the programs of the package under test, so it is built
/// here when it is missing or older than its sources.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = Path::new(env!("CARGO_BIN_EXE_skald")).with_file_name("skald-participant");
        if built_at(&program) < changed_at(&super::workspace().join("participants")) {
            let release = program.parent().is_some_and(|folder| folder.ends_with("release"));
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--workspace", "--bins"]).args(release.then_some("--release"));
            let built = cargo.current_dir(super::workspace()).status();
            assert!(built.is_ok_and(|status| status.success()), "the demo services do not build");
        }
        program
    })
}

fn built_at(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}

/// When a file of this folder changed last.
fn changed_at(folder: &Path) -> Option<SystemTime> {
    let entries = folder.read_dir().expect("the sources are there").flatten();
    entries
        .map(|entry| entry.path())
        .filter_map(|path| if path.is_dir() { changed_at(&path) } else { built_at(&path) })
        .max()
}
