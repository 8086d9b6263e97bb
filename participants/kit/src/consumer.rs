//! A consumer: has a handler applied to each event, with one effect per event.
//!
//! Sources deliver at least once. The consumer writes into `saga_consumed` how far it has applied each stream, in the
//! handler's own transaction: an event that comes again is skipped, and a crash leaves both or neither.
//!
//! | the delivery is | from a source in order | from one that is not |
//! | --- | --- | --- |
//! | not after what was applied | skipped | skipped |
//! | the next one | applied | applied |
//! | later than the next one | applied: the filter left something out | what is missing is read from Skald and applied first |
//!
//! A stream whose event failed waits: its later events fail with it, and all are delivered again. Other streams go on.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::{sync::watch, task::JoinHandle};

use crate::{
    answer::Failure,
    bus::{Delivery, Settled, Source},
    db::Db,
    events::{Client, Event},
    intake::{Handler, Intake, IntakeOptions},
    observer::{Handled, Observer},
    params,
    recent::Recent,
    tx::{Tx, TxFuture},
};

/// Streams whose place is remembered; of others it is looked up.
const REMEMBERED: usize = 10_000;

/// What a [`Consumer`] is made of.
#[derive(Debug)]
pub struct ConsumerOptions {
    /// Under this name it keeps its place in the database.
    pub name: String,
    pub db: Db,
    pub source: Arc<dyn Source>,
    /// For what a source that is not in order has left out.
    pub client: Client,
    pub observer: Arc<dyn Observer>,
    pub intake: IntakeOptions,
}

/// A running consumer. Dropped, it stops at once; what it had not settled is delivered again.
///
/// ```no_run
/// use std::sync::Arc;
/// use skald_kit::bus::{GroupOptions, HttpGroup};
/// use skald_kit::{Consumer, ConsumerOptions, IntakeOptions, Unobserved, events::Client, params};
///
/// # async fn example(db: skald_kit::Db) -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::new("http://127.0.0.1:7070")?;
/// let options = ConsumerOptions {
///     name: "audit".to_owned(),
///     db,
///     source: Arc::new(HttpGroup::new(client.clone(), GroupOptions::new("audit", "this-process"))),
///     client,
///     observer: Arc::new(Unobserved),
///     intake: IntakeOptions::default(),
/// };
/// let consumer = Consumer::start(options, |tx, event| {
///     Box::pin(async move {
///         let sql = "INSERT INTO audit (id, type, stream) VALUES ($1, $2, $3)";
///         Ok(tx.execute(sql, params![&event.id, &event.type_name, &event.stream]).await.map(drop)?)
///     })
/// })
/// .await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Consumer {
    task: JoinHandle<()>,
    stopping: watch::Sender<bool>,
}

impl Consumer {
    /// Starts to apply `handler` to the source's events, each in a transaction. `Err(Failure::Rejected(..))` says that
    /// no further try would help: the event goes to the dead letters; any other error is tried again.
    ///
    /// # Errors
    /// The database's.
    pub async fn start<H>(options: ConsumerOptions, handler: H) -> sqlx::Result<Self>
    where
        H: for<'a> Fn(&'a mut Tx, Arc<Event>) -> TxFuture<'a, ()> + Send + Sync + 'static,
    {
        let ConsumerOptions { name, db, source, client, observer, intake } = options;
        db.create(TABLES).await?;
        let (stopping, stop) = watch::channel(false);
        let seen = Mutex::new(Recent::new(REMEMBERED));
        let applier =
            Applier { name: name.into(), db, source: source.clone(), client, observer, seen, apply: Arc::new(handler) };
        let intake = Intake::new(source, Arc::new(applier), intake);
        Ok(Self { task: tokio::spawn(intake.run(stop)), stopping })
    }

    /// Lets what is being handled end, for a second or two at most.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "a consumer panicked");
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const TABLES: &[&str] = &["CREATE TABLE IF NOT EXISTS saga_consumed (
         consumer TEXT NOT NULL, stream TEXT NOT NULL, version BIGINT NOT NULL, PRIMARY KEY (consumer, stream)
     )"];

