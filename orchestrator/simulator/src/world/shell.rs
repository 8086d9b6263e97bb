//! The shell around writer and leases, as production has it: time first, then what came, then what they ask for.

use std::sync::Arc;

use skald_core::{
    classify::{CallReport, CallResult},
    ids::Shard,
    shard::{
        leases::{LeaseEffect, TakenShard},
        writer::{Effect, Refusal},
    },
    time::Timestamp,
};

use super::{
    Happening, World,
    database::StoreRequest,
    replica::{Ask, GRACE, Message},
};
use crate::{
    faults::Fault,
    judgement::Rule,
    store::Process,
    trace::{short, word},
};

impl World {
    /// The process of that replica begins its life.
    pub(super) fn begin_process(&mut self, replica: usize) {
        for definition in self.definitions.clone() {
            self.replicas[replica].writer.define(definition);
        }
        if self.replicas[replica].skew_ms() > 100 {
            self.faults.count(Fault::Skew);
        }
        self.look_around(replica);
    }

    pub(super) fn deliver(&mut self, to: Process, message: Message) {
        let now = self.now;
        let replica = &mut self.replicas[to.replica];
        if replica.process != to || !replica.runs {
            return;
        }
        if replica.stopped_until.is_some() {
            return replica.held_back.push_back(message);
        }
        // What comes from the database does not come through: the process finds its connections gone.
        let failed = if replica.is_cut_off(now) { message.failed() } else { None };
        self.process(to.replica, failed.unwrap_or(message));
    }

    pub(super) fn wake(&mut self, to: Process) {
        let replica = &self.replicas[to.replica];
        if replica.process == to && replica.is_up() && replica.wake_at == Some(self.now) {
            self.tell([1, to.replica as u64, 0], || format!("{to} wakes"));
            self.look_around(to.replica);
        }
    }

    /// Time, then the message, then what follows.
    pub(super) fn process(&mut self, index: usize, message: Message) {
        self.pass_time(index);
        let (now, to) = (self.now, self.replicas[index].process);
        let replica = &mut self.replicas[index];
        let (estimate, monotonic) = (replica.estimate(now), replica.monotonic(now));
        match message {
            Message::CommitEnded(result) => {
                let code = result.as_ref().map_or(2, |()| 1);
                replica.writer.committed(result.clone(), estimate);
                self.tell([2, to.replica as u64, code], || format!("{to} learns of its commit: {result:?}"));
            }
            Message::CallEnded { saga, step, call, started_at, result } => {
                if replica.calls.remove(&call).is_some() {
                    let duration = started_at.until(estimate);
                    let text = format_result(&result);
                    let report = CallReport { started_at, duration, result };
                    replica.writer.call_finished(saga, Arc::clone(&step), call, report, estimate);
                    self.tell([3, word(saga), call], || format!("{to} gets {text} of {} {step}", short(saga)));
                }
            }
            Message::Read { read, streams } => {
                self.tell([4, to.replica as u64, read], || format!("{to} has read {} streams", streams.len()));
                self.read(index, read, streams, estimate);
            }
            Message::Leases(report) => {
                let code = u64::from(report.is_some());
                replica.leases.answered(report, monotonic);
                self.tell([5, to.replica as u64, code], || {
                    format!("{to} hears about its leases{}", if code == 0 { ": failed" } else { "" })
                });
            }
            Message::Unfinished { taken, found } => self.unfinished(index, taken, found),
            Message::Asked { request, ask, forwarded } => self.asked(index, request, ask, forwarded),
        }
        self.look_around(index);
    }

    fn read(&mut self, index: usize, read: u64, streams: ReadStreams, estimate: Timestamp) {
        let writer = &mut self.replicas[index].writer;
        for (saga, stream) in streams {
            match stream {
                Some(stream) => writer.loaded(read, saga, &stream, estimate),
                None => writer.not_loaded(read, saga, estimate),
            }
        }
    }

