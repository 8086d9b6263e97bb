//! Skald as its users start it, on a database of its own, and what it and its database count.

use std::{
    ffi::{OsStr, OsString},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;
use skald_figures::exposition;
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use crate::{
    harness::{cluster::Cluster, process::Process},
    http,
    load::{Asked, Request},
    order::{Ending, Order},
    usage::{Processes, Usage},
};

const DEFINITION: &str = include_str!("definition.yaml");
/// Of 16 MiB.
const LOG_FILES: usize = 60;
pub const CHECKOUT: &str = "bench-checkout";
/// Awaits the end of the saga.
pub const AWAITED: &str = "wait=60";
/// Does not.
pub const ASYNCHRONOUS: &str = "respond-async";
/// How long it may take to end.
const STOP_MAX: Duration = Duration::from_secs(30);
/// At the address of a server: any port.
const ANY_PORT: &str = "127.0.0.1:0";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Database {
    Postgres,
    Sqlite,
}

#[derive(Debug)]
pub struct Skald {
    // Before the database, so that it is gone when that is stopped.
    process: Process,
    url: String,
    server: Option<Server>,
    command: Vec<OsString>,
    folder: PathBuf,
}

/// What a start of Skald needs.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    pub program: &'a Path,
    /// Empty, or ours.
    pub folder: &'a Path,
    pub participants: &'a str,
    /// More text for the configuration file.
    pub config: &'a str,
}

/// A PostgreSQL, with a connection to ask it.
#[derive(Debug)]
struct Server {
    cluster: Cluster,
    asked: PgConnection,
    version: i32,
}

/// Since they began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub skald: Usage,
    pub commits: f64,
    pub transitions: f64,
    pub server: Option<ServerCounters>,
}

/// Of PostgreSQL.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerCounters {
    pub usage: Usage,
    pub log_bytes: u64,
    pub transactions: u64,
    pub log_flushes: u64,
}

impl Skald {
    /// Starts it on a fresh database and waits until it listens.
    pub async fn start(database: Database, setup: Setup<'_>) -> Result<Self> {
        let Setup { program, folder, participants, config } = setup;
        fs::create_dir_all(folder)?;
        let definitions = folder.join("definitions");
        fs::create_dir_all(&definitions)?;
        fs::write(definitions.join("bench-checkout.yaml"), DEFINITION)?;
        let services = ["catalog", "sales", "orders"];
        let sections = services.map(|name| format!("[participants.{name}]\nbase_url = \"{participants}/{name}\"\n\n"));
        let file = folder.join("skald.toml");
        fs::write(&file, sections.concat() + config)?;
        let (url, server) = match database {
            Database::Sqlite => (format!("sqlite:{}", folder.join("skald.db").display()), None),
            Database::Postgres => {
                let server = Server::start(&folder.join("postgres")).await?;
                (server.cluster.url(), Some(server))
            }
        };
        let words: [&OsStr; 9] = [
            program.as_ref(),
            "serve".as_ref(),
            "--database-url".as_ref(),
            url.as_ref(),
            "--config".as_ref(),
            file.as_ref(),
            "--definitions".as_ref(),
            definitions.as_ref(),
            "--listen".as_ref(),
        ];
        let command: Vec<OsString> = words.map(OsStr::to_owned).to_vec();
        let (process, url) = serve(&command, ANY_PORT, folder).await;
        Ok(Self { process, url, server, command, folder: folder.to_owned() })
    }

    /// Without a chance to finish anything.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it as who operates it would.
    pub async fn stop(&mut self) -> Result<()> {
        let status = self.process.terminate(STOP_MAX).await;
        ensure!(status.success(), "Skald ended with {status}");
        Ok(())
    }

    /// Starts it again on its database, at its address. Returns when it listens.
    pub async fn start_again(&mut self) {
        let listen = self.url.trim_start_matches("http://").to_owned();
        (self.process, self.url) = serve(&self.command, &listen, &self.folder).await;
    }

    /// Starts of a definition, to be answered so.
    pub fn starts(
        &self,
        definition: &str,
        prefer: &str,
        input: &impl Serialize,
        ending: Ending,
    ) -> Result<Arc<Request>> {
        let path = format!("/sagas/{definition}");
        let bytes = http::post(address(&self.url)?, &path, prefer, &serde_json::to_vec(input)?);
        Ok(Arc::new(Request { bytes, status: if ending == Ending::RUNNING { 202 } else { 201 }, ending }))
    }

    /// Nothing but this, however often.
    pub fn asked_for(&self, request: &Arc<Request>) -> Result<Asked> {
        Ok(Asked::Server(address(&self.url)?, [Arc::clone(request), Arc::clone(request)]))
    }

    /// The checkout that is measured.
    pub fn checkouts(&self) -> Result<Asked> {
        let [completed, declined] = Order::both().map(|order| self.starts(CHECKOUT, AWAITED, &order, order.ending()));
        Ok(Asked::Server(address(&self.url)?, [completed?, declined?]))
    }

