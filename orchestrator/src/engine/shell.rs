//! The task that owns the writer and keeps its shards leased: feeds it what happens and carries out what it asks for.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, RwLock},
    time::Duration,
};

use opentelemetry::trace::SpanContext;
use skald_core::{
    classify::CallReport,
    decide::Invoke,
    event::Recorded,
    ids::SagaId,
    shard::{
        batch::{Batch, CommitError, StreamAsk, StreamLook},
        writer::{Effect, Refusal, Writer},
    },
    state::SagaRow,
    time::Timestamp,
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use super::{
    AppendReply, Health, Parts, Progress, Reply, Request,
    census::Census,
    history::Awaited,
    leases::{Change, Keeper, Scanned},
    observe,
};
use crate::{
    spans::{LINKS_MAX, between},
    storage::{Store, StoreError},
};

/// With more calls in flight than this, others are about to end with the one that did: they go first on this thread, and the
/// engine takes all of them together.
const FEW_IN_FLIGHT: usize = 4;

/// Of those that came in, so many are taken before something else is.
const REQUESTS_TOGETHER: usize = 256;

#[derive(Debug)]
struct Landed {
    saga: SagaId,
    step: Arc<str>,
    call: u64,
    report: CallReport,
}

#[derive(Debug)]
struct LoadedStreams {
    read: u64,
    /// Of each saga that was asked for; empty when there is no such saga.
    streams: Vec<(SagaId, Result<Vec<Recorded>, StoreError>)>,
}

#[derive(Debug)]
struct LookedUp {
    read: u64,
    looks: Result<Vec<StreamLook>, StoreError>,
}

pub(super) struct Shell {
    parts: Parts,
    writer: Writer<Reply, AppendReply>,
    health: Arc<RwLock<Health>>,
    /// How many commits were applied.
    committed: watch::Sender<u64>,
    keeper: Keeper,
    watchers: HashMap<SagaId, Vec<watch::Sender<Option<Progress>>>>,
    awaited: Awaited,
    /// When those who had left were last forgotten.
    swept_at: Instant,
    census: Census,
    /// Where a call's task tells how it ended.
    landing: mpsc::UnboundedSender<Landed>,
    landings: mpsc::UnboundedReceiver<Landed>,
    loads: JoinSet<LoadedStreams>,
    look_ups: JoinSet<LookedUp>,
    commit: Option<JoinHandle<Result<(), CommitError>>>,
    /// For its span.
    committing: Option<Committing>,
    /// The commit that ended last, as long as its transitions are being told of.
    done: Option<Committing>,
    phase: Phase,
}

struct Committing {
    begun: Timestamp,
    transitions: usize,
    /// To sagas in it.
    links: Vec<SpanContext>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// No more work is taken; shards are being given up.
    Stopping,
    /// No shard is left.
    Stopped,
}

impl Shell {
    pub fn new(parts: Parts, health: Arc<RwLock<Health>>, committed: watch::Sender<u64>) -> Self {
        let (landing, landings) = mpsc::unbounded_channel();
        Self {
            writer: Writer::new(parts.limits),
            keeper: Keeper::new(&parts),
            census: Census::new(parts.limits.shards),
            parts,
            health,
            committed,
            watchers: HashMap::new(),
            awaited: Awaited::default(),
            swept_at: Instant::now(),
            landing,
            landings,
            loads: JoinSet::new(),
            look_ups: JoinSet::new(),
            commit: None,
            committing: None,
            done: None,
            phase: Phase::Serving,
        }
    }

    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut heard = Vec::with_capacity(REQUESTS_TOGETHER);
        let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
        while self.phase != Phase::Stopped || self.commit.is_some() {
            // One that comes too early costs less than moving it each time.
            let wake = Instant::now() + self.sleep();
            if alarm.is_elapsed() || wake < alarm.deadline() {
                alarm.as_mut().reset(wake);
            }
            tokio::select! {
                biased;
                change = self.keeper.next(), if self.phase != Phase::Stopped => self.shards_changed(change),
                result = finished(&mut self.commit) => self.committed(result),
                Some(landed) = self.landings.recv() => {
                    self.landed(landed);
                    if self.writer.in_flight() > FEW_IN_FLIGHT {
                        tokio::task::yield_now().await;
                    }
                    while let Ok(landed) = self.landings.try_recv() {
                        self.landed(landed);
                    }
                }
                Some(loaded) = self.loads.join_next() => self.loaded(loaded),
                Some(looked_up) = self.look_ups.join_next() => self.looked_up(looked_up),
                _ = requests.recv_many(&mut heard, REQUESTS_TOGETHER) => {}
                () = &mut alarm => {}
            }
            // Also when something else came first, which under load is always so: whether there is room for a start is to be
            // known at once.
            while heard.len() < REQUESTS_TOGETHER
                && let Ok(request) = requests.try_recv()
            {
                heard.push(request);
            }
            for request in heard.drain(..) {
                self.request(request);
            }
            self.parts.definitions.drain_new(|definition| self.writer.define(definition));
            let now = self.now();
            self.writer.tick(now);
            self.carry_out();
            for shard in self.writer.drained() {
                self.keeper.drained(shard);
            }
            self.report();
        }
    }

    fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    /// How long nothing will happen by itself.
    fn sleep(&self) -> Duration {
        const REPORT_EVERY: Duration = Duration::from_secs(1);
        let until_wake = self.writer.next_wake().map(|at| Duration::from_millis(self.now().until(at).0));
        until_wake.map_or(REPORT_EVERY, |until| until.min(REPORT_EVERY))
    }

    fn request(&mut self, request: Request) {
        let now = self.now();
        match request {
            Request::Start { reply, .. } | Request::Input { reply, .. } if self.phase != Phase::Serving => {
                let _ = reply.answer.send(Err(Refusal::NotOwner));
            }
            Request::Append { reply, .. } if self.phase != Phase::Serving => {
                let _ = reply.send(Err(Refusal::NotOwner));
            }
            Request::Start { request, reply } => {
                self.sweep();
                self.writer.start(*request, reply, now);
            }
            Request::Input { saga, input, reply } => self.writer.input(saga, *input, reply, now),
            Request::Append { request, reply } => self.writer.append(request, reply, now),
            Request::Watch { saga, progress } => {
                self.sweep();
                self.watchers.entry(saga).or_default().push(progress);
            }
            Request::Stop { grace } if self.phase == Phase::Serving => {
                self.phase = Phase::Stopping;
                self.keeper.stop(grace);
            }
            Request::Stop { .. } => {}
        }
    }

    fn committed(&mut self, result: Result<(), CommitError>) {
        self.commit = None;
        let committing = self.committing.take();
        if result.is_ok() {
            self.done = committing;
            self.committed.send_modify(|commits| *commits += 1);
        }
        let now = self.now();
        self.writer.committed(result, now);
    }

    fn landed(&mut self, Landed { saga, step, call, report }: Landed) {
        let now = self.now();
        self.writer.call_finished(saga, step, call, report, now);
    }

    fn loaded(&mut self, loaded: Result<LoadedStreams, tokio::task::JoinError>) {
        let now = self.now();
        match loaded {
            Ok(LoadedStreams { read, streams }) => {
                for (saga, stream) in streams {
                    observe::loaded(&self.parts.metrics, &stream);
                    match stream {
                        Ok(stream) => self.writer.loaded(read, saga, &stream, now),
                        Err(error @ StoreError::Unreadable(_)) => {
                            self.writer.unreadable(read, saga, &error.to_string())
                        }
                        Err(error) => {
                            tracing::warn!(saga_id = %saga, %error, "a saga could not be loaded; trying again");
                            self.writer.not_loaded(read, saga, now);
                        }
                    }
                }
            }
            Err(error) => tracing::error!(%error, "a load's task failed"),
        }
    }

    fn looked_up(&mut self, looked_up: Result<LookedUp, tokio::task::JoinError>) {
        let now = self.now();
        match looked_up {
            Ok(LookedUp { read, looks: Ok(looks) }) => self.writer.looked_up(read, looks, now),
            Ok(LookedUp { read, looks: Err(error) }) => {
                tracing::warn!(%error, "streams could not be looked up: their appends are refused");
                self.writer.not_looked_up(read);
            }
            Err(error) => tracing::error!(%error, "a look-up's task failed"),
        }
    }

    fn shards_changed(&mut self, change: Change) {
        match change {
            Change::Owned(Scanned { taken, unfinished }) => {
                tracing::debug!(shard = %taken.shard, epoch = %taken.epoch, unfinished = unfinished.len(), "carrying on the shard's sagas");
                self.census.own(taken.shard, &unfinished);
                let wakes: Vec<_> = unfinished.iter().map(|saga| (saga.id, saga.wake_at)).collect();
                self.writer.own(taken, &wakes, self.now());
            }
            Change::Drain(shards) => self.writer.drain(&shards),
            Change::Gone(shards) => {
                self.writer.lose(&shards);
                self.census.forget(&shards);
            }
            Change::Stopped => self.phase = Phase::Stopped,
        }
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.writer.next_effect() {
            match effect {
                Effect::Commit(batch) => {
                    self.trace_commit();
                    self.spawn_commit(batch);
                }
                Effect::Invoke(invoke) => self.spawn_call(*invoke),
                Effect::Load { read, sagas } => self.spawn_load(read, sagas),
                Effect::LookUp { read, asks } => self.spawn_look_up(read, asks),
                Effect::Reply(reply, answer) => self.reply(reply, answer),
                Effect::AppendReply(reply, answer) => {
                    if let Err(error @ Refusal::Unwritable(_)) = &answer {
                        tracing::error!(%error, "an append could not be written");
                    }
                    // Whoever asked may have left.
                    let _ = reply.send(answer);
                }
                Effect::Committed { batch, index, definition, traceparent, .. } => {
                    let transition = &batch.transitions[index];
                    self.trace(&transition.row, traceparent.as_deref());
                    observe::committed(&self.parts.metrics, transition, &definition, traceparent.as_deref());
                    self.census.committed(transition);
                    self.notify(&batch, index);
                }
                Effect::Forgotten(shards) => {
                    tracing::warn!(?shards, "shards in doubt or fenced off; taking them again");
                    self.census.forget(&shards);
                    self.keeper.forgotten(&shards);
                }
                Effect::Stuck { saga, reason } => {
                    tracing::error!(saga_id = %saga, reason, "the saga cannot be carried on by this process");
                }
            }
        }
        self.trace_commit();
    }

    /// The span of the commit that ended, now that it is known which sagas were in it.
    fn trace_commit(&mut self) {
        if let Some(Committing { begun, transitions, links }) = self.done.take() {
            self.parts.spans.committed(begun, between(begun, self.now()), transitions, links);
        }
    }

    /// The span of a saga that ended, and a link from the commit's to any.
    fn trace(&mut self, row: &SagaRow, traceparent: Option<&str>) {
        if row.status.is_ended() {
            self.parts.spans.ended(row, traceparent);
        }
        if let Some(done) = self.done.as_mut().filter(|done| done.links.len() < LINKS_MAX) {
            done.links.extend(self.parts.spans.of_saga(row.id, traceparent));
        }
    }

    fn reply(&mut self, reply: Reply, answer: super::Answer) {
        if let (Ok(row), Some(settled)) = (&answer, reply.settled) {
            self.awaited.insert(row.id, settled);
        }
        // Whoever asked may have left.
        let _ = reply.answer.send(answer);
    }

    fn notify(&mut self, batch: &Arc<Batch>, index: usize) {
        let row = &batch.transitions[index].row;
        let (saga, progress) = (row.id, Progress { version: row.version, status: row.status });
        self.awaited.committed(batch, index);
        let Some(watchers) = self.watchers.get_mut(&saga) else { return };
        watchers.retain(|watcher| !watcher.is_closed());
        for watcher in &*watchers {
            watcher.send_replace(Some(progress));
        }
        if watchers.is_empty() || progress.status.is_ended() {
            self.watchers.remove(&saga);
        }
    }

    /// Forgets those who watched or waited for sagas that do not move, and left.
    fn sweep(&mut self) {
        const SWEEP_EVERY: Duration = Duration::from_secs(30);
        if self.swept_at.elapsed() < SWEEP_EVERY {
            return;
        }
        self.swept_at = Instant::now();
        self.watchers.retain(|_, watchers| {
            watchers.retain(|watcher| !watcher.is_closed());
            !watchers.is_empty()
        });
        self.awaited.sweep();
    }

    fn spawn_commit(&mut self, batch: Arc<Batch>) {
        let store = Arc::clone(&self.parts.store);
        let metrics = Arc::clone(&self.parts.metrics);
        self.committing =
            Some(Committing { begun: self.now(), transitions: batch.transitions.len(), links: Vec::new() });
        self.commit = Some(tokio::spawn(async move {
            let begun = Instant::now();
            let result = store.commit(&batch).await;
            observe::commit_ended(&metrics, &batch, begun.elapsed(), &result);
            result
        }));
    }

    fn spawn_call(&mut self, invoke: Invoke) {
        // Without a term the shard is gone and the writer is about to hear of it; the next owner makes the call.
        let Some(term) = self.keeper.term(invoke.saga.shard(self.parts.limits.shards)) else { return };
        let participants = Arc::clone(&self.parts.participants);
        let landing = self.landing.clone();
        tokio::spawn(async move {
            let report = tokio::select! {
                report = participants.call(&invoke, &term) => report,
                // Its shard was given up or lost, and the call with it.
                () = term.ended() => return,
            };
            // The engine may have ended.
            let _ = landing.send(Landed { saga: invoke.saga, step: invoke.step, call: invoke.call, report });
        });
    }

    fn spawn_load(&mut self, read: u64, sagas: Vec<SagaId>) {
        let store = Arc::clone(&self.parts.store);
        self.loads.spawn(async move {
            let streams = read_streams(&*store, sagas).await;
            LoadedStreams { read, streams }
        });
    }

    fn spawn_look_up(&mut self, read: u64, asks: Vec<StreamAsk>) {
        let store = Arc::clone(&self.parts.store);
        self.look_ups.spawn(async move { LookedUp { read, looks: store.look_up(&asks).await } });
    }

    fn report(&mut self) {
        let load = self.writer.load();
        observe::load(&self.parts.metrics, &load, &self.census);
        let stalled = self.writer.stalled();
        let mut health = self.health.write().expect("nothing panics while it holds this lock");
        health.load = load;
        health.stopping = self.phase != Phase::Serving;
        health.is_full = !health.stopping && !self.writer.has_room();
        if health.stalled.as_deref() != stalled {
            if let Some(reason) = stalled {
                tracing::error!(reason, "commits do not get through; trying again");
            }
            health.stalled = stalled.map(str::to_owned);
        }
    }
}

