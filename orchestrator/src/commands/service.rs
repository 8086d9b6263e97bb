//! Puts the service together from its configuration, and takes it down again in order.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use backon::{ExponentialBuilder, Retryable as _};
use sha2::{Digest as _, Sha256};
use skald_core::shard::writer::Limits;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::{
    access,
    app::{self, App, AppParts, Gate, ServeOptions},
    bus::{self, BusHealth},
    clock::DatabaseClock,
    config::{self, Config},
    dispatch::{CallbackTokens, Circuit, Context as CallContext, HttpParticipants, ParticipantHealth},
    engine::{
        Engine, Parts,
        definitions::{Definitions, RegisterError},
    },
    hex,
    metrics::Metrics,
    neighbours::{Neighbours, Sign},
    personal::{SealedCalls, Sealing},
    retention::{self, Retain},
    spans::{Exporting, Spans},
    storage::{self, Owner, Storage, Store, StoreError, StoreOptions},
    webhooks::{self, guard::Guard, registry::Registry},
};

/// Streams at once that one read loads.
const LOAD_MAX: usize = 128;
/// A saga with nothing to do for longer leaves the memory.
const IDLE_MAX: skald_core::time::Millis = skald_core::time::Millis(2_000);
/// Requests that may wait for the engine's task.
const REQUESTS_MAX: usize = 10_000;
const CONNECTIONS_MAX: usize = 25_000;
/// Beyond the lease, what a successor may need to take a shard and read what is unfinished in it.
const TAKEOVER_TIME_MAX: Duration = Duration::from_secs(5);
const CLOCK_SYNC_EVERY: Duration = Duration::from_secs(30);

/// A running service.
pub struct Service {
    addr: SocketAddr,
    is_tls: bool,
    app: Arc<App>,
    engine: Engine,
    grace: Duration,
    sign: Option<Sign>,
    exporting: Exporting,
    server: actix_web::dev::ServerHandle,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Service {
    /// Opens the database, registers definitions, takes what shards it can and serves. `bundled` are definitions that
    /// are registered beside the configured folders'.
    pub async fn start(config: &Config, listener: TcpListener, bundled: &[&str]) -> anyhow::Result<Self> {
        let addr = listener.local_addr()?;
        let database = open_store(config).await?;
        let store: Arc<dyn Store> = Arc::clone(&database) as _;
        check_openness(config, addr, &*store).await?;
        let clock = follow_clock(&store).await?;
        let secret = store.secret().await?;
        let metrics = Arc::new(Metrics::new());
        let tokens = callback_tokens(config, &secret)?;
        let replica = Uuid::new_v4().to_string();
        let (spans, exporting) = Spans::open(&config.traces, &replica, &metrics)?;
        let context = CallContext { clock: clock.clone(), tokens: tokens.clone(), spans: spans.clone() };
        let participants = Arc::new(HttpParticipants::new(&config.participants, context, &metrics)?);
        let sealing = Arc::new(Sealing::new(Arc::clone(&store), &secret));
        let sealed = SealedCalls::new(participants.clone(), Arc::clone(&sealing), clock.clone());
        let definitions = definitions(config, &store, &clock, bundled).await?;
        let shards = u16::try_from(store.shards().await?.len()).context("the database has too many shards")?;
        let owner = Owner { id: replica, url: Some(advertised_url(config, addr)) };
        let sign = take_over_from_the_dead(&*store, &secret, &owner.id).await?;
        let engine = Engine::run(Parts {
            store: Arc::clone(&store),
            participants: Arc::new(sealed),
            clock: clock.clone(),
            definitions: Arc::clone(&definitions),
            metrics: Arc::clone(&metrics),
            owner: owner.clone(),
            spans,
            limits: limits(&config.engine, shards),
            lease: config.database.lease,
            // No longer than who asks for something of the shard waits for its next owner.
            grace: config.server.shutdown_grace.min(config.database.lease),
            requests_max: REQUESTS_MAX,
        });
        let bus = config.bus.url.as_ref().map(|url| -> anyhow::Result<BusHealth> {
            Ok(bus::run(bus::Parts {
                client: redis::Client::open(url.reveal()).with_context(|| format!("bus.url: {url}"))?,
                keep: config.bus.keep,
                shards,
                store: Arc::clone(&store),
                log: Arc::clone(&database) as _,
                owner_id: owner.id.clone(),
                commits: engine.commits(),
                metrics: Arc::clone(&metrics),
            }))
        });
        let bus = bus.transpose()?;
        let app = App::open(AppParts {
            engine: engine.clone(),
            store: Arc::clone(&store),
            log: Arc::clone(&database) as _,
            groups: Arc::clone(&database) as _,
            retention: Arc::clone(&database) as _,
            webhooks: Arc::new(Registry::new(
                Arc::clone(&database) as _,
                Arc::clone(&database) as _,
                secret,
                Guard { private: config.webhooks.allow_private },
            )),
            bus,
            definitions,
            metrics: Arc::clone(&metrics),
            clock,
            tokens,
            sealing,
            gate: participants,
            owner,
            lease: config.database.lease,
            patience: Duration::from_millis(config.database.lease.0) + TAKEOVER_TIME_MAX,
            shards,
            secret,
            access: config.access.clone(),
            body_bytes_max: config.server.body_max.0,
            wait: Duration::from_millis(config.server.wait.0),
        })
        .await?;
        webhooks::follow(Arc::clone(&app), Duration::from_millis(config.webhooks.timeout.0))?;
        if let Some((age, folder)) = config.retention.age.zip(config.retention.archive.clone()) {
            let holder = Uuid::new_v4().to_string();
            let categories = config.retention.streams.clone();
            let retain = Retain { store: database, folder, age, categories, holder, dry_run: false, metrics };
            let interval = Duration::from_millis(config.retention.interval.0);
            tokio::spawn(retention::follow(retain, interval, app.closing()));
        }
        let workers = config.server.workers.map_or_else(workers, usize::from);
        let grace = Duration::from_millis(config.server.shutdown_grace.0);
        let connections_max = super::files::connections(CONNECTIONS_MAX);
        let tls = config.server.tls.as_ref().map(|files| super::tls::serving(files, app.closing())).transpose()?;
        let cors_origins = config.access.cors_origins.clone();
        let options = ServeOptions { workers, connections_max, stop_grace: grace, tls, cors_origins };
        let server = app::serve(listener, Arc::clone(&app), options)?;
        let handle = server.handle();
        let is_tls = config.server.tls.is_some();
        Ok(Self { addr, is_tls, app, engine, grace, sign, exporting, server: handle, serving: tokio::spawn(server) })
    }

    /// Whether it speaks TLS.
    pub const fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Takes no more work, lets running calls end within the grace, commits what they said and gives the shards back.
    pub async fn stop(self) {
        self.app.close();
        tokio::join!(self.server.stop(true), self.engine.stop(self.grace));
        match self.serving.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the HTTP server ended with an error"),
            Err(error) => tracing::error!(%error, "the HTTP server's task failed"),
        }
        self.exporting.stop().await;
        drop(self.sign);
    }
}