    /// Begins to drive a shard, if it is still held; or asks again what is to be driven.
    fn unfinished(&mut self, index: usize, taken: TakenShard, found: Option<FoundSagas>) {
        let TakenShard { shard, epoch, .. } = taken;
        let replica = &self.replicas[index];
        let (to, estimate) = (replica.process, replica.estimate(self.now));
        if !replica.may_call(shard, self.now) || replica.awaited.get(&shard) != Some(&epoch) {
            return;
        }
        match found {
            Some(found) => {
                self.tell([6, to.replica as u64, u64::from(shard.0)], || {
                    format!("{to} drives shard {shard}, epoch {epoch}, {} unfinished", found.len())
                });
                self.replicas[index].awaited.remove(&shard);
                self.replicas[index].writer.own(taken, &found, estimate);
            }
            None => {
                let at = self.after(100, 200);
                self.agenda.put(at, Happening::Store(StoreRequest::Unfinished { from: to, taken }));
            }
        }
    }

    /// A request reached this replica; what belongs to a shard of another goes there, once.
    fn asked(&mut self, index: usize, request: u64, ask: Ask, forwarded: bool) {
        let estimate = self.replicas[index].estimate(self.now);
        let shard = match &ask {
            Ask::Input { saga, .. } => Some(self.shard_of(*saga)),
            Ask::Start(start) => start.key.as_ref().map(|(key, _)| {
                skald_core::shard::writer::shard_of_key(&start.definition.name, key, self.limits.shards)
            }),
        };
        let owns = |shard: Shard| self.replicas[index].writer.owns(shard).is_some();
        if let Some(shard) = shard.filter(|shard| !owns(*shard))
            && !forwarded
            && let Some(owner) = self.store.shard(shard).owner
            && owner.replica != index
        {
            let at = self.after(1, 5);
            let message = Message::Asked { request, ask, forwarded: true };
            return self.agenda.put(at, Happening::Deliver { to: owner, message });
        }
        let to = self.replicas[index].process;
        self.tell([7, to.replica as u64, request], || format!("{to} is asked: request {request}"));
        if self.replicas[index].stopping {
            return self.reply(request, Err(Refusal::NotOwner));
        }
        let writer = &mut self.replicas[index].writer;
        match ask {
            Ask::Start(start) => writer.start(*start, request, estimate),
            Ask::Input { saga, input } => writer.input(saga, *input, request, estimate),
        }
    }

    fn pass_time(&mut self, index: usize) {
        let now = self.now;
        let replica = &mut self.replicas[index];
        let (estimate, monotonic) = (replica.estimate(now), replica.monotonic(now));
        replica.leases.tick(monotonic);
        self.keep_leases(index);
        self.replicas[index].writer.tick(estimate);
    }

    /// Lets time pass for a process, carries out what it wants, and sets its alarm.
    pub(super) fn look_around(&mut self, index: usize) {
        if !self.replicas[index].is_up() {
            return;
        }
        self.pass_time(index);
        self.carry_out(index);
        if self.replicas[index].is_up() {
            self.hand_over(index);
            self.carry_out(index);
        }
        let replica = &mut self.replicas[index];
        if !replica.is_up() {
            return;
        }
        let (wake, to) = (replica.next_wake(self.now), replica.process);
        if replica.wake_at != wake {
            replica.wake_at = wake;
            if let Some(at) = wake {
                self.agenda.put(at, Happening::Wake { to });
            }
        }
    }

    fn keep_leases(&mut self, index: usize) {
        while let Some(effect) = self.replicas[index].leases.next_effect() {
            let to = self.replicas[index].process;
            match effect {
                LeaseEffect::Ask(request) => self.ask_for_leases(to, request),
                LeaseEffect::Taken(taken) => {
                    self.tell([8, to.replica as u64, u64::from(taken.shard.0)], || {
                        format!("{to} took shard {} (former owner died: {})", taken.shard, taken.died)
                    });
                    if taken.died {
                        self.faults.count(Fault::Takeover);
                    }
                    let at = self.after(1, 4);
                    self.replicas[index].awaited.insert(taken.shard, taken.epoch);
                    self.agenda.put(at, Happening::Store(StoreRequest::Unfinished { from: to, taken }));
                }
                LeaseEffect::Drain(shards) => self.drain(index, &shards),
                LeaseEffect::Released(shards) => {
                    self.tell([11, to.replica as u64, shards.len() as u64], || format!("{to} gives up {shards:?}"));
                    self.let_go(index, &shards);
                }
                LeaseEffect::Lost(shards) => {
                    self.tell([9, to.replica as u64, shards.len() as u64], || format!("{to} lost shards {shards:?}"));
                    self.faults.count(Fault::LeaseLost);
                    self.let_go(index, &shards);
                }
                LeaseEffect::Stopped => return self.end_process(index),
            }
        }
    }

