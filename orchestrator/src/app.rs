//! What the API answers from.
//!
//! Handlers run on the server's own threads, where a client that leaves takes its handler with it. So nothing that
//! touches the database runs there: [`App::read`] carries it to its end on the runtime that the connections belong to.

mod sagas;
mod sealed;
mod server;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use skald_core::{definition::Definition, time::Millis};
use tokio::{runtime::Handle, sync::watch, time::Instant};

pub use self::{
    sagas::saga_removed,
    server::{ServeOptions, serve},
};
use crate::{
    access::Access,
    api::{
        self,
        cursor::Cursors,
        events::stats::Seen,
        heads::Heads,
        pauses::Pauses,
        problem::{Code, Problem},
    },
    audit::{Act, Recorder},
    bus::BusHealth,
    clock::Clock,
    config,
    dispatch::CallbackTokens,
    engine::{Engine, definitions::Definitions},
    forward::{self, Router},
    metrics::Metrics,
    personal::Sealing,
    storage::{
        Owner, Store, StoreError,
        groups::ConsumerGroups,
        log::{EventLog, tail::Tail},
        retention::Retention,
    },
    webhooks,
};

/// No read of the database is waited for longer.
const READ_TIME_MAX: Duration = Duration::from_secs(10);
/// How often definitions that another replica registered are looked for.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// How a participant does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParticipantHealth {
    pub name: String,
    /// `closed`, `half_open` or `open`.
    pub circuit: &'static str,
    pub paused: bool,
    pub in_flight: i64,
    pub waiting: i64,
}

/// The participants, as far as operators look at them and pause them.
pub trait Gate: Send + Sync + std::fmt::Debug + 'static {
    /// Calls of this participant wait from now on. False: there is none of that name.
    fn pause(&self, name: &str) -> bool;
    /// Undoes [`Gate::pause`].
    fn resume(&self, name: &str) -> bool;
    /// All participants, by name.
    fn health(&self) -> Vec<ParticipantHealth>;
}

/// What an [`App`] is made of.
#[derive(Debug)]
pub struct AppParts {
    pub engine: Engine,
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn EventLog>,
    pub groups: Arc<dyn ConsumerGroups>,
    pub retention: Arc<dyn Retention>,
    pub webhooks: Arc<webhooks::registry::Registry>,
    /// None: events are published nowhere.
    pub bus: Option<BusHealth>,
    pub definitions: Arc<Definitions>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    pub tokens: CallbackTokens,
    pub sealing: Arc<Sealing>,
    pub gate: Arc<dyn Gate>,
    /// This process, as it owns shards.
    pub owner: Owner,
    /// How long a shard is owned without renewal.
    pub lease: Millis,
    /// How long a request waits for an owner of its shard that answers.
    pub patience: Duration,
    /// Shards of the database.
    pub shards: u16,
    /// [`Store::secret`]; it signs cursors and requests between replicas.
    pub secret: [u8; 32],
    pub access: config::Access,
    /// Of a request's body.
    pub body_bytes_max: usize,
    /// How long a start waits for the saga's end when the client does not say.
    pub wait: Duration,
}

/// Everything a handler needs.
#[derive(Debug)]
pub struct App {
    parts: AppParts,
    access: Access,
    router: Router,
    runtime: Handle,
    cursors: Cursors,
    pauses: Pauses,
    heads: Heads,
    events_seen: Seen,
    published: api::openapi::Published,
    reloaded: tokio::sync::Mutex<Option<Instant>>,
    closing: watch::Sender<bool>,
}

