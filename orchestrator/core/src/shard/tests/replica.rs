//! A shell around the writer that does nothing by itself: every effect waits until the history says how it ends.

use alloc::{boxed::Box, collections::BTreeMap, string::ToString, sync::Arc, vec::Vec};

use serde_json::json;

use super::{
    CommitFate, Happening, IDLE_MAX, Store,
    appends::{Asking, foreign},
    document,
    store::SHARDS,
};
use crate::{
    classify::{CallReport, CallResult},
    decide::{
        Input, Invoke, OperatorAction, OperatorCommand,
        tests::{
            T0, TAKEOVERS_MAX, definition,
            world::{Fate, World},
        },
    },
    event::Mode,
    ids::{Epoch, SagaId, Shard},
    shard::{
        batch::{Batch, CommitError, StreamAsk},
        leases::TakenShard,
        writer::{Effect, Limits, Refusal, StartRequest, Writer},
    },
    time::{Millis, Timestamp},
};

/// Who had the shards before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Predecessor {
    /// Nobody, or this very replica.
    None,
    Died,
}

pub(super) struct Replica {
    pub writer: Writer<u32>,
    pub store: Store,
    pub worlds: BTreeMap<SagaId, World>,
    /// Sagas whose start was acknowledged, with their key.
    pub acknowledged: Vec<(SagaId, Option<u8>)>,
    pub refusals: Vec<Refusal>,
    /// Appends, by their request.
    pub appends: BTreeMap<u32, Asking>,
    pub look_ups: Vec<(u64, Vec<StreamAsk>)>,
    pub now: Timestamp,
    limits: Limits,
    pub commit: Option<Arc<Batch>>,
    commits: Vec<usize>,
    calls: Vec<Invoke>,
    /// Under which epoch each was made.
    made_in: BTreeMap<u64, Epoch>,
    loads: Vec<(u64, Vec<SagaId>)>,
    /// Requests that wait for an answer; the key of those that are starts.
    asked: BTreeMap<u32, Option<Option<u8>>>,
    pub requests: u32,
}

impl Replica {
    pub fn new() -> Self {
        Self::with_room_for(1000)
    }

    pub fn with_room_for(resident_max: usize) -> Self {
        Self::within(resident_max, 1000)
    }

    pub fn within(resident_max: usize, queue_max: usize) -> Self {
        let limits = Limits {
            shards: SHARDS,
            resident_max,
            batch_max: 50,
            queue_max,
            load_max: 5,
            idle_max: IDLE_MAX,
            recovery_ramp: Millis(10),
            takeovers_max: TAKEOVERS_MAX,
        };
        let mut replica = Self {
            writer: Writer::new(limits),
            store: Store::new(definition(&document())),
            worlds: BTreeMap::new(),
            acknowledged: Vec::new(),
            refusals: Vec::new(),
            appends: BTreeMap::new(),
            look_ups: Vec::new(),
            now: T0,
            limits,
            commit: None,
            commits: Vec::new(),
            calls: Vec::new(),
            made_in: BTreeMap::new(),
            loads: Vec::new(),
            asked: BTreeMap::new(),
            requests: 0,
        };
        replica.boot(Predecessor::None);
        replica
    }

    pub fn commit_sizes(&self) -> &[usize] {
        &self.commits
    }

    fn boot(&mut self, predecessor: Predecessor) {
        self.writer = Writer::new(self.limits);
        self.writer.define(Arc::clone(&self.store.definition));
        self.retake(predecessor);
    }

    fn retake(&mut self, predecessor: Predecessor) {
        for shard in (0..SHARDS).map(Shard) {
            if self.writer.owns(shard).is_none() {
                let epoch = self.store.take(shard);
                let taken = TakenShard { shard, epoch, died: predecessor == Predecessor::Died };
                self.writer.own(taken, &self.store.unfinished(shard), self.now);
            }
        }
    }

