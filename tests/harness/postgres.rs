//! A database of its own for each test that asks, on a cluster that is started at the first need and shared by all tests
//! of this process.

use std::{
    env,
    sync::atomic::{AtomicU32, Ordering},
};

use sqlx::{Connection, PgConnection};
use tokio::sync::OnceCell;

use super::{cluster::Cluster, guard, postgres_binaries::URL_VARIABLE};

/// A database of one test; it goes with its owner.
#[derive(Debug)]
pub struct OwnDatabase {
    name: String,
    server: String,
}

impl OwnDatabase {
    /// Creates it on the shared cluster, or on the server that the environment names.
    pub async fn create(purpose: &str) -> Self {
        Self::create_on(server().await, purpose).await
    }

    /// Creates it on the server with this URL.
    pub async fn create_on(server: String, purpose: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("skald_e2e_{}_{number}_{purpose}", std::process::id());
        execute(&server, &format!("CREATE DATABASE {name}")).await.expect("the server lets us create databases");
        Self { name, server }
    }

    pub fn url(&self) -> String {
        let (address, parameters) =
            self.server.split_once('?').map_or((self.server.as_str(), ""), |(address, rest)| (address, rest));
        let (address, _) = address.rsplit_once('/').expect("the URL names a database");
        let question = if parameters.is_empty() { "" } else { "?" };
        format!("{address}/{}{question}{parameters}", self.name)
    }

    /// Connections to it at this moment, ours not counted.
    pub async fn connections(&self) -> i64 {
        let mut connection = PgConnection::connect(&self.server).await.expect("the server takes connections");
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
        sqlx::query_scalar(sql).bind(&self.name).fetch_one(&mut connection).await.expect("everyone may ask that")
    }
}

impl Drop for OwnDatabase {
    fn drop(&mut self) {
        let (server, sql) = (self.server.clone(), format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        // A runtime of its own: the test's may be ending.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(execute(&server, &sql)).map_err(std::io::Error::other)
        });
        if !matches!(dropping.join(), Ok(Ok(()))) {
            eprintln!("the database {} could not be dropped", self.name);
        }
    }
}

async fn execute(server: &str, sql: &str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(server).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await
}

/// The URL of a server's own database.
async fn server() -> String {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    match env::var(URL_VARIABLE) {
        Ok(url) => url,
        // It is never dropped: the guard ends it with this process.
        Err(_) => CLUSTER.get_or_init(async || Cluster::start(&guard::folder().join("postgres")).await).await.url(),
    }
}