impl App {
    /// Must be called on the runtime that the store's connections belong to. Reads the pauses and applies them, and
    /// goes on doing so until [`App::close`].
    ///
    /// # Errors
    ///
    /// When the store cannot be read, or other replicas could not be called.
    pub async fn open(parts: AppParts) -> anyhow::Result<Arc<Self>> {
        let (closing, closed) = watch::channel(false);
        let pauses = Pauses::follow(Arc::clone(&parts.store), Arc::clone(&parts.gate), closed.clone()).await?;
        let heads = Heads::follow(Arc::clone(&parts.store), parts.owner.id.clone(), closed.clone());
        let access = Access::follow(&parts.access, &parts.store, &parts.clock, &closed).await?;
        let router = Router::new(forward::Parts {
            engine: parts.engine.clone(),
            store: Arc::clone(&parts.store),
            clock: Arc::clone(&parts.clock),
            metrics: Arc::clone(&parts.metrics),
            owner: parts.owner.clone(),
            secret: parts.secret,
            shards: parts.shards,
            lease: parts.lease,
            patience: parts.patience,
            closing: closed,
        })?;
        Ok(Arc::new(Self {
            router,
            access,
            cursors: Cursors::new(&parts.secret),
            parts,
            runtime: Handle::current(),
            pauses,
            heads,
            events_seen: Seen::default(),
            published: api::openapi::Published::default(),
            reloaded: tokio::sync::Mutex::default(),
            closing,
        }))
    }

    /// From now on nobody is kept waiting: streams end, starts answer at once. To be called before the server stops.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    #[must_use]
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// The way to whichever engine must carry a request out.
    #[must_use]
    pub const fn router(&self) -> &Router {
        &self.router
    }