/// Reads streams together; one that cannot be read must not keep the others from being.
async fn read_streams(store: &dyn Store, sagas: Vec<SagaId>) -> Vec<(SagaId, Result<Vec<Recorded>, StoreError>)> {
    if let Ok(streams) = store.streams(&sagas).await {
        let mut found: HashMap<SagaId, Vec<Recorded>> =
            streams.into_iter().filter_map(|stream| Some((stream.first()?.stream, stream))).collect();
        return sagas.into_iter().map(|saga| (saga, Ok(found.remove(&saga).unwrap_or_default()))).collect();
    }
    let mut streams = Vec::with_capacity(sagas.len());
    for saga in sagas {
        let stream = store.streams(&[saga]).await.map(|mut streams| streams.pop().unwrap_or_default());
        streams.push((saga, stream));
    }
    streams
}

/// Waits for the commit under way; forever if there is none.
async fn finished(commit: &mut Option<JoinHandle<Result<(), CommitError>>>) -> Result<(), CommitError> {
    match commit {
        Some(handle) => handle.await.unwrap_or_else(|error| Err(CommitError::InDoubt(error.to_string()))),
        None => std::future::pending().await,
    }
}

impl std::fmt::Debug for Shell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shell").field("load", &self.writer.load()).finish_non_exhaustive()
    }
}