    pub async fn register(&self, definition: &Value) -> Result<()> {
        let url = format!("{}/definitions/{}", self.url, definition["name"].as_str().context("it has no name")?);
        let answer = reqwest::Client::new().put(url).json(definition).send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "a definition was answered {status}: {}", answer.text().await?);
        Ok(())
    }

    /// The answer to a GET.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer = reqwest::get(format!("{}{path}", self.url)).await?;
        let status = answer.status();
        ensure!(status.is_success(), "{path} was answered {status}");
        Ok(answer.json().await?)
    }

    /// The sum of one of its metrics.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        Ok(exposition::sum(&self.metrics().await?, name, |_| true))
    }

    async fn metrics(&self) -> Result<String> {
        Ok(reqwest::get(format!("{}/metrics", self.url)).await?.text().await?)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn address(&self) -> Result<SocketAddr> {
        address(&self.url)
    }

    /// Has PostgreSQL write out what it would later, and keep the files of its log to use again.
    pub async fn check_point(&mut self) -> Result<()> {
        let Some(server) = &mut self.server else { return Ok(()) };
        server.asked.execute("CHECKPOINT").await?;
        Ok(())
    }

    /// Of Skald, and of PostgreSQL, without asking them for anything, which would cost them.
    pub fn usage(&self) -> Result<(Usage, Option<Usage>)> {
        let server = self.server.as_ref().map(|server| Processes::Family(server.cluster.pid).usage());
        Ok((Processes::One(self.process.pid()).usage()?, server.transpose()?))
    }

    pub async fn counters(&mut self) -> Result<Counters> {
        let metrics = self.metrics().await?;
        let sum = |name| exposition::sum(&metrics, name, |_| true);
        Ok(Counters {
            skald: Processes::One(self.process.pid()).usage()?,
            commits: sum("commit_batch_transitions_count"),
            transitions: sum("commit_batch_transitions_sum"),
            server: match &mut self.server {
                Some(server) => Some(server.counters().await?),
                None => None,
            },
        })
    }
}

async fn serve(command: &[OsString], listen: &str, folder: &Path) -> (Process, String) {
    let (program, words) = command.split_first().expect("a command begins with a program");
    let mut command = Command::new(program);
    // What is meant for the bench is no configuration.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SKALD_")) {
        command.env_remove(name);
    }
    let mut process = Process::start("skald", command.env("NO_COLOR", "1").args(words).arg(listen), folder);
    let url = process.url().await;
    (process, url)
}

/// Of a URL without a path.
pub fn address(url: &str) -> Result<SocketAddr> {
    url.trim_start_matches("http://").parse().with_context(|| format!("{url} names no address"))
}

/// Gives a new server what one has that has run for a while: files of the log to use again. One that must make each, in
/// the middle of a commit, stops everybody for some tens of milliseconds every 16 MiB.
async fn break_in(server: &mut PgConnection) -> Result<()> {
    server.execute("ALTER SYSTEM SET min_wal_size = '1GB'").await?;
    server.execute("ALTER SYSTEM SET max_wal_size = '4GB'").await?;
    server.execute("SELECT pg_reload_conf()").await?;
    for _ in 0..LOG_FILES {
        // A file in which nothing was written cannot be left.
        server.execute("SELECT pg_logical_emit_message(false, 'bench', ''), pg_switch_wal()").await?;
    }
    server.execute("CHECKPOINT").await?;
    Ok(())
}

impl Server {
    async fn start(folder: &Path) -> Result<Self> {
        let cluster = Cluster::start(folder).await;
        let mut asked = PgConnection::connect(&cluster.url()).await?;
        let version = sqlx::query_scalar("SELECT current_setting('server_version_num')::int / 10000");
        let version = version.fetch_one(&mut asked).await?;
        break_in(&mut asked).await?;
        Ok(Self { cluster, asked, version })
    }

    /// Bytes and transactions are those of this moment; the flushes a server counts it tells of up to a second later.
    async fn counters(&mut self) -> Result<ServerCounters> {
        let flushes = if self.version >= 18 {
            "SELECT sum(fsyncs)::bigint FROM pg_stat_io WHERE object = 'wal'"
        } else {
            "SELECT wal_sync FROM pg_stat_wal"
        };
        let row = sqlx::query(
            "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint, \
             pg_snapshot_xmax(pg_current_snapshot())::text::bigint",
        );
        let row = row.fetch_one(&mut self.asked).await?;
        let count = |value: i64| u64::try_from(value).unwrap_or(0);
        let log_flushes: i64 = sqlx::query_scalar(flushes).fetch_one(&mut self.asked).await?;
        Ok(ServerCounters {
            usage: Processes::Family(self.cluster.pid).usage()?,
            log_bytes: count(row.try_get(0)?),
            transactions: count(row.try_get(1)?),
            log_flushes: count(log_flushes),
        })
    }
}