    pub fn happen(&mut self, happening: &Happening) {
        self.now = self.now.plus(Millis(1));
        match happening {
            Happening::Start { key } => self.start(*key),
            Happening::CommitEnds(fate) => self.end_commit(*fate),
            Happening::CallEnds { which, fate } => self.end_call(*which, *fate),
            Happening::LoadEnds { failed } => self.end_load(*failed),
            Happening::TimePasses => {
                self.now = self.writer.next_wake().unwrap_or(self.now).max(self.now);
                self.writer.tick(self.now);
            }
            Happening::Usurped { shard } => {
                let shard = Shard(u16::from(*shard) % SHARDS);
                let epoch = self.store.take(shard);
                foreign(&mut self.store, shard, epoch, self.now);
            }
            Happening::Retake => self.retake(Predecessor::None),
            Happening::LeaseRanOut => self.writer.lose(&[Shard(0), Shard(1), Shard(2)]),
            Happening::Drain { shard } => self.writer.drain(&[Shard(u16::from(*shard) % SHARDS)]),
            Happening::Compensate { which } => self.compensate(*which),
            Happening::Append(append) => self.append(append),
            Happening::LookUpEnds { failed } => self.end_look_up(*failed),
            Happening::Crash => self.crash(),
        }
        self.carry_out();
    }

    fn start(&mut self, key: Option<u8>) {
        self.requests += 1;
        let request = StartRequest {
            definition: Arc::clone(&self.store.definition),
            mode: Mode::Orchestrated,
            input: json!({}).into(),
            key: key.map(|key| (key.to_string(), [0; 32])),
            correlation_id: self.requests.to_string(),
            traceparent: None,
            subject: None,
            entropy: core::array::from_fn(|index| (self.requests >> (index % 4 * 8)) as u8),
        };
        self.asked.insert(self.requests, Some(key));
        self.writer.start(request, self.requests, self.now);
    }

    fn compensate(&mut self, which: u8) {
        let Some(saga) = self.store.rows.keys().nth(usize::from(which) % self.store.rows.len().max(1)).copied() else {
            return;
        };
        self.requests += 1;
        self.asked.insert(self.requests, None);
        let command = OperatorCommand {
            actor: "ada".to_string(),
            reason: "because".to_string(),
            request_id: None,
            correlation_id: None,
            expected_revision: None,
            action: OperatorAction::Compensate,
        };
        self.writer.input(saga, Input::Operator(command), self.requests, self.now);
    }

    fn end_commit(&mut self, fate: CommitFate) {
        let Some(batch) = self.commit.take() else { return };
        let result = match fate {
            CommitFate::Applied => self.store.commit(&batch),
            CommitFate::NotApplied => Err(CommitError::NotApplied("disk full".to_string())),
            CommitFate::AppliedInDoubt => {
                let _ = self.store.commit(&batch);
                Err(CommitError::InDoubt("connection reset".to_string()))
            }
            CommitFate::AppliedAsOfOld => Ok(()),
            CommitFate::NotAppliedInDoubt => Err(CommitError::InDoubt("connection reset".to_string())),
        };
        self.writer.committed(result, self.now);
    }

    fn end_call(&mut self, which: u8, fate: Fate) {
        if self.calls.is_empty() {
            return;
        }
        let call = self.calls.remove(usize::from(which) % self.calls.len());
        let result = self.worlds.entry(call.saga).or_default().deliver(&call, fate, self.now);
        self.report(&call, result);
    }

    fn report(&mut self, call: &Invoke, result: CallResult) {
        let report = CallReport { started_at: self.now, duration: Millis(1), result };
        self.writer.call_finished(call.saga, Arc::clone(&call.step), call.call, report, self.now);
    }

    fn end_load(&mut self, failed: bool) {
        let Some((read, sagas)) = self.loads.pop() else { return };
        if failed {
            for saga in sagas {
                self.writer.not_loaded(read, saga, self.now);
            }
            return;
        }
        self.end_this_load((read, sagas));
    }

    /// Loads what is due and commits what follows, up to its calls; earlier ones are aborted.
    pub fn begin_again(&mut self) {
        let soon = self.now.plus(Millis(1_000));
        self.calls.clear();
        while self.calls.is_empty() {
            self.happen(&match (&self.commit, self.loads.is_empty()) {
                (Some(_), _) => Happening::CommitEnds(CommitFate::Applied),
                (None, false) => Happening::LoadEnds { failed: false },
                (None, true) if self.writer.next_wake().is_none_or(|at| at > soon) => return,
                (None, true) => Happening::TimePasses,
            });
        }
    }

    pub fn take_load(&mut self) -> (u64, Vec<SagaId>) {
        self.loads.pop().expect("a load was asked for")
    }

    pub fn calls_made(&self) -> &[Invoke] {
        &self.calls
    }

