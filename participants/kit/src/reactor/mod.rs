//! The reactor: a participant's part in choreographed sagas, which nobody conducts.
//!
//! It follows the sagas' streams, derives from each what this service owes ([`skald_core::choreography`]) and does it
//! through the service's own operations, under the usual keys and behind the [`Barrier`]: effect, answer and outgoing
//! report are one local transaction, and the report's event id is the operation's key.
//!
//! | what happens | what follows |
//! | --- | --- |
//! | an event comes | it is folded; what is owed and was not done is done |
//! | an event comes again, late, or after a gap | old ones are skipped; a gap is read from Skald |
//! | an operation cannot be done now | the saga is written down in `saga_unfinished` and looked at again, after growing pauses |
//! | the process dies | what it did is in the outbox; what it did not do is derived again |
//! | the store refuses a report that an action took effect | the effect is undone, and nobody is told |
//!
//! Different sagas are handled at once. What is known of a saga is kept while there is room, and read anew when not.

mod duty;
mod refusals;
mod sagas;
mod unfinished;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};

use self::{
    sagas::{Known, Sagas},
    unfinished::{Unfinished, Why},
};
use crate::{
    answer::Answer,
    backoff::Backoff,
    barrier::{Barrier, Tell},
    bus::{Delivery, Filter, Settled, Source},
    call::CallContext,
    events::Client,
    gate::Gate,
    intake::{Handler, Intake, IntakeOptions},
    observer::{Handled, Observer},
    outbox::Refusals,
};

/// Says what is told of an answer before it is stored.
pub type Teller = Arc<dyn Fn(&Answer) -> Tell + Send + Sync>;

/// A call of an operation from within the service.
#[derive(Debug, Clone)]
pub struct LocalCall {
    pub context: CallContext,
    pub method: &'static str,
    /// As it would be in a request, with its query if it has one.
    pub path: String,
    pub body: Vec<u8>,
}

/// The operations of a service, as over HTTP.
#[async_trait]
pub trait Operations: Send + Sync + 'static {
    /// Carries out a call by [`Barrier::run_telling`]; a path that is none of an operation is answered 404.
    async fn carry_out(&self, call: LocalCall, tell: Teller) -> Answer;
}

/// What a [`Reactor`] is made of.
pub struct ReactorOptions {
    /// What definitions call this service.
    pub service: String,
    pub barrier: Barrier,
    pub operations: Arc<dyn Operations>,
    pub client: Client,
    pub observer: Arc<dyn Observer>,
    pub intake: IntakeOptions,
}

/// A reactor that is ready to start. Its database needs a [`Relay`](crate::outbox::Relay) with its
/// [`refusals`](Reactor::refusals), or nobody hears of what it does.
///
/// ```no_run
/// use std::sync::Arc;
/// use skald_kit::bus::{GroupOptions, HttpGroup};
/// use skald_kit::outbox::{Relay, RelayOptions};
/// use skald_kit::reactor::{Operations, Reactor, ReactorOptions};
/// use skald_kit::{Barrier, IntakeOptions, Unobserved, events::Client};
///
/// # async fn example(barrier: Barrier, operations: Arc<dyn Operations>) -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::new("http://127.0.0.1:7070")?;
/// let reactor = Reactor::new(ReactorOptions {
///     service: "catalog".to_owned(), // what definitions call this service
///     barrier: barrier.clone(),
///     operations, // your implementation of `Operations`: finds the handler by method and path
///     client: client.clone(),
///     observer: Arc::new(Unobserved),
///     intake: IntakeOptions::default(),
/// })
/// .await?;
/// let relay = Relay::start(
///     barrier.db().clone(), client.clone(), reactor.refusals(), Arc::new(Unobserved), RelayOptions::default(),
/// )
/// .await?;
/// let group = GroupOptions { filter: Reactor::filter(), ..GroupOptions::new("reactor-catalog", "this-process") };
/// let reacting = reactor.start(Arc::new(HttpGroup::new(client, group)));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Reactor {
    core: Arc<Core>,
    intake: IntakeOptions,
}

/// A reactor at work. Dropped, it stops at once.
#[derive(Debug)]
pub struct Reacting {
    tasks: Vec<JoinHandle<()>>,
    stopping: watch::Sender<bool>,
}

/// After so long what is done for a saga counts as slow: its events are settled, and it is written down.
const SLOW_AFTER: Duration = Duration::from_secs(2);
/// Sagas that are slow at once, before others have to wait for them.
const SLOW_MAX: usize = 500;

/// A saga whose turn does not come within this time is stuck: something is broken.
const TURN_PATIENCE: Duration = Duration::from_secs(3600);

struct Core {
    service: String,
    consumer: String,
    means: Arc<Means>,
    observer: Arc<dyn Observer>,
    sagas: Sagas,
    unfinished: Unfinished,
    /// One look at a saga at a time.
    turns: Arc<Gate>,
    slow: Arc<Semaphore>,
}

/// What duties are fulfilled with.
struct Means {
    barrier: Barrier,
    operations: Arc<dyn Operations>,
}

/// Why something that is owed was not done.
#[derive(Debug)]
struct NotNow {
    reason: String,
    /// Not to be tried again before.
    after: Option<Duration>,
}

