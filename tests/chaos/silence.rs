//! A network that forgets connections without telling anyone: every session between Skald and PostgreSQL falls silent, and
//! Skald must open others.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::timeout;

use crate::harness::{
    Answer, Checker, Folder, Postgres, Skald,
    cluster::free_port,
    database::Database,
    deployment::bundled_definitions,
    eventually, met, order,
    participants::Shop,
    proxy::{Proxy, Weather},
    skald::{Setup, participant},
};

/// More than a replica has sessions of any kind.
const ASKED_AT_ONCE: usize = 8;
const SILENCES: u32 = 3;
/// For how long clients ask, through all silences.
const ASKED_FOR: Duration = Duration::from_secs(6);
const CLIENT_PATIENCE: Duration = Duration::from_millis(1_500);
/// A read is given up after 30 s, and its session may take 5 s to close.
const RECOVERED_WITHIN: Duration = Duration::from_secs(90);

/// Skald behind a proxy to its database.
struct Remote {
    skald: Skald,
    shop: Shop,
    link: Proxy,
    database: Database,
    _folder: Folder,
}

async fn link(database: &Database) -> (Proxy, String) {
    let url = database.url();
    let (_, address) = url.rsplit_once('@').expect("the URL names a user");
    let (address, _) = address.split_once('/').expect("the URL names a database");
    let address: SocketAddr = address.parse().expect("the tests' server has an address");
    let link = Proxy::before_postgres(address).await;
    let through = url.replace(&address.to_string(), &format!("127.0.0.1:{}", link.port));
    (link, through)
}

impl Remote {
    async fn start() -> Self {
        let folder = Folder::new();
        let database = Database::create(Postgres, folder.path(), "skald").await;
        let shop = Shop::start(crate::harness::Sqlite, folder.path()).await;
        let (link, database_url) = link(&database).await;
        let participants = [("catalog", &shop.catalog), ("sales", &shop.sales), ("orders", &shop.orders)];
        let setup = Setup {
            folder: folder.path().to_owned(),
            database_url,
            definitions: bundled_definitions(),
            // One place to read from: it must not be lost.
            config: "[database]\nreaders = 1\n\n".to_owned()
                + &participants.map(|(name, service)| participant(name, service.url())).concat(),
        };
        let skald = Skald::start_at(setup, &format!("127.0.0.1:{}", free_port())).await;
        skald.ready().await;
        Self { skald, shop, link, database, _folder: folder }
    }
}

/// An answer to somebody who has time.
async fn answer(remote: &Remote, path: &str) -> Result<Answer, String> {
    let answer = timeout(Duration::from_secs(10), remote.skald.client.try_get(path)).await;
    answer.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_sessions_all_fell_silent_opens_others() {
    let remote = Remote::start().await;
    remote.shop.sales.faults(json!({"payments": {"delay": {"rate": 1.0, "ms": 2000}}})).await;
    let id = remote.skald.begun("checkout", &order("c-1")).await;
    let paths = [format!("/sagas/{id}"), "/readyz".to_owned(), format!("/sagas/{id}/events"), "/sagas".to_owned()];
    let asking = (0..ASKED_AT_ONCE).flat_map(|_| &paths).map(async |path| {
        let begun = Instant::now();
        while begun.elapsed() < ASKED_FOR {
            // A client that gets no answer leaves.
            let _ = timeout(CLIENT_PATIENCE, remote.skald.client.try_get(path)).await;
        }
    });
    let falling_silent = async {
        // While all of them are in the middle of something.
        for _ in 0..SILENCES {
            tokio::time::sleep(ASKED_FOR / (2 * SILENCES)).await;
            remote.link.weather(Weather::Silent);
            tokio::time::sleep(ASKED_FOR / (2 * SILENCES)).await;
            remote.link.weather(Weather::Clear);
        }
    };
    tokio::join!(join_all(asking), falling_silent);
    let silenced = remote.link.seen().silenced;
    assert!(silenced >= 4, "only {silenced} sessions have fallen silent");

    eventually("it is ready again", RECOVERED_WITHIN, async || {
        let ready = answer(&remote, "/readyz?verbose").await?;
        met(ready.status == 200, || ready.text)
    })
    .await;
    eventually("the saga has ended", RECOVERED_WITHIN, async || {
        let saga = answer(&remote, &format!("/sagas/{id}")).await?;
        met(saga.body["ended_at"].is_string(), || saga.text)
    })
    .await;
    let other = eventually("another one is started", RECOVERED_WITHIN, async || {
        let begun = remote.skald.begin("checkout", &order("c-2")).await;
        let id = begun.body["id"].as_str().map(str::to_owned);
        id.ok_or(begun.text)
    })
    .await;
    assert_eq!(remote.skald.ended(&other).await["status"], "completed");
    Checker::gather(&remote.skald, &remote.shop, &remote.database).await.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_waits_at_its_start_for_a_database_that_does_not_answer() {
    let mut remote = Remote::start().await;
    remote.link.weather(Weather::Silent);
    let (started, ()) = tokio::join!(remote.skald.start_once(), async {
        // Longer than a connection may take.
        tokio::time::sleep(Duration::from_secs(7)).await;
        remote.link.weather(Weather::Clear);
    });
    started.expect("it listens as soon as it has a database");
    remote.skald.ready().await;
}
