//! Publishing events to Redis Streams, beside the log.
//!
//! After the commit, never with it: the relay reads the log like any other reader and goes on from where it last was, so
//! that nothing is missed whatever dies in between. Where that is, Redis itself says, in `skald:relayed`: what it loses, it
//! forgets to have. One that is empty is given the newest events once more. Consumers know an event by its stream and
//! version, so what comes twice does no harm. The log stays the truth; Redis keeps the newest events only.
//!
//! Every replica relays the shards that it owns, so that each event is published once as long as nothing changes hands.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, RwLock},
    time::Duration,
};

use redis::{AsyncCommands as _, AsyncConnectionConfig, Client, aio::MultiplexedConnection, streams::StreamMaxlen};
use skald_core::ids::Shard;
use tokio::{sync::watch, time::Instant};

use crate::{
    api::{events::cloud_event::CloudEvent, problem::Problem},
    metrics::{Metrics, OperationResult, PublishTarget},
    storage::{
        Store, StoreError,
        log::{EventLog, LogFilter, LogPage, LogQuery},
    },
};

/// The name under which the database notes how far the relay is, for whoever removes events.
const BUS: &str = "redis";
/// A hash in Redis: up to which position it has been given each shard.
const RELAYED: &str = "skald:relayed";
/// Events published together.
const PAGE: u32 = 500;
/// How long to wait after a failure, and how old a look at who owns what may be.
const PAUSE: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What the relay works with.
#[derive(Debug)]
pub struct Parts {
    pub client: Client,
    /// Events that each stream keeps, about.
    pub keep: u64,
    /// Shards of the database; consumers read it from `skald:shards`.
    pub shards: u16,
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn EventLog>,
    /// The id under which this process owns shards.
    pub owner_id: String,
    /// Changes when this replica has committed, and ends with its engine.
    pub commits: watch::Receiver<u64>,
    pub metrics: Arc<Metrics>,
}

/// How publishing goes, for readiness.
#[derive(Clone, Debug, Default)]
pub struct BusHealth(Arc<RwLock<Option<String>>>);

impl BusHealth {
    /// Why nothing gets through at the moment, if nothing does.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.0.read().expect("nothing panics while it holds this lock").clone()
    }

    fn is(&self, trouble: Option<String>) {
        let mut seen = self.0.write().expect("nothing panics while it holds this lock");
        match (&*seen, &trouble) {
            (None, Some(trouble)) => tracing::warn!(trouble, "events cannot be published; trying again"),
            (Some(_), None) => tracing::info!("events are being published again"),
            _ => {}
        }
        *seen = trouble;
    }
}

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("an event cannot be shown: {0}")]
    Event(String),
}

impl From<Problem> for RelayError {
    fn from(problem: Problem) -> Self {
        Self::Event(problem.cause().unwrap_or_else(|| problem.detail()).to_owned())
    }
}

/// Relays for as long as the engine runs.
#[must_use]
pub fn run(parts: Parts) -> BusHealth {
    let health = BusHealth::default();
    let mut relay =
        Relay { parts, connection: None, owned: BTreeSet::new(), looked_at: None, relayed: BTreeMap::new() };
    let told = health.clone();
    tokio::spawn(async move { relay.run(&told).await });
    health
}

struct Relay {
    parts: Parts,
    connection: Option<MultiplexedConnection>,
    /// As of the last look.
    owned: BTreeSet<Shard>,
    looked_at: Option<Instant>,
    /// How far each owned shard has been published.
    relayed: BTreeMap<Shard, i64>,
}

