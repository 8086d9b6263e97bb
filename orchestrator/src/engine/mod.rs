//! The shell around the core: it commits what the core decides, calls whom the core says, and keeps the shards leased.
//!
//! [`shell`] is one task that owns the [`Writer`](skald_core::shard::writer::Writer) and carries out its effects; in it,
//! [`leases`] takes, renews and gives back shards, [`census`] counts sagas, and [`history`] keeps what is waited for. [`definitions`] is the registry that it reads.
//! Requests reach the shell through [`Engine`], over a bounded channel: a client that leaves cancels only its own wait.

mod census;
pub mod definitions;
mod history;
mod leases;
mod observe;
mod shell;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use skald_core::{
    decide::{Callback, Input, OperatorCommand, Reported},
    ids::SagaId,
    shard::{
        appends::{AppendRequest, Appended},
        writer::{Limits, Load, Refusal, StartRequest},
    },
    state::{SagaRow, Status},
    time::Millis,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinError,
};

use self::definitions::Definitions;
pub use self::history::History;
use crate::{
    clock::Clock,
    dispatch::Participants,
    metrics::Metrics,
    spans::Spans,
    storage::{Owner, Store},
};

/// How the process exits when the engine failed by a bug: `EX_SOFTWARE` of `sysexits.h`.
const EXIT_ENGINE_FAILED: i32 = 70;

/// What the engine works with.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub participants: Arc<dyn Participants>,
    pub clock: Arc<dyn Clock>,
    pub definitions: Arc<Definitions>,
    pub metrics: Arc<Metrics>,
    pub owner: Owner,
    pub spans: Spans,
    pub limits: Limits,
    pub lease: Millis,
    /// How long the calls of a shard may go on when it is handed to another replica.
    pub grace: Millis,
    /// Requests that may wait for the shell.
    pub requests_max: usize,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("owner", &self.owner).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// How far a saga is, as of the last commit made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub version: u64,
    pub status: Status,
}

/// How the engine is, for readiness.
#[derive(Clone, Debug, Default)]
pub struct Health {
    pub load: Load,
    /// Why nothing can be committed at the moment.
    pub stalled: Option<String>,
    pub stopping: bool,
    /// No start would be taken.
    pub is_full: bool,
}

/// The way to the running engine; cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    requests: mpsc::Sender<Request>,
    health: Arc<RwLock<Health>>,
    commits: watch::Receiver<u64>,
    stopped: watch::Receiver<bool>,
}

type Answer = Result<SagaRow, Refusal>;

/// A saga that began, as it was when it had been waited for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Started {
    pub row: SagaRow,
    /// Its whole stream up to the row, if all of it was committed here while somebody waited.
    #[serde(skip)]
    pub history: Option<History>,
}

impl From<SagaRow> for Started {
    fn from(row: SagaRow) -> Self {
        Self { row, history: None }
    }
}

#[derive(Debug)]
enum Request {
    Start { request: Box<StartRequest>, reply: Reply },
    Input { saga: SagaId, input: Box<Input>, reply: Reply },
    Append { request: AppendRequest, reply: AppendReply },
    Watch { saga: SagaId, progress: watch::Sender<Option<Progress>> },
    Stop { grace: Duration },
}

type AppendReply = oneshot::Sender<Result<Appended, Refusal>>;

/// Where an answer goes, and where what was committed of the saga once it has settled, if that is waited for.
#[derive(Debug)]
struct Reply {
    answer: oneshot::Sender<Answer>,
    settled: Option<oneshot::Sender<History>>,
}

impl Engine {
    /// Starts the engine's tasks. They end after [`Engine::stop`].
    #[must_use]
    pub fn run(parts: Parts) -> Self {
        let (requests, inbox) = mpsc::channel(parts.requests_max);
        let health = Arc::new(RwLock::new(Health::default()));
        let (stopped_sender, stopped) = watch::channel(false);
        let (committed, commits) = watch::channel(0);
        let shell = shell::Shell::new(parts, Arc::clone(&health), committed);
        tokio::spawn(async move {
            let ended = tokio::spawn(shell.run(inbox)).await;
            end_on_panic(ended, |code| std::process::exit(code));
            stopped_sender.send_replace(true);
        });
        Self { requests, health, commits, stopped }
    }

