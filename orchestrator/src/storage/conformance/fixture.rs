//! Databases for tests: a file of its own, or a database of its own on a server of the test process.
//!
//! The PostgreSQL server is the one that `SKALD_TEST_POSTGRES_URL` names, else one that the first test starts in a
//! temporary folder and that goes down with the process: a shell waits for the process's end of a pipe to close.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use skald_core::time::Millis;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

use super::super::{Storage, StoreOptions, open};

/// A lease that does not end during a test.
pub const LEASE: Millis = Millis(60_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

/// An empty database, and ways to look behind the store's back.
#[derive(Debug)]
pub struct Database {
    pub backend: Backend,
    pub url: String,
    /// Removes the file at the end of the test.
    _folder: Option<tempfile::TempDir>,
}

impl Database {
    pub async fn create(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("sqlite:{}", folder.path().join("skald.db").display());
                Self { backend, url, _folder: Some(folder) }
            }
            Backend::Postgres => Self { backend, url: create_postgres_database().await, _folder: None },
        }
    }

    /// Opens the database as a process of its own would.
    pub async fn open(&self, shards: u16) -> Arc<dyn Storage> {
        let options = StoreOptions { readers: 2, shards, lease: Millis(5000) };
        open(&self.url, &options).await.unwrap()
    }

    /// Opens and migrates it.
    pub async fn migrated(&self, shards: u16) -> Arc<dyn Storage> {
        let store = self.open(shards).await;
        store.migrate().await.unwrap();
        store
    }

    /// Runs SQL as an operator could, past the store.
    pub async fn execute(&self, sql: &str) -> Result<(), sqlx::Error> {
        match self.backend {
            Backend::Sqlite => {
                let mut connection = SqliteConnection::connect(&self.url).await?;
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
                connection.close().await
            }
            Backend::Postgres => {
                let mut connection = PgConnection::connect(&self.url).await?;
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
                connection.close().await
            }
        }
    }

    /// Asks for text, past the store. One column; every row a line.
    pub async fn query(&self, sql: &str) -> String {
        let lines: Vec<Option<String>> = match self.backend {
            Backend::Sqlite => {
                let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap()
            }
            Backend::Postgres => {
                let mut connection = PgConnection::connect(&self.url).await.unwrap();
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap()
            }
        };
        lines.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join("\n")
    }
}

async fn create_postgres_database() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let (server, options) = server_url();
    let name = format!("skald_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut connection = PgConnection::connect(&format!("{server}/postgres{options}")).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    format!("{server}/{name}{options}")
}

/// The server's URL before and after the name of a database.
fn server_url() -> (String, String) {
    if let Ok(url) = std::env::var("SKALD_TEST_POSTGRES_URL") {
        let (url, options) = url.split_once('?').map_or((url.as_str(), String::new()), |(u, o)| (u, format!("?{o}")));
        let authority = url.find("://").map_or(0, |scheme| scheme + 3);
        let end = url[authority..].find('/').map_or(url.len(), |slash| authority + slash);
        return (url[..end].to_owned(), options);
    }
    static SERVER: OnceLock<Server> = OnceLock::new();
    let folder = &SERVER.get_or_init(Server::start).folder;
    ("postgres://postgres@localhost".to_owned(), format!("?host={}", folder.display()))
}

/// A throwaway server; its folder holds the socket too. Statistics change only when a test says so, and plans with them.
#[derive(Debug)]
struct Server {
    folder: PathBuf,
    /// Its standard input is what keeps the server alive. Never dropped: it lives in a static.
    _guard: Child,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("skald-pg-").tempdir().unwrap().keep();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
        let script = format!(
            "trap '' INT HUP TERM
             cd {folder}
             {bin}/initdb -D data -U postgres -A trust -E UTF8 --locale=C --no-sync >initdb.log 2>&1 &&
             {bin}/pg_ctl -D data -l server.log -w -t 60 \
                 -o \"-k {folder} -c listen_addresses='' -c fsync=off -c autovacuum=off -c max_connections=300\" start >start.log 2>&1 &&
             echo ready
             cat >/dev/null
             {bin}/pg_ctl -D data -m immediate stop >/dev/null 2>&1
             cd / && rm -rf {folder}",
            folder = folder.display(),
            bin = server_programs().display(),
        );
        let mut command = if is_root() {
            chown(&folder, Some(postgres_id("-u")), Some(postgres_id("-g"))).unwrap();
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "sh", "-c", &script]);
            command
        } else {
            let mut command = Command::new("sh");
            command.args(["-c", &script]);
            command
        };
        let mut guard = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready", "PostgreSQL did not start: see {}", folder.display());
        Self { folder, _guard: guard }
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn postgres_id(which: &str) -> u32 {
    let output = Command::new("id").args([which, "postgres"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Where `initdb` is: on the path, or where Debian puts it.
fn server_programs() -> PathBuf {
    let on_path =
        std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path().join("bin"));
    let found = on_path.chain(debian).find(|folder: &PathBuf| Path::new(folder).join("initdb").exists());
    found.expect("PostgreSQL's server programs are needed: install them or set SKALD_TEST_POSTGRES_URL")
}