impl Relay {
    async fn run(&mut self, health: &BusHealth) {
        // Marked before the log is read, so that nothing falls between.
        while self.parts.commits.has_changed().is_ok() {
            self.parts.commits.mark_unchanged();
            match self.step().await {
                Ok(more) => {
                    health.is(None);
                    if !more {
                        let _ = tokio::time::timeout(PAUSE, self.parts.commits.changed()).await;
                    }
                }
                Err(error) => {
                    let metrics = &self.parts.metrics.events;
                    metrics.publishing_ended(PublishTarget::Bus, Duration::ZERO, OperationResult::Failed);
                    health.is(Some(error.to_string()));
                    self.connection = None;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Publishes a page, and says whether there may be more.
    async fn step(&mut self) -> Result<bool, RelayError> {
        self.look().await?;
        if self.owned.is_empty() {
            return Ok(false);
        }
        let query =
            LogQuery { after: self.relayed.clone(), until: BTreeMap::new(), limit: PAGE, filter: LogFilter::default() };
        let LogPage { events, read_to, more } = self.parts.log.log(&query).await?;
        if !events.is_empty() {
            let count = events.len();
            let mut batch = redis::pipe();
            batch.atomic();
            let length = StreamMaxlen::Approx(usize::try_from(self.parts.keep).unwrap_or(usize::MAX));
            for event in events {
                let stream = format!("skald:events:{}", event.shard.0);
                let event = serde_json::to_string(&CloudEvent::try_from(event)?).expect("an event has string keys");
                batch.xadd_maxlen(stream, length, "*", &[("event", event)]).ignore();
            }
            for (shard, position) in &read_to {
                batch.hset(RELAYED, shard.0, position).ignore();
            }
            let begun = Instant::now();
            let () = batch.query_async(&mut self.connect().await?).await?;
            let metrics = &self.parts.metrics.events;
            metrics.publishing_ended(PublishTarget::Bus, begun.elapsed(), OperationResult::Done);
            metrics.relayed.inc_by(count as u64);
        }
        if read_to != self.relayed {
            self.parts.log.note_relayed(BUS, &read_to).await?;
            self.relayed = read_to;
        }
        Ok(more)
    }

    /// Looks now and then which shards are this replica's, and how far Redis has been given them.
    async fn look(&mut self) -> Result<(), RelayError> {
        if self.looked_at.is_some_and(|at| at.elapsed() < PAUSE) {
            return Ok(());
        }
        let shards = self.parts.store.shards().await?;
        let mine = |owner: &Option<String>| owner.as_deref() == Some(&*self.parts.owner_id);
        let owned: BTreeSet<Shard> = shards.into_iter().filter(|row| mine(&row.owner)).map(|row| row.shard).collect();
        let heads = self.parts.log.heads().await?;
        let head = |shard: &Shard| heads.get(shard).copied().unwrap_or(0);
        let keep = i64::try_from(self.parts.keep).unwrap_or(i64::MAX);
        let newest = |shard: &Shard| head(shard).saturating_sub(keep).max(0);
        let behind = |relayed: &BTreeMap<Shard, i64>| -> i64 {
            let place = |shard| relayed.get(shard).copied().unwrap_or(0).max(newest(shard));
            owned.iter().map(|shard| head(shard) - place(shard)).sum()
        };
        // First by what was known, for Redis may not answer.
        self.parts.metrics.events.relay_lag.set(behind(&self.relayed));
        let noted: BTreeMap<u16, i64> = self.connect().await?.hgetall(RELAYED).await?;
        let place = |shard: &Shard| noted.get(&shard.0).copied().unwrap_or_else(|| newest(shard));
        self.relayed = owned.iter().map(|shard| (*shard, place(shard))).collect();
        self.parts.metrics.events.relay_lag.set(behind(&self.relayed));
        self.owned = owned;
        self.looked_at = Some(Instant::now());
        Ok(())
    }

    async fn connect(&mut self) -> Result<MultiplexedConnection, RelayError> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let options = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let mut connection = self.parts.client.get_multiplexed_async_connection_with_config(&options).await?;
        // At every connection: it may be another Redis, and an empty one.
        let () = redis::cmd("SET").arg("skald:shards").arg(self.parts.shards).query_async(&mut connection).await?;
        self.connection = Some(connection.clone());
        Ok(connection)
    }
}
