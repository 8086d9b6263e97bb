//! Databases for tests: an SQLite file, or a database on a PostgreSQL server.
//!
//! The server is `SKALD_TEST_POSTGRES_URL` when that is set, and else a throwaway one that starts
//! with the first test that needs it and ends with the test process.

#![expect(clippy::unwrap_used, reason = "test support fails by panicking")]

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

/// An empty database of its own for one test.
#[derive(Debug)]
pub struct TestDatabase {
    pub url: String,
    _folder: Option<tempfile::TempDir>,
    on_a_lasting_server: Option<String>,
}

impl TestDatabase {
    pub async fn create(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("sqlite:{}", folder.path().join("test.db").display());
                Self { url, _folder: Some(folder), on_a_lasting_server: None }
            }
            Backend::Postgres => {
                static NEXT: AtomicU32 = AtomicU32::new(0);
                let name = format!("skald_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
                let server = tokio::task::spawn_blocking(server_url).await.unwrap();
                execute(&server, format!("CREATE DATABASE {name}")).await;
                let lasting = std::env::var("SKALD_TEST_POSTGRES_URL").is_ok();
                Self { url: with_database(&server, &name), _folder: None, on_a_lasting_server: lasting.then_some(name) }
            }
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some(name) = self.on_a_lasting_server.take() else { return };
        // `Drop` can't await, and the test's own runtime may be the only one.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(execute(&server_url(), format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
        });
        if dropped.join().is_err() {
            eprintln!("a test database is left behind");
        }
    }
}

async fn execute(server: &str, sql: String) {
    let mut conn = PgConnection::connect(server).await.unwrap();
    sqlx::query(AssertSqlSafe(sql)).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

fn with_database(url: &str, database: &str) -> String {
    let (address, options) = url.split_once('?').map_or((url, String::new()), |(a, o)| (a, format!("?{o}")));
    let (scheme, rest) = address.split_once("://").unwrap();
    let host = rest.split_once('/').map_or(rest, |(host, _)| host);
    format!("{scheme}://{host}/{database}{options}")
}

/// Waits until the server is up.
fn server_url() -> String {
    static SERVER: OnceLock<Server> = OnceLock::new();
    std::env::var("SKALD_TEST_POSTGRES_URL").unwrap_or_else(|_| SERVER.get_or_init(Server::start).url.clone())
}

/// The shell that keeps a PostgreSQL server until its standard input ends, which happens when this
/// process ends, in whatever way.
struct Server {
    url: String,
    _shell: Child,
}

const KEEP_SERVER: &str = r#"
set -eu
trap '' INT
PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)"
dir=$(mktemp -d /tmp/skald-postgres-XXXXXX)
initdb --pgdata="$dir/data" --username=postgres --auth=trust --no-sync >"$dir/log" 2>&1
pg_ctl --pgdata="$dir/data" --wait --log="$dir/log" \
    -o "-k $dir -c listen_addresses= -c fsync=off -c max_connections=400" start >/dev/null </dev/null
echo "$dir"
cat >/dev/null
pg_ctl --pgdata="$dir/data" --mode=immediate stop >/dev/null
rm -rf "$dir"
"#;

impl Server {
    fn start() -> Self {
        // PostgreSQL refuses to run as root.
        let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        let mut command = if root { Command::new("runuser") } else { Command::new("sh") };
        if root {
            command.args(["-u", "postgres", "--", "sh"]);
        }
        let mut shell = command
            .args(["-c", KEEP_SERVER])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut folder = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut folder).unwrap();
        assert!(!folder.is_empty(), "PostgreSQL did not start; is it installed?");
        Self { url: format!("postgres://postgres@localhost/postgres?host={}", folder.trim()), _shell: shell }
    }
}