    /// Begins nothing new in these shards. One that was not driven yet has nothing to end.
    fn drain(&mut self, index: usize, shards: &[Shard]) {
        let now = self.now;
        let replica = &mut self.replicas[index];
        let to = replica.process;
        let monotonic = replica.monotonic(now);
        replica.writer.drain(shards);
        for shard in shards {
            if replica.awaited.remove(shard).is_some() {
                replica.leases.drained(*shard, monotonic);
            }
        }
        self.faults.count(Fault::Handover);
        self.tell([12, to.replica as u64, shards.len() as u64], || format!("{to} drains {shards:?}"));
    }

    /// Tells the lease machine what is drained.
    fn hand_over(&mut self, index: usize) {
        let now = self.now;
        let replica = &mut self.replicas[index];
        let monotonic = replica.monotonic(now);
        for shard in replica.writer.drained() {
            replica.leases.drained(shard, monotonic);
        }
        self.keep_leases(index);
    }

    /// Forgets shards and waits for none of their calls any more; requests on their way stay on their way.
    fn let_go(&mut self, index: usize, shards: &[Shard]) {
        let total = self.limits.shards;
        let replica = &mut self.replicas[index];
        replica.writer.lose(shards);
        replica.awaited.retain(|shard, _| !shards.contains(shard));
        replica.calls.retain(|_, saga| !shards.contains(&saga.shard(total)));
    }

    fn carry_out(&mut self, index: usize) {
        while let Some(effect) = self.replicas[index].writer.next_effect() {
            let to = self.replicas[index].process;
            match effect {
                Effect::Commit(batch) => self.commit(index, batch),
                Effect::Invoke(invoke) => {
                    let shard = self.shard_of(invoke.saga);
                    if self.replicas[index].may_call(shard, self.now) {
                        self.call(index, *invoke);
                    }
                }
                Effect::Load { read, sagas } => self.read_streams(index, read, sagas),
                Effect::Reply(request, answer) => self.reply(request, answer),
                Effect::Committed { batch, index: at, .. } => {
                    let row = &batch.transitions[at].row;
                    let durable = self.store.version(row.id) >= row.version;
                    self.watch.require(durable, Rule::Intent, || {
                        format!("{} version {} is told as durable and is not", short(row.id), row.version)
                    });
                }
                Effect::Forgotten(shards) => {
                    let monotonic = self.replicas[index].monotonic(self.now);
                    self.tell([10, to.replica as u64, shards.len() as u64], || format!("{to} forgets {shards:?}"));
                    self.let_go(index, &shards);
                    self.replicas[index].leases.forgotten(&shards, monotonic);
                }
                Effect::LookUp { .. } | Effect::AppendReply(..) => {
                    self.watch
                        .require(false, Rule::Panic, || format!("{to} deals with an append that nobody asked for"));
                }
                Effect::Stuck { saga, reason } => {
                    self.watch.require(false, Rule::Invariant(2), || format!("{} is stuck: {reason}", short(saga)));
                }
            }
            if !self.replicas[index].is_up() {
                return;
            }
            self.keep_leases(index);
        }
    }

    /// SIGTERM: every shard is given up as soon as it is drained, at the latest when the grace is over.
    pub(super) fn terminate(&mut self, index: usize) {
        let monotonic = self.replicas[index].monotonic(self.now);
        let replica = &mut self.replicas[index];
        replica.stopping = true;
        replica.leases.stop(GRACE, monotonic);
        self.look_around(index);
    }
}

type ReadStreams = Vec<(skald_core::ids::SagaId, Option<Vec<skald_core::event::Recorded>>)>;
type FoundSagas = Vec<(skald_core::ids::SagaId, Option<Timestamp>)>;

pub(super) fn format_result(result: &CallResult) -> String {
    match result {
        CallResult::Answered(answer) => answer.status.to_string(),
        CallResult::NotSent { .. } => "not sent".to_owned(),
        CallResult::MaybeSent { .. } => "no answer".to_owned(),
        CallResult::Deferred { .. } => "deferred".to_owned(),
    }
}
