//! A throwaway PostgreSQL cluster, started at the first need and shared by all tests of this process; a database of its
//! own for each that asks. It syncs to disk like a real one.

use std::{
    env, fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use sqlx::{Connection, PgConnection};
use tokio::sync::OnceCell;

use super::{
    eventually, guard,
    postgres_binaries::{self, URL_VARIABLE, VERSION_MIN},
};

const START_MAX: Duration = Duration::from_secs(60);
const SETTINGS: &[&str] = &["listen_addresses=127.0.0.1", "max_connections=400", "fsync=on", "shared_buffers=128MB"];

/// A database of one test; it goes with its owner.
#[derive(Debug)]
pub struct OwnDatabase {
    name: String,
    server: String,
}

impl OwnDatabase {
    /// Creates it on the shared cluster, or on the server that the environment names.
    pub async fn create(purpose: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("skald_e2e_{}_{number}_{purpose}", std::process::id());
        let server = server().await;
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
    static SERVER: OnceCell<String> = OnceCell::const_new();
    let start = async || match env::var(URL_VARIABLE) {
        Ok(url) => url,
        Err(_) => start(&guard::folder().join("postgres")).await,
    };
    SERVER.get_or_init(start).await.clone()
}

/// Starts a cluster in `folder`; it ends with this process. Gives the URL of its own database.
#[expect(clippy::zombie_processes, reason = "it runs until we end, and then the guard sees to it")]
async fn start(folder: &Path) -> String {
    let programs = postgres_binaries::find().unwrap_or_else(|| {
        panic!("no PostgreSQL {VERSION_MIN} or newer is installed: run `cargo xtask test`, which sees to it")
    });
    fs::create_dir(folder).expect("the folder is ours");
    let owner = Owner::of_cluster(folder);
    let data = folder.join("data");
    let mut initdb = owner.command(&programs.join("initdb"));
    initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "-D"]).arg(&data);
    let output = initdb.output().expect("initdb can be started");
    assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));

    let port = free_port();
    let log = fs::File::create(folder.join("log")).expect("the folder is ours");
    let mut postgres = owner.command(&programs.join("postgres"));
    postgres.arg("-D").arg(&data).arg("-p").arg(port.to_string()).arg("-k").arg(folder);
    postgres.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
    let errors = log.try_clone().expect("a file handle can be cloned");
    let postgres = postgres.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("postgres can be started");
    guard::watch("QUIT", postgres.id());

    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    eventually("PostgreSQL takes connections", START_MAX, async || {
        PgConnection::connect(&url).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    url
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there are free ports");
    listener.local_addr().expect("it is bound").port()
}

/// As whom PostgreSQL runs: as root it refuses to.
#[derive(Debug)]
enum Owner {
    Ourselves,
    UserPostgres,
}

impl Owner {
    fn of_cluster(folder: &Path) -> Self {
        if !postgres_binaries::is_root() {
            return Self::Ourselves;
        }
        let owned = Command::new("chown").arg("postgres").arg(folder).status();
        assert!(owned.is_ok_and(|status| status.success()), "as root, the tests run PostgreSQL as the user `postgres`");
        Self::UserPostgres
    }

    fn command(&self, program: &PathBuf) -> Command {
        match self {
            Self::Ourselves => Command::new(program),
            Self::UserPostgres => {
                // Unlike su and runuser, it becomes the program instead of starting it: the process is ours to end.
                let mut command = Command::new("setpriv");
                command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program).current_dir("/");
                command
            }
        }
    }
}