    /// Starts a saga. Answers once it is durable; with `wait`, once it has ended, is parked, or that time has passed,
    /// with the row as it then is.
    ///
    /// # Errors
    ///
    /// When the start was not accepted. Nothing exists then, except perhaps after `InDoubt`.
    pub async fn start(&self, request: StartRequest, wait: Option<Duration>) -> Result<Started, Refusal> {
        let (answer, answered) = oneshot::channel();
        let (settled, history) = oneshot::channel();
        let reply = Reply { answer, settled: wait.map(|_| settled) };
        self.send(Request::Start { request: Box::new(request), reply })?;
        // Who waits for the end is not woken for the beginning; a refusal ends the wait.
        if let Some(wait) = wait
            && let Ok(Ok(history)) = tokio::time::timeout(wait, history).await
            && let Some(started) = history.into_started()
        {
            return Ok(started);
        }
        received(answered).await.map(Started::from)
    }

    /// Applies an operator's command; answers once it is durable.
    ///
    /// # Errors
    ///
    /// When the command does not fit the saga's state, or this replica cannot take it.
    pub async fn operate(&self, saga: SagaId, command: OperatorCommand) -> Answer {
        self.input(saga, Input::Operator(command)).await
    }

    /// Takes a participant's word for how an accepted operation ended; answers once it is durable.
    ///
    /// # Errors
    ///
    /// When the operation is not under way and did not end that way, or this replica cannot take it.
    pub async fn callback(&self, saga: SagaId, callback: Callback) -> Answer {
        self.input(saga, Input::Callback(callback)).await
    }

    /// Takes participants' word for how their operations of a choreographed saga ended; answers once it is durable.
    ///
    /// # Errors
    ///
    /// When a report does not fit the saga's state, or this replica cannot take it; with `Known` when nothing in it is new.
    pub async fn report(&self, saga: SagaId, reported: Reported) -> Answer {
        self.input(saga, Input::Reported(reported)).await
    }

    /// Appends to a stream that is no saga; answers once the events are durable, or were before.
    ///
    /// # Errors
    ///
    /// When the stream does not fit the request, or this replica cannot take it. Nothing was written then, except perhaps
    /// after `InDoubt`.
    pub async fn append(&self, request: AppendRequest) -> Result<Appended, Refusal> {
        self.ask(|reply| Request::Append { request, reply }).await
    }

    /// Counts the commits of this replica that were applied: who reads the log at its end waits for the next one. Those
    /// of other replicas are not counted. Ends with the engine.
    #[must_use]
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    /// Tells of every commit of the saga made here from now on; ends when the saga does. Commits of other replicas
    /// are not heard.
    pub async fn watch(&self, saga: SagaId) -> watch::Receiver<Option<Progress>> {
        let (progress, receiver) = watch::channel(None);
        // A stopped engine drops the sender, which the receiver sees as the end.
        let _ = self.requests.send(Request::Watch { saga, progress }).await;
        receiver
    }

    #[must_use]
    pub fn health(&self) -> Health {
        self.health.read().expect("nothing panics while it holds this lock").clone()
    }

    /// Takes no more work, lets calls in flight end within `grace`, commits what they said, gives the shards back.
    pub async fn stop(&self, grace: Duration) {
        let _ = self.requests.send(Request::Stop { grace }).await;
        let _ = self.stopped.clone().wait_for(|stopped| *stopped).await;
    }

    /// Whether a start would be refused now. Costs next to nothing, and keeps nobody.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.health.read().expect("nothing panics while it holds this lock").is_full
    }

    async fn input(&self, saga: SagaId, input: Input) -> Answer {
        let input = Box::new(input);
        self.ask(|answer| Request::Input { saga, input, reply: Reply { answer, settled: None } }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Request) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.send(request(answer))?;
        received(answered).await
    }

    fn send(&self, request: Request) -> Result<(), Refusal> {
        self.requests.try_send(request).map_err(|_| Refusal::Overloaded)
    }
}

async fn received<T>(answer: oneshot::Receiver<Result<T, Refusal>>) -> Result<T, Refusal> {
    answer.await.unwrap_or(Err(Refusal::NotOwner))
}

/// A process whose engine died must not look alive: others take its shards when its leases run out.
fn end_on_panic(ended: Result<(), JoinError>, exit: impl FnOnce(i32)) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "the engine failed: ending the process, so that other replicas take over");
        exit(EXIT_ENGINE_FAILED);
    }
}

/// Whether waiting longer is pointless: it ended, or only an operator can move it on.
#[must_use]
pub const fn is_settled(status: Status) -> bool {
    status.is_ended() || matches!(status, Status::Parked)
}