/// Lets nobody in from elsewhere by mistake: as long as no key is needed, whoever reaches the address may do everything.
async fn check_openness(config: &Config, addr: SocketAddr, store: &dyn Store) -> anyhow::Result<()> {
    if config.access.jwt.is_some() || access::has_keys(store).await? {
        return Ok(());
    }
    if addr.ip().is_loopback() {
        tracing::info!(
            "no key is needed on {addr}, which only this machine reaches; the first `skald keys create` changes that"
        );
    } else if config.access.insecure {
        tracing::warn!("INSECURE: whoever reaches {addr} may do everything; `skald keys create` changes that");
    } else {
        bail!(
            "refusing to listen on {addr}, which others reach, while no key is needed: make a key with `skald keys create \
             --name NAME --role admin`, or listen on 127.0.0.1, or allow it with --insecure (access.insecure)"
        );
    }
    Ok(())
}

impl Gate for HttpParticipants {
    fn pause(&self, name: &str) -> bool {
        Self::pause(self, name)
    }

    fn resume(&self, name: &str) -> bool {
        self.unpause(name)
    }

    fn health(&self) -> Vec<app::ParticipantHealth> {
        let health = |participant: ParticipantHealth| app::ParticipantHealth {
            name: participant.name,
            circuit: match participant.circuit {
                Circuit::Closed => "closed",
                Circuit::HalfOpen => "half_open",
                Circuit::Open => "open",
            },
            paused: participant.paused,
            in_flight: participant.in_flight,
            waiting: participant.waiting,
        };
        Self::health(self).into_iter().map(health).collect()
    }
}

/// Where other replicas reach this one.
fn advertised_url(config: &Config, addr: SocketAddr) -> String {
    if let Some(url) = &config.server.advertised_url {
        return url.trim_end_matches('/').to_owned();
    }
    let scheme = if config.server.tls.is_some() { "https" } else { "http" };
    if !addr.ip().is_unspecified() {
        return format!("{scheme}://{addr}");
    }
    // On SQLite every other replica is on this machine.
    if !config.database.url.reveal().starts_with("sqlite:") {
        tracing::warn!(
            "listening on {addr}, which is no address to reach this replica by: other replicas on other machines cannot \
             forward requests to it; set server.advertised_url"
        );
    }
    let loopback: IpAddr = if addr.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    format!("{scheme}://{}", SocketAddr::new(loopback, addr.port()))
}

/// The engine's threads have all processors; half as many are enough for requests and answers, and threads that wake each
/// other up cost more than they do. A single one would get too small a share of a machine under overload, and who is to be
/// refused at once would wait in front of it.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, |processors| processors.get().div_ceil(2).max(2))
}

