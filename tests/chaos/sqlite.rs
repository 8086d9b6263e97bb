//! The embedded database under kill -9 and on a full disk: readiness goes red, nothing is lost, and it recovers.
//!
//! Without a disk that can be full (see [`SmallDisk`]) only the kills are made, and the run says so.

use std::{
    env, fs,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::json;
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{
    judge::{self, Judged},
    load::{self, Load},
    world,
};
use crate::harness::{
    Folder, Skald, Sqlite,
    cluster::free_port,
    database::Database,
    deployment::bundled_definitions,
    eventually, met,
    participants::{Part, Shop},
    skald::{Setup, participant},
    small_disk::SmallDisk,
};

const SAGAS: usize = 600;
const PACE: f64 = 25.0;
const DISK_MIB: u32 = 160;
/// The log has room of its own that is used up first, by events of this size.
const LARGE: usize = 500_000;
const ANSWER_MAX: Duration = Duration::from_secs(2);
const RED_WITHIN: Duration = Duration::from_secs(90);
const FULL_FOR: Duration = Duration::from_secs(1);
const FULL_BEYOND_LEASE_FOR: Duration = Duration::from_secs(7);
const PROGRESS_WITHIN: Duration = Duration::from_secs(120);

/// What happens, in this order, at even distances.
const EVENTS: [Event; 5] =
    [Event::Kill, Event::DiskFull, Event::Kill, Event::KillOnFullDisk, Event::DiskFullBeyondLease];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Event {
    Kill,
    DiskFull,
    DiskFullBeyondLease,
    KillOnFullDisk,
}

/// Skald on a disk of its own, if there can be one.
struct Embedded {
    skald: Skald,
    shop: Shop,
    database: Database,
    disk: Option<SmallDisk>,
    folder: Folder,
}

impl Embedded {
    async fn start() -> Self {
        let folder = Folder::new();
        let disk = match SmallDisk::mount(&folder.path().join("disk"), DISK_MIB) {
            Ok(disk) => Some(disk),
            Err(reason) => {
                eprintln!("SKIPPED: the full disk. It takes a mounted file system, which is for root: {reason}");
                None
            }
        };
        let listen = format!("127.0.0.1:{}", free_port());
        let part = Part { skald_url: Some(format!("http://{listen}")), bus: None };
        let shop = Shop::taking(&part, Sqlite, folder.path()).await;
        world::stock(&shop, SAGAS).await;
        let place = disk.as_ref().map_or(folder.path(), SmallDisk::path);
        let database = Database::Sqlite(place.join("skald.db"));
        let participants = [("catalog", &shop.catalog), ("sales", &shop.sales), ("orders", &shop.orders)];
        let setup = Setup {
            folder: folder.path().to_owned(),
            database_url: database.url(),
            definitions: bundled_definitions(),
            config: participants.map(|(name, service)| participant(name, service.url())).concat(),
        };
        let skald = Skald::start_at(setup, &listen).await;
        Self { skald, shop, database, disk, folder }
    }

    async fn make(&mut self, event: Event) {
        match event {
            Event::Kill => self.skald.restart().await,
            Event::DiskFull => self.fill_disk(FULL_FOR).await,
            Event::DiskFullBeyondLease => self.fill_disk(FULL_BEYOND_LEASE_FOR).await,
            Event::KillOnFullDisk => self.kill_on_full_disk().await,
        }
    }

    async fn fill_disk(&self, lasts: Duration) {
        let Some(disk) = &self.disk else { return };
        self.until_red(disk).await;
        let page = self.skald.client.get("/sagas?limit=1").await;
        assert_eq!(page.status, 200, "a full disk can be read: {}", page.text);
        sleep(lasts).await;
        disk.free();
        self.skald.ready().await;
    }

    async fn kill_on_full_disk(&mut self) {
        let Some(disk) = &self.disk else { return };
        self.until_red(disk).await;
        // It may end with an error, or come up and write for as long as the log has room of its own. Reading takes an index
        // of the log, which it may find no room for.
        let started = self.skald.start_once().await;
        match started {
            Ok(()) => self.until_red(disk).await,
            Err(status) => assert!(status.code().is_some(), "it should say what is wrong, not die: {status}"),
        }
        println!("started on a full disk: {started:?}");
        disk.free();
        if started.is_err() {
            self.skald.revive().await;
        }
        self.skald.ready().await;
    }

    async fn append_a_large_event(&self) {
        let event = json!({"event_id": Uuid::new_v4(), "type": "Large", "data": {"text": "x".repeat(LARGE)}});
        let body = json!({"expected_version": "any", "events": [event]});
        let append = self.skald.client.post("/streams/large-events/events", &body);
        // While commits do not get through, it waits.
        if let Ok(answer) = timeout(ANSWER_MAX, append).await {
            assert!(matches!(answer.status, 201 | 503), "{}: {}", answer.status, answer.text);
        }
    }

    /// Fills the disk until Skald has noticed. What the log has already taken it may still use: large events take that, for
    /// the load may be over by now.
    async fn until_red(&self, disk: &SmallDisk) {
        eventually("readiness is red on a full disk", RED_WITHIN, async || {
            disk.fill();
            self.append_a_large_event().await;
            let ready = self.skald.client.get("/readyz?verbose").await;
            met(ready.status == 503, || ready.text)
        })
        .await;
        let alive = self.skald.client.get("/livez").await;
        assert_eq!(alive.status, 200, "a full disk is no reason to be restarted");
    }
}

/// For whoever reads the reports of a run.
#[derive(Debug, Serialize)]
struct Report {
    events: Vec<Event>,
    skipped_for_want_of_a_disk: bool,
    seconds: f64,
    #[serde(flatten)]
    judged: Judged,
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_and_a_full_disk_lose_nothing_on_sqlite_1_to_13() {
    let begun = Instant::now();
    let mut embedded = Embedded::start().await;
    let clients = [embedded.skald.client.clone()];
    let (load, admission) = (Load::default(), Semaphore::new(0));
    let starting = async {
        tokio::join!(load::admit(&admission, SAGAS, PACE, || usize::MAX), load.run(1, &clients, SAGAS, &admission));
    };
    let breaking = async {
        for (number, event) in EVENTS.into_iter().enumerate() {
            let after = SAGAS * (number + 1) / (EVENTS.len() + 2);
            eventually(&format!("{after} starts are over"), PROGRESS_WITHIN, async || {
                let over = load.over();
                met(over >= after, || over.to_string())
            })
            .await;
            embedded.make(event).await;
            println!("{after:>6} starts: {event:?}, {:.1?}", begun.elapsed());
        }
    };
    tokio::join!(starting, breaking);
    embedded.shop.heal().await;
    judge::settle(&embedded.database, &embedded.shop, &clients).await;
    let judged = judge::judge(&embedded.database, &embedded.shop, &load, None).await;
    let report = Report {
        events: EVENTS.into(),
        skipped_for_want_of_a_disk: embedded.disk.is_none(),
        seconds: begun.elapsed().as_secs_f64(),
        judged,
    };
    println!("{:#}", json!(report));
    if let Some(path) = env::var_os("SKALD_CHAOS_SQLITE_REPORT") {
        fs::write(&path, json!(report).to_string()).expect("the report can be written");
    }
    let mut violations = report.judged.violations;
    violations.extend(judge::panics(embedded.folder.path()));
    violations.extend(judge::verify(&embedded.database, embedded.skald.setup()).await);
    assert!(violations.is_empty(), "{violations:#?}");
}