impl Reactor {
    /// Creates the table of unfinished sagas when it is missing.
    ///
    /// # Errors
    /// The database's.
    pub async fn new(options: ReactorOptions) -> sqlx::Result<Self> {
        let ReactorOptions { service, barrier, operations, client, observer, intake } = options;
        let unfinished = Unfinished::open(barrier.db().clone()).await?;
        let consumer = format!("reactor-{service}");
        let (sagas, turns, slow) = (Sagas::new(client), Arc::default(), Arc::new(Semaphore::new(SLOW_MAX)));
        let means = Arc::new(Means { barrier, operations });
        let core = Core { service, consumer, means, observer, sagas, unfinished, turns, slow };
        Ok(Self { core: Arc::new(core), intake })
    }

    /// The events that a reactor must see.
    #[must_use]
    pub fn filter() -> Filter {
        Filter { categories: vec!["saga".to_owned()], mode: Some("choreographed"), ..Filter::default() }
    }

    /// What the outbox's relay must do about reports that the store refuses.
    #[must_use]
    pub fn refusals(&self) -> Arc<dyn Refusals> {
        self.core.clone()
    }

    /// Takes events from a source with [`Reactor::filter`].
    #[must_use]
    pub fn start(self, source: Arc<dyn Source>) -> Reacting {
        let (stopping, stop) = watch::channel(false);
        let intake = Intake::new(source, Arc::new(Looking(self.core.clone())), self.intake);
        let tasks = vec![
            tokio::spawn(intake.run(stop.clone())),
            tokio::spawn(async move { unfinished::look_again(self.core, stop).await }),
        ];
        Reacting { tasks, stopping }
    }
}

impl Reacting {
    /// Lets what is being done end, for a second or two at most.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        for task in std::mem::take(&mut self.tasks) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a reactor panicked");
            }
        }
    }
}

impl Drop for Reacting {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The reactor as the handler of its events.
struct Looking(Arc<Core>);

impl Handler for Looking {
    fn not_polled(&self) {
        self.0.observer.not_polled(&self.0.consumer);
    }

    /// Whatever comes of it, the events are done: what is owed is derived from the stream, and remembered if it could not
    /// be done.
    async fn handle(&self, deliveries: Vec<Delivery>) -> Vec<Settled> {
        let Some(first) = deliveries.first() else { return Vec::new() };
        let begun = Instant::now();
        let (core, stream) = (self.0.clone(), first.event.stream.clone());
        let (looking, at, came) = (core.clone(), stream.clone(), deliveries.clone());
        let mut look = Box::pin(async move { looking.look_and_note(&at, &came, false).await });
        if tokio::time::timeout(SLOW_AFTER, &mut look).await.is_err() {
            // What is slow must not outlast the lease of its events: the saga is written down, which does as well.
            match core.slow.clone().try_acquire_owned() {
                Ok(permit) => {
                    core.remember(&stream, Why::Slow).await;
                    tokio::spawn(async move {
                        look.await;
                        drop(permit);
                    });
                }
                Err(_) => look.await,
            }
        }
        let handled = Handled { settled: &Settled::Done, took: begun.elapsed() };
        deliveries.iter().for_each(|Delivery { event, .. }| core.observer.consumed(&core.consumer, event, &handled));
        vec![Settled::Done; deliveries.len()]
    }
}

impl Core {
    /// Looks at a saga, and writes down whether it must be looked at again.
    async fn look_and_note(&self, stream: &str, deliveries: &[Delivery], anew: bool) {
        match self.look(stream, deliveries, anew).await {
            Ok(()) => self.unfinished.finished(stream).await,
            Err(not_now) => {
                self.observer.put_off(&self.consumer);
                self.remember(stream, Why::NotNow(not_now)).await;
            }
        }
    }

    /// Takes in what came, and does what is owed by then. `anew`: reads what the store has first, and relies on nothing
    /// that was done before.
    async fn look(&self, stream: &str, deliveries: &[Delivery], anew: bool) -> Result<(), NotNow> {
        let turn = self.turns.enter(stream, TURN_PATIENCE).await;
        let _turn = turn.ok_or_else(|| NotNow::because("another look at the saga does not end"))?;
        let mut known = self.sagas.catch_up(stream, deliveries, anew).await?;
        let result = self.fulfil(&mut known).await;
        self.sagas.keep(stream, known);
        result
    }

    /// Does everything that the service owes a saga and has not done yet.
    async fn fulfil(&self, known: &mut Known) -> Result<(), NotNow> {
        let duties = known.saga.follower.duties(&self.service);
        let owed = duties.into_iter().filter(|duty| !known.done.contains(&(duty.step().into(), duty.operation())));
        // Steps side by side do not wait for one another.
        let ends = join_all(owed.map(async |duty| {
            let name = (duty.step().into(), duty.operation());
            (name, duty::fulfil(&self.means, &known.saga, duty).await)
        }))
        .await;
        let mut result = Ok(());
        for (name, end) in ends {
            match end {
                Ok(()) => drop(known.done.insert(name)),
                Err(not_now) => result = Err(not_now),
            }
        }
        result
    }

    /// Remembers a saga that is to be looked at again, for as long as it takes.
    async fn remember(&self, stream: &str, why: Why) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        while let Err(error) = self.unfinished.put(stream, &why).await {
            tracing::warn!(%error, stream, "what is unfinished can't be written down now");
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

impl NotNow {
    fn because(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), after: None }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("service", &self.service).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ReactorOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReactorOptions").field("service", &self.service).finish_non_exhaustive()
    }
}