fn limits(engine: &config::Engine, shards: u16) -> Limits {
    Limits {
        shards,
        resident_max: engine.max_running as usize,
        batch_max: engine.commit_batch_max as usize,
        queue_max: engine.commit_queue_max as usize,
        load_max: LOAD_MAX,
        idle_max: IDLE_MAX,
        recovery_ramp: engine.recovery_ramp,
        takeovers_max: engine.takeovers_max,
    }
}

/// Opens the store, giving a database that is just starting a minute.
pub(super) async fn open_store(config: &Config) -> anyhow::Result<Arc<dyn Storage>> {
    let options =
        StoreOptions { readers: config.database.readers, shards: config.database.shards, lease: config.database.lease };
    let url = config.database.url.reveal();
    let open = || async {
        let store = storage::open(url, &options).await?;
        if config.database.migrate {
            store.migrate().await?;
        }
        store.check_schema().await?;
        Ok::<_, StoreError>(store)
    };
    let patience = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(5))
        .with_max_times(15);
    let store = open
        .retry(patience)
        .when(|error| matches!(error, StoreError::Unavailable(_)))
        .notify(|error, pause| tracing::warn!(%error, ?pause, "the database is not there yet; trying again"))
        .await?;
    Ok(store)
}

/// Ends the leases of replicas that died on this machine, and says that this one lives. Without a folder to write to, leases
/// have to run out.
async fn take_over_from_the_dead(store: &dyn Store, secret: &[u8; 32], id: &str) -> anyhow::Result<Option<Sign>> {
    let neighbours = Neighbours::of(&hex::encode(&Sha256::digest(secret)[..8]));
    let sign = match neighbours.announce(id) {
        Ok(sign) => sign,
        Err(error) => {
            tracing::info!(%error, "no file tells of this replica's death: a successor will wait for its lease");
            return Ok(None);
        }
    };
    for dead in neighbours.dead()? {
        tracing::info!(replica = dead, "a replica died on this machine; its leases end");
        store.bury(&dead).await?;
        neighbours.forget(&dead);
    }
    Ok(Some(sign))
}

async fn follow_clock(store: &Arc<dyn Store>) -> anyhow::Result<Arc<DatabaseClock>> {
    let clock = Arc::new(DatabaseClock::starting_at(store.now().await?));
    let (store, following) = (Arc::clone(store), Arc::downgrade(&clock));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(CLOCK_SYNC_EVERY).await;
            let Some(clock) = following.upgrade() else { return };
            let asked = Instant::now();
            match store.now().await {
                Ok(now) => clock.sync(now, asked),
                Err(error) => tracing::debug!(%error, "the database's clock cannot be read; going by the last reading"),
            }
        }
    });
    Ok(clock)
}

fn callback_tokens(config: &Config, secret: &[u8; 32]) -> anyhow::Result<CallbackTokens> {
    let Some(source) = &config.server.callback_secret else { return Ok(CallbackTokens::new(secret)) };
    match source.read() {
        Ok(secret) => Ok(CallbackTokens::new(secret.reveal().as_bytes())),
        Err((key, problem)) => bail!("server.callback_secret.{key} {problem}"),
    }
}

/// What is registered already, what is bundled, and what the configured folders hold.
async fn definitions(
    config: &Config,
    store: &Arc<dyn Store>,
    clock: &Arc<DatabaseClock>,
    bundled: &[&str],
) -> anyhow::Result<Arc<Definitions>> {
    let services = config.participants.keys().cloned().collect();
    let definitions = Arc::new(Definitions::new(Arc::clone(store), clock.clone(), services));
    definitions.load().await?;
    for text in bundled {
        register(&definitions, "a bundled definition", text).await?;
    }
    for folder in &config.definitions.folders {
        for (path, text) in definition_files(folder)? {
            register(&definitions, &path, &text).await?;
        }
    }
    tracing::info!(count = definitions.all().len(), "definitions are known");
    Ok(definitions)
}

fn definition_files(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read the definitions in {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml" | "json")) {
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(path.display().to_string(), text);
        }
    }
    Ok(files)
}

async fn register(definitions: &Definitions, place: &str, text: &str) -> anyhow::Result<()> {
    match definitions.register(text).await {
        Ok(_) => Ok(()),
        Err(RegisterError::Invalid(problems)) => {
            let list: Vec<String> = problems.0.iter().map(|problem| format!("\n  {problem}")).collect();
            bail!("{place} is not a valid definition:{}", list.concat())
        }
        Err(error) => Err(error).with_context(|| place.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_reached_where_it_says_or_else_where_it_listens() {
        let config = |url: Option<&str>| {
            let server = config::Server { advertised_url: url.map(str::to_owned), ..config::Server::default() };
            Config { server, ..Config::default() }
        };
        for (given, listening, url) in [
            (Some("https://skald-1:8443/"), "0.0.0.0:8080", "https://skald-1:8443"),
            (None, "192.0.2.1:8080", "http://192.0.2.1:8080"),
            (None, "0.0.0.0:8080", "http://127.0.0.1:8080"),
            (None, "[::]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(advertised_url(&config(given), listening.parse().unwrap()), url, "{given:?} {listening}");
        }
    }
}