    /// This replica's own engine.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.parts.engine
    }

    /// Who may ask for what.
    #[must_use]
    pub const fn access(&self) -> &Access {
        &self.access
    }

    /// Carries out an act between two entries of the audit log, or not at all.
    ///
    /// # Errors
    ///
    /// When its beginning cannot be recorded, or as it ends itself.
    pub async fn recorded<T>(
        &self,
        act: Act,
        carry_out: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let (store, clock) = (Arc::clone(&self.parts.store), Arc::clone(&self.parts.clock));
        let recorder = Recorder { store, clock, runtime: self.runtime.clone() };
        let recording = self.ask(recorder.begin(act)).await?;
        let result = carry_out.await;
        recording.end(result.as_ref().err().map(|problem| problem.code().as_str())).await;
        result
    }

    #[must_use]
    pub fn definitions(&self) -> &Definitions {
        &self.parts.definitions
    }

    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.parts.clock
    }

    #[must_use]
    pub const fn tokens(&self) -> &CallbackTokens {
        &self.parts.tokens
    }

    #[must_use]
    pub const fn sealing(&self) -> &Arc<Sealing> {
        &self.parts.sealing
    }

    #[must_use]
    pub fn gate(&self) -> &dyn Gate {
        &*self.parts.gate
    }

    /// The id under which this process owns shards.
    #[must_use]
    pub fn owner_id(&self) -> &str {
        &self.parts.owner.id
    }

    #[must_use]
    pub const fn shards(&self) -> u16 {
        self.parts.shards
    }

    #[must_use]
    pub const fn body_bytes_max(&self) -> usize {
        self.parts.body_bytes_max
    }

    #[must_use]
    pub const fn wait(&self) -> Duration {
        self.parts.wait
    }

    #[must_use]
    pub const fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    #[must_use]
    pub const fn pauses(&self) -> &Pauses {
        &self.pauses
    }

    #[must_use]
    pub const fn heads(&self) -> &Heads {
        &self.heads
    }

    /// How publishing events goes, if they are published.
    #[must_use]
    pub const fn bus(&self) -> Option<&BusHealth> {
        self.parts.bus.as_ref()
    }

    /// How many events there were when somebody asked.
    #[must_use]
    pub const fn events_seen(&self) -> &Seen {
        &self.events_seen
    }

    /// The specification with the definitions known now, as text.
    #[must_use]
    pub fn specification(&self) -> Bytes {
        self.published.text(&self.definitions().all())
    }

    /// Runs work to its end, whether or not the client stays.
    ///
    /// # Errors
    ///
    /// When the work panicked.
    pub async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Problem> {
        self.runtime.spawn(work).await.map_err(Problem::internal)
    }

    /// Asks the store, to the end even if the client leaves, and not for longer than is worth waiting.
    ///
    /// # Errors
    ///
    /// When the database does not answer, or not in time.
    pub async fn read<T, F>(&self, ask: impl FnOnce(Arc<dyn Store>) -> F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.ask(ask(Arc::clone(&self.parts.store))).await
    }

    /// What this process itself committed lately.
    #[must_use]
    pub fn tail(&self) -> Tail {
        self.parts.log.tail().clone()
    }

    /// [`App::read`], of the log.
    ///
    /// # Errors
    ///
    /// When the database does not answer, or not in time.
    pub async fn read_log<T, F>(&self, ask: impl FnOnce(Arc<dyn EventLog>) -> F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.ask(ask(Arc::clone(&self.parts.log))).await
    }

    /// [`App::read`], of the consumer groups, which it may change.
    ///
    /// # Errors
    ///
    /// When the database does not answer, or not in time.
    pub async fn groups<T, F>(&self, ask: impl FnOnce(Arc<dyn ConsumerGroups>) -> F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.ask(ask(Arc::clone(&self.parts.groups))).await
    }

    /// [`App::read`], of the webhooks, which it may change.
    ///
    /// # Errors
    ///
    /// When the database does not answer, or not in time.
    pub async fn webhooks<T, F>(&self, ask: impl FnOnce(Arc<webhooks::registry::Registry>) -> F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.ask(ask(Arc::clone(&self.parts.webhooks))).await
    }

    /// What of the webhooks needs no database.
    #[must_use]
    pub fn webhook_registry(&self) -> &webhooks::registry::Registry {
        &self.parts.webhooks
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, Problem> {
        match tokio::time::timeout(READ_TIME_MAX, self.detached(work)).await {
            Ok(answer) => answer?.map_err(|error| store_problem(&error)),
            Err(_) => Err(unavailable().caused_by(format!("no answer within {READ_TIME_MAX:?}"))),
        }
    }

    /// The definition, its highest version if none is named; also one that another replica registered meanwhile.
    ///
    /// # Errors
    ///
    /// When there is none, or the store cannot be asked for it.
    pub async fn definition(&self, name: &str, version: Option<u32>) -> Result<Arc<Definition>, Problem> {
        if let Some(known) = self.definitions().get(name, version) {
            return Ok(known);
        }
        self.reload_definitions().await?;
        self.definitions().get(name, version).ok_or_else(|| {
            let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            let detail = match version {
                Some(version) => format!("There is no definition {name} version {version}."),
                None => format!("There is no definition {name}."),
            };
            Problem::new(Code::DefinitionNotFound, detail)
        })
    }

    /// Looks for definitions that another replica registered, if that was not just done.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn reload_definitions(&self) -> Result<(), Problem> {
        let mut reloaded = self.reloaded.lock().await;
        if reloaded.is_some_and(|at| at.elapsed() < RELOAD_INTERVAL) {
            return Ok(());
        }
        *reloaded = Some(Instant::now());
        let definitions = Arc::clone(&self.parts.definitions);
        self.read(|_| async move { definitions.load().await }).await
    }
}

fn unavailable() -> Problem {
    Problem::new(Code::DatabaseUnavailable, "The database does not answer. Nothing was changed.").retry_after(1)
}

/// What a failure of the store means to a client.
#[must_use]
pub fn store_problem(error: &StoreError) -> Problem {
    match error {
        StoreError::Unavailable(_) | StoreError::Open(_) => unavailable().caused_by(error.to_string()),
        StoreError::Url | StoreError::NotMigrated(_) | StoreError::TooNew(_) | StoreError::Unreadable(_) => {
            Problem::internal(error)
        }
    }
}
