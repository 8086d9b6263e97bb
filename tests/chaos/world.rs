//! What a run breaks: three replicas on a PostgreSQL cluster of their own and three participants, with a proxy on every
//! way between them.
//!
//! ```text
//! clients -> replica 0..2 -> proxy per replica     -> PostgreSQL: Skald's database, catalog's
//!                         -> proxy per participant -> catalog, sales, orders (SQLite but for catalog's)
//! catalog, sales, orders  -> whichever replica answers
//! ```

use std::{fs, net::SocketAddr, path::Path};

use futures_util::future::join_all;
use serde_json::json;

use super::load::CUSTOMERS;
use crate::harness::{
    Client, Folder,
    cluster::{Cluster, free_port},
    database::Database,
    deployment::bundled_definitions,
    participants::{Part, Service, Shop},
    postgres::OwnDatabase,
    proxy::Proxy,
    skald::{Setup, Skald, participant},
};

pub const REPLICAS: usize = 3;
const STORE: &str = "s-main";
/// What every customer may spend: enough.
const CREDIT: i64 = 1_000_000_000_000;

/// Fields are dropped in order: the cluster after what stands on it.
#[derive(Debug)]
pub struct World {
    pub servers: Servers,
    pub network: Network,
    pub shop: Shop,
    pub database: Database,
    pub folder: Folder,
    pub cluster: Cluster,
}

/// The replicas of Skald.
#[derive(Debug)]
pub struct Servers(pub Vec<Skald>);

/// Every way between the servers.
#[derive(Debug)]
pub struct Network {
    /// From each replica to the database.
    pub databases: Vec<Proxy>,
    /// From the replicas to catalog, sales and orders.
    pub participants: [Proxy; 3],
}

impl World {
    /// With stock and credit for so many checkouts.
    pub async fn start(sagas: usize) -> Self {
        let folder = Folder::new();
        open_to_others(folder.path());
        let cluster = Cluster::start(&folder.path().join("postgres")).await;
        let database = Database::Postgres(OwnDatabase::create_on(cluster.url(), "skald").await);
        let catalog = Database::Postgres(OwnDatabase::create_on(cluster.url(), "catalog").await);
        let sqlite = |name: &str| Database::Sqlite(folder.path().join(format!("{name}.db")));
        let at = || format!("127.0.0.1:{}", free_port());
        let [at_catalog, at_sales, at_orders] = [at(), at(), at()];
        let at_replicas: [String; REPLICAS] = std::array::from_fn(|_| at());
        let urls = at_replicas.each_ref().map(|address| format!("http://{address}"));
        let part = Part { skald_url: Some(urls.join(",")), bus: None };
        let (catalog, sales, orders) = tokio::join!(
            Service::start_at(&part, "catalog", catalog, folder.path(), &at_catalog),
            Service::start_at(&part, "sales", sqlite("sales"), folder.path(), &at_sales),
            Service::start_at(&part, "orders", sqlite("orders"), folder.path(), &at_orders),
        );
        let shop = Shop { catalog, sales, orders };
        stock(&shop, sagas).await;
        let mut databases = Vec::new();
        for _ in 0..REPLICAS {
            databases.push(Proxy::before_postgres(SocketAddr::from(([127, 0, 0, 1], cluster.port))).await);
        }
        let [catalog, sales, orders] = shop.services().map(address);
        let participants =
            [Proxy::before_http(catalog).await, Proxy::before_http(sales).await, Proxy::before_http(orders).await];
        let network = Network { databases, participants };
        let direct = format!(":{}/", cluster.port);
        let mut servers = Vec::new();
        // One after another: the first makes the tables.
        for ((number, link), at) in network.databases.iter().enumerate().zip(&at_replicas) {
            let database_url = database.url().replace(&direct, &format!(":{}/", link.port));
            let setup = network.setup(&folder.path().join(format!("replica-{number}")), database_url);
            servers.push(Skald::start_at(setup, at).await);
        }
        Self { servers: Servers(servers), network, shop, database, folder, cluster }
    }

    pub fn clients(&self) -> Vec<Client> {
        self.servers.0.iter().map(|replica| replica.client.clone()).collect()
    }
}

impl Network {
    fn setup(&self, folder: &Path, database_url: String) -> Setup {
        fs::create_dir(folder).expect("the folder is ours");
        let names = ["catalog", "sales", "orders"].iter().zip(&self.participants);
        let url = |proxy: &Proxy| format!("http://127.0.0.1:{}", proxy.port);
        Setup {
            folder: folder.to_owned(),
            database_url,
            definitions: bundled_definitions(),
            config: names.map(|(name, proxy)| participant(name, &url(proxy))).collect(),
        }
    }
}

fn address(service: &Service) -> SocketAddr {
    service.url().trim_start_matches("http://").parse().expect("it listens on an address")
}

/// The cluster's user must get to its folder.
fn open_to_others(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

/// Stock and credit for so many checkouts, and participants that take their time.
pub async fn stock(shop: &Shop, sagas: usize) {
    let units = i64::try_from(sagas).expect("a run is not that long");
    for product in ["p-1", "p-2", "p-3"] {
        shop.catalog.stock_up(STORE, product, units).await;
    }
    join_all((0..CUSTOMERS).map(async |number| {
        shop.sales.set_credit(&format!("c-{number}"), CREDIT).await;
    }))
    .await;
    for service in shop.services() {
        make_slow(service).await;
    }
}

/// Some calls always take a while, so that there is always something in the middle of something.
pub async fn make_slow(service: &Service) {
    service.faults(json!({"*": {"delay": {"rate": 0.3, "ms": 250}}})).await;
}
