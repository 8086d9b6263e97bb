//! What most tests start: Skald and the participants it calls, on new databases.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    checker::Checker,
    cluster::free_port,
    database::{Backend, Database},
    guard,
    participants::{Part, Shop},
    skald::{Setup, Skald, participant},
    workspace,
};

/// Skald with the bundled checkout and its three services. Fields are dropped in order: databases last.
#[derive(Debug)]
pub struct Deployment {
    pub skald: Skald,
    pub shop: Shop,
    pub database: Database,
    _folder: Folder,
}

/// Skald alone, for definitions of the test's own.
#[derive(Debug)]
pub struct Alone {
    pub skald: Skald,
    pub database: Database,
    _folder: Folder,
}

/// A folder of one test; it goes with it.
#[derive(Debug)]
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("test-").tempdir_in(guard::folder()).expect("there is room for files"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Deployment {
    /// With more patience than the bundled checkout has: a busy machine must not look like a participant that hangs.
    pub async fn start(backend: Backend) -> Self {
        let folder = Folder::new();
        let definitions = patient_definitions(folder.path());
        Self::launch(backend, folder, definitions, (&Part::default(), "127.0.0.1:0"), "").await
    }

    /// With services that take part in choreographed sagas. `bus` is where events are published and heard of; without one
    /// the services ask Skald.
    pub async fn choreographed(backend: Backend, bus: Option<&str>) -> Self {
        let folder = Folder::new();
        let definitions = patient_definitions(folder.path());
        let listen = format!("127.0.0.1:{}", free_port());
        let part = Part { skald_url: Some(format!("http://{listen}")), bus: bus.map(str::to_owned) };
        let publish = bus.map(|url| format!("[bus]\nurl = \"{url}\"\n\n")).unwrap_or_default();
        Self::launch(backend, folder, definitions, (&part, &listen), &publish).await
    }

    /// With the bundled checkout as it is.
    pub async fn start_as_shipped(backend: Backend) -> Self {
        Self::launch(backend, Folder::new(), bundled_definitions(), (&Part::default(), "127.0.0.1:0"), "").await
    }

    async fn launch(
        backend: Backend,
        folder: Folder,
        definitions: PathBuf,
        (part, listen): (&Part, &str),
        config: &str,
    ) -> Self {
        let (database, shop) =
            tokio::join!(Database::create(backend, folder.path(), "skald"), Shop::taking(part, backend, folder.path()));
        let participants = [("catalog", &shop.catalog), ("sales", &shop.sales), ("orders", &shop.orders)];
        let setup = Setup {
            folder: folder.path().to_owned(),
            database_url: database.url(),
            definitions,
            config: config.to_owned() + &participants.map(|(name, service)| participant(name, service.url())).concat(),
        };
        let skald = Skald::start_at(setup, listen).await;
        skald.ready().await;
        Self { skald, shop, database, _folder: folder }
    }

    /// Checks what must hold now that all sagas have ended or are parked.
    pub async fn check(&self) {
        self.checker().await.check();
    }

    pub async fn checker(&self) -> Checker {
        Checker::gather(&self.skald, &self.shop, &self.database).await
    }
}

impl Alone {
    /// With participants by name and URL, which may be nowhere.
    pub async fn start(backend: Backend, participants: &[(&str, &str)]) -> Self {
        let config: String = participants.iter().map(|(name, url)| participant(name, url)).collect();
        Self::start_with(backend, &config).await
    }

    /// With this text as its configuration.
    pub async fn start_with(backend: Backend, config: &str) -> Self {
        let folder = Folder::new();
        let database = Database::create(backend, folder.path(), "skald").await;
        let definitions = folder.path().join("definitions");
        fs::create_dir(&definitions).expect("the folder is ours");
        let setup = Setup {
            folder: folder.path().to_owned(),
            database_url: database.url(),
            definitions,
            config: config.to_owned(),
        };
        let skald = Skald::start(setup).await;
        Self { skald, database, _folder: folder }
    }
}

/// The bundled definitions with other times: nothing else tells a slow answer from none.
fn patient_definitions(folder: &Path) -> PathBuf {
    let definitions = folder.join("definitions");
    fs::create_dir(&definitions).expect("the folder is ours");
    for name in ["checkout.yaml", "order-first.yaml"] {
        let mut text = fs::read_to_string(bundled_definitions().join(name)).expect("it is there");
        for (shipped, patient) in [("timeout: 3s", "timeout: 20s"), ("deadline: 2m", "deadline: 15m")] {
            assert!(text.contains(shipped), "`{shipped}` is what the bundled {name} says");
            text = text.replace(shipped, patient);
        }
        fs::write(definitions.join(name), text).expect("the folder is ours");
    }
    definitions
}

/// Those that come with Skald.
pub fn bundled_definitions() -> PathBuf {
    workspace().join("definitions")
}