    pub fn end_this_load(&mut self, (read, sagas): (u64, Vec<SagaId>)) {
        for saga in sagas {
            self.writer.loaded(read, saga, &self.store.stream(saga), self.now);
        }
    }

    /// Requests on their way stay on their way; answers to them go nowhere.
    fn crash(&mut self) {
        if let Some(batch) = self.commit.take() {
            let _ = self.store.commit(&batch);
        }
        for call in core::mem::take(&mut self.calls) {
            self.worlds.entry(call.saga).or_default().deliver(&call, Fate::Late, self.now);
        }
        self.loads.clear();
        self.look_ups.clear();
        self.asked.clear();
        self.appends.values_mut().for_each(Asking::crash);
        self.boot(Predecessor::Died);
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.writer.next_effect() {
            match effect {
                Effect::Commit(batch) => {
                    assert!(self.commit.is_none(), "one commit at a time");
                    self.commits.push(batch.transitions.len() + batch.appends.len());
                    self.commit = Some(batch);
                }
                Effect::Invoke(invoke) => self.invoke(invoke),
                Effect::Load { read, sagas } => self.loads.push((read, sagas)),
                Effect::LookUp { read, asks } => self.look_ups.push((read, asks)),
                Effect::AppendReply(request, answer) => self.appended(request, answer),
                Effect::Reply(request, answer) => {
                    let key = self.asked.remove(&request).expect("one answer per request");
                    match (answer, key) {
                        (Ok(row), Some(key)) => self.acknowledged.push((row.id, key)),
                        (Ok(_), None) => {}
                        (Err(refusal), _) => self.refusals.push(refusal),
                    }
                }
                Effect::Committed { .. } | Effect::Forgotten(_) => {}
                Effect::Stuck { saga, reason } => panic!("{saga}: {reason}"),
            }
        }
        self.release_drained();
    }

    fn release_drained(&mut self) {
        for shard in self.writer.drained() {
            let epoch = self.writer.owns(shard).expect("what drains is owned");
            let commits_here = |batch: &Batch| batch.fences.iter().any(|fence| fence.shard == shard);
            assert!(!self.commit.as_deref().is_some_and(commits_here), "what is being committed has not ended");
            let flies = |call: &&Invoke| call.saga.shard(SHARDS) == shard && self.made_in[&call.call] == epoch;
            assert!(!self.calls.iter().any(|call| flies(&call)), "what is called has not ended");
            self.writer.lose(&[shard]);
        }
    }

    fn invoke(&mut self, invoke: Box<Invoke>) {
        let announced = self
            .store
            .stream(invoke.saga)
            .iter()
            .any(|recorded| recorded.event.intents().any(|step| step == &*invoke.step));
        assert!(announced, "intent before effect: {invoke:?}");
        let shard = invoke.saga.shard(SHARDS);
        assert!(self.writer.accepts(shard), "nothing new begins in a shard that is being given up");
        self.made_in.insert(invoke.call, self.writer.owns(shard).expect("it is owned"));
        self.calls.push(*invoke);
    }

    /// No more faults: usurpers are gone, their shards come back, and everything goes well until every saga has ended.
    pub fn heal(&mut self) {
        let lost = |shard: &Shard| self.writer.owns(*shard).is_some_and(|epoch| epoch != self.store.shards[shard].0);
        let lost: Vec<Shard> = (0..SHARDS).map(Shard).filter(lost).collect();
        self.writer.lose(&lost);
        for _ in 0..20_000 {
            let reads = !self.loads.is_empty() || !self.look_ups.is_empty();
            let busy = self.commit.is_some() || !self.calls.is_empty() || reads;
            let owned = self.writer.load().shards == usize::from(SHARDS);
            self.happen(&match (busy, owned) {
                (_, false) => Happening::Retake,
                (false, true) if self.writer.next_wake().is_none() => return,
                (false, true) => Happening::TimePasses,
                (true, true) if self.commit.is_some() => Happening::CommitEnds(CommitFate::Applied),
                (true, true) if !self.loads.is_empty() => Happening::LoadEnds { failed: false },
                (true, true) if reads => Happening::LookUpEnds { failed: false },
                (true, true) => Happening::CallEnds { which: 0, fate: Fate::Fine },
            });
        }
        panic!("invariant 2: still busy long after the faults stopped: {:#?}", self.writer.load());
    }
}