struct Applier<H> {
    name: Arc<str>,
    db: Db,
    source: Arc<dyn Source>,
    client: Client,
    observer: Arc<dyn Observer>,
    /// The version up to which a stream was applied or left out; only for sources that are not in order.
    seen: Mutex<Recent<String, u64>>,
    apply: Arc<H>,
}

impl<H> Handler for Applier<H>
where
    H: for<'a> Fn(&'a mut Tx, Arc<Event>) -> TxFuture<'a, ()> + Send + Sync + 'static,
{
    fn not_polled(&self) {
        self.observer.not_polled(&self.name);
    }

    async fn handle(&self, deliveries: Vec<Delivery>) -> Vec<Settled> {
        let mut all = Vec::with_capacity(deliveries.len());
        let mut failed: Option<u64> = None;
        for Delivery { event, .. } in deliveries {
            let begun = Instant::now();
            let settled = match failed {
                Some(version) => Settled::Failed(format!("version {version} of the stream failed before it")),
                None => match self.deliver(&event).await {
                    Ok(()) => Settled::Done,
                    Err(failure) => {
                        failed = Some(event.version);
                        tracing::warn!(consumer = &*self.name, stream = event.stream, event.version, %failure, "an event failed");
                        match failure {
                            Failure::Rejected(_) => Settled::Poison(failure.to_string()),
                            Failure::Unavailable { .. } | Failure::Database(_) => Settled::Failed(failure.to_string()),
                        }
                    }
                },
            };
            let handled = Handled { settled: &settled, took: begun.elapsed() };
            self.observer.consumed(&self.name, &event, &handled);
            all.push(settled);
        }
        all
    }
}

impl<H> Applier<H>
where
    H: for<'a> Fn(&'a mut Tx, Arc<Event>) -> TxFuture<'a, ()> + Send + Sync + 'static,
{
    async fn deliver(&self, event: &Arc<Event>) -> Result<(), Failure> {
        if self.source.in_order() {
            return self.apply(event).await;
        }
        let seen = self.seen().take(&event.stream);
        let known = match seen {
            Some(known) => known,
            None => self.applied(&event.stream).await?,
        };
        if event.version > known + 1 {
            let missing = self.client.stream(&event.stream, known).await.map_err(unavailable)?;
            for missing in missing.into_iter().filter(|missing| missing.version < event.version) {
                self.apply(&Arc::new(missing)).await?;
            }
        }
        if event.version > known {
            self.apply(event).await?;
        }
        self.seen().put(event.stream.clone(), known.max(event.version));
        Ok(())
    }

    /// Applies an event unless it, or a later one of its stream, was applied before.
    async fn apply(&self, event: &Arc<Event>) -> Result<(), Failure> {
        if !self.source.filter().takes(event) {
            return Ok(());
        }
        let (name, event, apply) = (self.name.clone(), event.clone(), self.apply.clone());
        self.db
            .transaction(move |tx| {
                Box::pin(async move {
                    let version = i64::try_from(event.version).unwrap_or(i64::MAX);
                    // Also the lock: whoever else applies the stream waits here.
                    let sql = "INSERT INTO saga_consumed (consumer, stream, version) VALUES ($1, $2, $3)
                               ON CONFLICT (consumer, stream) DO UPDATE SET version = excluded.version
                               WHERE saga_consumed.version < excluded.version";
                    if tx.execute(sql, params![&*name, &event.stream, version]).await? == 1 {
                        apply(tx, event).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    async fn applied(&self, stream: &str) -> sqlx::Result<u64> {
        let sql = "SELECT version FROM saga_consumed WHERE consumer = $1 AND stream = $2";
        let row = self.db.row(sql, params![&*self.name, stream]).await?;
        let version: i64 = row.map_or(Ok(0), |row| row.get("version"))?;
        Ok(u64::try_from(version).unwrap_or(0))
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Recent<String, u64>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unavailable(error: crate::events::ClientError) -> Failure {
    Failure::Unavailable { detail: error.to_string(), retry_after: std::time::Duration::from_secs(1) }
}
