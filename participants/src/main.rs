//! `skald-participant`: one demo service as a process.

use std::{net::TcpListener, path::PathBuf, process::ExitCode, str::FromStr, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use skald_kit::SigningSecrets;
use skald_participants::{
    ApiKey, Kind, Service, ServiceOptions, SkaldOptions, SmtpOptions, Worker, WorkerKind, WorkerOptions,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    signal::unix::{Signal, SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

/// Requests are made of many small values that one thread allocates and another frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whoever asks asks again.
const HEALTHCHECK_TIME_MAX: Duration = Duration::from_secs(5);
const HEALTHCHECK_ANSWER_MAX: u64 = 4096;

/// One of Skald's demo services, catalog, sales or orders; or a worker beside them, which lives on Skald's events: audit,
/// notification or views.
#[derive(Debug, Parser)]
#[command(name = "skald-participant", version)]
struct Arguments {
    /// catalog, sales, orders, audit, notification or views
    service: Program,
    /// Where to listen; port 0 takes any free one, which is then printed.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// sqlite:PATH (created when missing) or postgres://USER@HOST/DATABASE
    #[arg(long, env = "SKALD_PARTICIPANT_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Do not serve, but ask the service that listens there whether it is alive: for images that have no shell.
    #[arg(long)]
    healthcheck: bool,
    /// Offer GET and PUT /faults, to make things go wrong on purpose.
    #[arg(long)]
    faults: bool,
    /// Threads that serve HTTP.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Catalog: how long stock stays reserved past its saga's deadline, e.g. 24h, 10m, 5s, 200ms.
    #[arg(long, default_value = "24h", value_parser = parse_duration)]
    hold_grace: Duration,
    /// Catalog: how often to look for reservations whose time is up.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    sweep_every: Duration,
    /// How long idempotency keys are kept, e.g. 720h; for ever unless given.
    #[arg(long, value_parser = parse_duration)]
    key_retention: Option<Duration>,
    /// Skald's URL, e.g. http://127.0.0.1:7070, or those of several replicas, separated by commas: a service takes part in its choreographed sagas, a worker needs its events.
    #[arg(long)]
    skald_url: Option<String>,
    /// A key that Skald knows, if it needs one.
    #[arg(long, env = "SKALD_API_KEY", hide_env_values = true)]
    skald_api_key: Option<String>,
    /// A file that holds that key.
    #[arg(long, env = "SKALD_API_KEY_FILE", conflicts_with = "skald_api_key")]
    skald_api_key_file: Option<PathBuf>,
    /// Where to take events from: redis://HOST, or Skald itself unless given.
    #[arg(long, requires = "skald_url")]
    bus: Option<String>,
    /// Refuse calls that are not signed with one of these secrets (whsec_ and base64), separated by commas.
    #[arg(long, env = "SKALD_PARTICIPANT_SIGNING_SECRETS", hide_env_values = true)]
    signing_secrets: Option<String>,
    /// Notification: where to send messages, smtp://USER:PASSWORD@HOST:PORT, without user or port if there is none; they only go to a table unless given.
    #[arg(long, env = "SKALD_PARTICIPANT_SMTP", hide_env_values = true)]
    smtp: Option<String>,
    /// Notification: whom messages come from.
    #[arg(long, default_value = "Skald demo <noreply@localhost>")]
    smtp_from: String,
}

impl Arguments {
    /// Where Skald is, and what to show it.
    fn skald(&self) -> anyhow::Result<Option<SkaldOptions>> {
        let Some(url) = &self.skald_url else { return Ok(None) };
        let key = match (&self.skald_api_key, &self.skald_api_key_file) {
            (Some(key), _) => Some(key.clone()),
            (None, Some(path)) => {
                Some(std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?)
            }
            (None, None) => None,
        };
        let api_key = key.as_deref().map(ApiKey::new).transpose()?;
        Ok(Some(SkaldOptions { api_key, bus: self.bus.clone(), ..SkaldOptions::new(url) }))
    }
}

/// What to run.
#[derive(Debug, Clone, Copy)]
enum Program {
    Service(Kind),
    Worker(WorkerKind),
}

impl FromStr for Program {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let worker = |_| text.parse().map(Self::Worker);
        text.parse()
            .map(Self::Service)
            .or_else(worker)
            .map_err(|_| "there are catalog, sales and orders, and audit, notification and views")
    }
}

fn main() -> ExitCode {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,actix_server=warn,sqlx=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(arguments)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skald-participant: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let listen = &arguments.listen;
    if arguments.healthcheck {
        return ask(listen).await;
    }
    let listener = TcpListener::bind(listen).map_err(|error| anyhow::anyhow!("cannot listen on {listen}: {error}"))?;
    match arguments.service {
        Program::Service(kind) => serve(kind, listener, arguments).await,
        Program::Worker(kind) => work(kind, listener, arguments).await,
    }
}

/// Who listens on every address is asked on this machine's own.
async fn ask(listen: &str) -> anyhow::Result<()> {
    let address = listen.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]");
    let asking = async {
        let mut stream = TcpStream::connect(&address).await?;
        stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(HEALTHCHECK_ANSWER_MAX).read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        anyhow::ensure!(answer.split(' ').nth(1) == Some("200"), "it answers {}", answer.lines().next().unwrap_or(""));
        Ok(())
    };
    let asked = tokio::time::timeout(HEALTHCHECK_TIME_MAX, asking).await.unwrap_or_else(|late| Err(late.into()));
    asked.with_context(|| format!("no good answer from {address}/livez"))
}

async fn serve(kind: Kind, listener: TcpListener, arguments: Arguments) -> anyhow::Result<()> {
    let skald = arguments.skald()?;
    let Arguments { database_url, faults, workers, hold_grace, sweep_every, key_retention, signing_secrets, .. } =
        arguments;
    let secrets = |text: String| SigningSecrets::new(text.split(',')).context("--signing-secrets");
    let signing = signing_secrets.map(secrets).transpose()?;
    anyhow::ensure!(!sweep_every.is_zero(), "--sweep-every must not be zero");
    let mut terminate = signal(SignalKind::terminate())?;
    let options = ServiceOptions {
        faults,
        workers: usize::from(workers),
        hold_grace,
        sweep_every,
        key_retention,
        signing,
        skald,
        ..ServiceOptions::new(listener, database_url)
    };
    let service = Service::start(kind, options).await?;
    println!("{kind} listening on {}", service.base_url());
    asked_to_stop(&mut terminate).await?;
    service.stop().await;
    Ok(())
}

async fn work(kind: WorkerKind, listener: TcpListener, arguments: Arguments) -> anyhow::Result<()> {
    let Some(skald) = arguments.skald()? else { anyhow::bail!("{kind} needs --skald-url") };
    let Arguments { database_url, workers, smtp, smtp_from, .. } = arguments;
    let mut terminate = signal(SignalKind::terminate())?;
    let options = WorkerOptions {
        listener,
        database_url,
        skald,
        smtp: smtp.map(|url| SmtpOptions { url, from: smtp_from }),
        http_threads: usize::from(workers),
    };
    let worker = Worker::start(kind, options).await?;
    println!("{kind} listening on {}", worker.base_url());
    asked_to_stop(&mut terminate).await?;
    worker.stop().await;
    Ok(())
}

async fn asked_to_stop(terminate: &mut Signal) -> anyhow::Result<()> {
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    Ok(())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| "a duration is a number and a unit, e.g. 200ms, 5s, 10m, 24h".to_owned())?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("the unit is ms, s, m or h".to_owned()),
    };
    number.checked_mul(ms).map(Duration::from_millis).ok_or_else(|| "the duration is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("200ms"), Ok(Duration::from_millis(200)));
        for bad in ["", "h", "5", "5d", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
