//! The sagas in memory: who decides what next, who is being loaded, who may leave.

use alloc::{
    borrow::ToOwned,
    boxed::Box,
    collections::{BTreeMap, BTreeSet, VecDeque},
    format,
    string::ToString,
    sync::Arc,
    vec::Vec,
};

use super::{
    batch::{NewEvent, StartKey, Transition},
    queue::Pending,
    writer::{Effect, Refusal, StartRequest, Writer},
};
use crate::{
    decide::{self, Command, Decision, Input, Invoke, Start},
    definition::Definition,
    event::{Event, Mode, Recorded},
    ids::{Operation, SagaId, Shard},
    state::{Flight, SagaState},
    time::{Millis, Timestamp},
};

/// What is written with a saga's first events.
#[derive(Debug, Default)]
struct Begun {
    start_key: Option<StartKey>,
    sealed_under: Option<Arc<str>>,
}

/// How long to wait before a failed read of a stream is tried again.
const LOAD_AGAIN_AFTER: Millis = Millis(1000);

/// A saga in memory.
#[derive(Debug)]
pub(super) struct Resident<R> {
    pub definition: Arc<Definition>,
    /// As committed, with the calls that are in flight.
    pub state: SagaState,
    /// Whether a transition of it is queued or being committed. While one is kept unhurried, it is not.
    pub deciding: bool,
    pub inbox: VecDeque<(Input, Option<R>)>,
}

#[derive(Debug)]
pub(super) struct Residence<R> {
    sagas: BTreeMap<SagaId, Resident<R>>,
    /// Being loaded, with what waits for them.
    loading: BTreeMap<SagaId, VecDeque<(Input, Option<R>)>>,
    /// Of those, the ones not asked for yet.
    wanted: VecDeque<SagaId>,
    /// Asked for by the last read and not here yet. What an earlier read brings is outdated.
    asked: BTreeSet<SagaId>,
    reads: u64,
    /// Starts the numbering of each resident's calls apart from every earlier residence's, so that a late report of
    /// one can never pass for another's.
    arrivals: u64,
}

impl<R> Default for Residence<R> {
    fn default() -> Self {
        Self {
            sagas: BTreeMap::new(),
            loading: BTreeMap::new(),
            wanted: VecDeque::new(),
            asked: BTreeSet::new(),
            reads: 0,
            arrivals: 0,
        }
    }
}

impl<R> Residence<R> {
    pub fn len(&self) -> usize {
        self.sagas.len()
    }

    pub fn is_resident(&self, saga: SagaId) -> bool {
        self.sagas.contains_key(&saga)
    }

    pub fn get_mut(&mut self, saga: SagaId) -> Option<&mut Resident<R>> {
        self.sagas.get_mut(&saga)
    }

    /// Whether this read was asked for this saga and is the last one.
    fn arrives(&mut self, read: u64, saga: SagaId) -> bool {
        read == self.reads && self.asked.remove(&saga)
    }

    fn first_call_number(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals << 20
    }

    /// Removes every saga for which `keep` is false and returns the answers they owed.
    pub fn retain(&mut self, mut keep: impl FnMut(SagaId) -> bool) -> Vec<R> {
        let mut owed = Vec::new();
        self.sagas.retain(|saga, resident| {
            let stays = keep(*saga);
            if !stays {
                owed.extend(resident.inbox.drain(..).filter_map(|(_, reply)| reply));
            }
            stays
        });
        owed.extend(self.retain_loading(keep));
        owed
    }

    /// [`Residence::retain`] for the sagas that are not here yet.
    pub fn retain_loading(&mut self, mut keep: impl FnMut(SagaId) -> bool) -> Vec<R> {
        let mut owed = Vec::new();
        self.loading.retain(|saga, inbox| {
            let stays = keep(*saga);
            if !stays {
                owed.extend(inbox.drain(..).filter_map(|(_, reply)| reply));
            }
            stays
        });
        self.wanted.retain(|saga| keep(*saga));
        self.asked.retain(|saga| keep(*saga));
        owed
    }
}

impl<R, A> Writer<R, A> {
    pub(super) fn begin(
        &mut self,
        request: StartRequest,
        shard: Shard,
        key: Option<StartKey>,
        reply: R,
        now: Timestamp,
    ) {
        if let Some(key) = &key
            && self.commits.holds_key(key)
        {
            return self.effects.push_back(Effect::Reply(reply, Err(Refusal::KeyExists)));
        }
        let id = SagaId::new(now, request.entropy, shard, self.limits.shards);
        let start = Start {
            id,
            mode: request.mode,
            input: request.input,
            correlation_id: request.correlation_id,
            traceparent: request.traceparent,
            subject: request.subject.as_ref().map(|subject| Arc::clone(&subject.hash)),
        };
        let sealed_under = request.subject.map(|subject| subject.key);
        match decide::start(&request.definition, start, now) {
            Ok(mut decision) => {
                self.renumber(&mut decision);
                // The state before its first event does not exist; the resident is made so that inputs that come
                // before the commit wait like any other.
                let resident = Resident {
                    definition: request.definition,
                    state: decision.next.clone(),
                    deciding: false,
                    inbox: VecDeque::new(),
                };
                self.residence.sagas.insert(id, resident);
                let transition = self.transition(id, 0, &mut decision, Begun { start_key: key, sealed_under });
                self.queue(id, Pending::new(transition, decision, Some(reply)));
            }
            Err(error) => self.effects.push_back(Effect::Reply(reply, Err(Refusal::Stuck(error.to_string())))),
        }
    }

    /// Gives a new saga's first calls numbers of their own.
    fn renumber(&mut self, decision: &mut Decision) {
        let base = self.residence.first_call_number();
        decision.next.calls += base;
        for step in &mut decision.next.steps {
            if let Flight::Airborne(call) = &mut step.flight {
                *call += base;
            }
        }
        for command in &mut decision.commands {
            if let Command::Invoke(invoke) = command {
                invoke.call += base;
            }
        }
    }

    /// Hands an input to a saga, or keeps it until the saga is loaded.
    pub(super) fn deliver(&mut self, saga: SagaId, input: Input, reply: Option<R>, now: Timestamp) {
        match self.residence.sagas.get_mut(&saga) {
            Some(resident) => {
                resident.inbox.push_back((input, reply));
                self.proceed(saga, now);
            }
            None => self.want(saga, Some((input, reply))),
        }
    }

    pub(super) fn deliver_tick(&mut self, saga: SagaId, now: Timestamp) {
        if self.residence.is_resident(saga) {
            self.deliver(saga, Input::Tick, None, now);
        } else {
            self.want(saga, None);
        }
    }

    /// Queues a saga for loading; one that somebody waits for goes first.
    fn want(&mut self, saga: SagaId, what: Option<(Input, Option<R>)>) {
        let urgent = what.is_some();
        let known = self.residence.loading.contains_key(&saga);
        self.residence.loading.entry(saga).or_default().extend(what);
        match (known, urgent) {
            (true, _) => {}
            (false, true) => self.residence.wanted.push_front(saga),
            (false, false) => self.residence.wanted.push_back(saga),
        }
    }

    /// Asks for the next streams, one read at a time, as far as there is room; who is waited for needs none.
    pub(super) fn load_wanted(&mut self) {
        if !self.residence.asked.is_empty() {
            return;
        }
        let room = self.limits.resident_max.saturating_sub(self.residence.len());
        let mut batch = Vec::new();
        while batch.len() < self.limits.load_max
            && let Some(saga) = self.residence.wanted.front()
            && (batch.len() < room || self.residence.loading.get(saga).is_some_and(|inbox| !inbox.is_empty()))
        {
            batch.extend(self.residence.wanted.pop_front());
        }
        if !batch.is_empty() {
            self.residence.asked.extend(batch.iter().copied());
            self.residence.reads += 1;
            self.effects.push_back(Effect::Load { read: self.residence.reads, sagas: batch });
        }
    }

    pub(super) fn put_off(&mut self, read: u64, saga: SagaId, now: Timestamp) {
        if !self.residence.arrives(read, saga) {
            return;
        }
        self.refuse_inbox(saga, &Refusal::Overloaded);
        self.timers.set(saga, Some(now.plus(LOAD_AGAIN_AFTER)));
    }

    pub(super) fn leave(&mut self, read: u64, saga: SagaId, refusal: &Refusal) {
        if !self.residence.arrives(read, saga) {
            return;
        }
        self.refuse_inbox(saga, refusal);
        if let Refusal::Stuck(reason) = refusal {
            self.effects.push_back(Effect::Stuck { saga, reason: reason.clone() });
        }
    }

    fn refuse_inbox(&mut self, saga: SagaId, refusal: &Refusal) {
        let inbox = self.residence.loading.remove(&saga).unwrap_or_default();
        for reply in inbox.into_iter().filter_map(|(_, reply)| reply) {
            self.effects.push_back(Effect::Reply(reply, Err(refusal.clone())));
        }
    }

    pub(super) fn settle_in(&mut self, read: u64, saga: SagaId, stream: &[Recorded], now: Timestamp) {
        match self.fold(saga, stream) {
            Ok((definition, mut state)) if self.residence.arrives(read, saga) => {
                let mut inbox = self.residence.loading.remove(&saga).unwrap_or_default();
                state.calls = self.residence.first_call_number();
                inbox.push_front((Input::Tick, None));
                if self.was_in_progress(saga, stream) {
                    inbox.push_front((Input::TakenOver { takeovers_max: self.limits.takeovers_max }, None));
                }
                self.residence.sagas.insert(saga, Resident { definition, state, deciding: false, inbox });
                self.proceed(saga, now);
            }
            Ok(_) => {}
            Err(refusal) => self.leave(read, saga, &refusal),
        }
    }

    /// Whether the saga was due when its shard was taken and has not moved on since an owner of the shard died; asked once.
    fn was_in_progress(&mut self, saga: SagaId, stream: &[Recorded]) -> bool {
        let shard = saga.shard(self.limits.shards);
        let suspect = self.owned.get_mut(&shard).is_some_and(|owned| owned.suspects.remove(&saga));
        let died = self.died.get(&shard);
        suspect && died.is_some_and(|died| stream.last().is_some_and(|last| last.epoch <= *died))
    }

    fn fold(&self, saga: SagaId, stream: &[Recorded]) -> Result<(Arc<Definition>, SagaState), Refusal> {
        let stuck = |reason: alloc::string::String| Refusal::Stuck(reason);
        let epoch = self.owns(saga.shard(self.limits.shards)).ok_or(Refusal::NotOwner)?;
        let first = stream.first().ok_or(Refusal::NoSuchSaga)?;
        let Event::SagaStarted(started) = &first.event else {
            return Err(stuck("its stream does not begin with SagaStarted".to_owned()));
        };
        let pinned = (started.definition.clone(), started.definition_version);
        let definition = self
            .definitions
            .get(&pinned)
            .ok_or_else(|| stuck(format!("definition {} version {} is not registered", pinned.0, pinned.1)))?;
        let state = SagaState::fold(definition, stream, Some(epoch)).map_err(|error| stuck(error.to_string()))?;
        Ok((Arc::clone(definition), state))
    }

    /// Lets a saga decide what waits in its inbox, up to the first decision that must be committed.
    pub(super) fn proceed(&mut self, saga: SagaId, now: Timestamp) {
        loop {
            let Some(resident) = self.residence.sagas.get_mut(&saga) else { return };
            if resident.deciding {
                return;
            }
            let mut unhurried = self.commits.unhurried.get_mut(saga);
            let follows = unhurried.is_some();
            match resident.inbox.front() {
                Some((Input::CallFinished { .. }, None)) | None => {}
                Some(_) if follows => return self.hurry(saga),
                Some(_) => {}
            }
            let Some((input, reply)) = resident.inbox.pop_front() else { break };
            let is_report = matches!(input, Input::Reported(_));
            let state = unhurried.as_mut().map_or(&mut resident.state, |pending| &mut pending.next);
            match decide::decide(&resident.definition, state, input, now) {
                Err(illegal) => {
                    self.effects.extend(reply.map(|reply| Effect::Reply(reply, Err(Refusal::Illegal(illegal)))));
                }
                Ok(decision) if decision.events.is_empty() => {
                    *state = decision.next;
                    let answer = reply.is_some().then(|| match is_report {
                        true => Err(Refusal::Known { version: state.version }),
                        false => Ok(state.row(&resident.definition)),
                    });
                    self.carry_out(decision.commands);
                    self.effects.extend(reply.zip(answer).map(|(reply, answer)| Effect::Reply(reply, answer)));
                }
                Ok(decision) => {
                    let version = state.version;
                    self.enqueue(saga, version, decision, reply, now);
                }
            }
        }
        if !self.commits.unhurried.contains(saga) {
            self.rest(saga, now);
        }
    }

    /// Queues a decision for the next commit, or keeps it for a while when nothing waits for that.
    fn enqueue(&mut self, saga: SagaId, version: u64, mut decision: Decision, reply: Option<R>, now: Timestamp) {
        let early = self.early_calls(saga, &mut decision.commands);
        let transition = self.transition(saga, version, &mut decision, Begun::default());
        let pending = Pending::new(transition, decision, reply);
        let hurried = pending.is_waited_for();
        match self.commits.unhurried.get_mut(saga) {
            Some(earlier) => {
                earlier.followed_by(pending);
                if hurried {
                    self.hurry(saga);
                }
            }
            None if hurried => self.queue(saga, pending),
            None => self.commits.unhurried.put(saga, pending, now),
        }
        early.into_iter().for_each(|invoke| self.invoke(invoke));
    }

    /// Puts a decision that was kept into the queue.
    pub(super) fn hurry(&mut self, saga: SagaId) {
        if let Some(pending) = self.commits.unhurried.take(saga) {
            self.queue(saga, pending);
        }
    }

    fn queue(&mut self, saga: SagaId, pending: Pending<R>) {
        if let Some(resident) = self.residence.get_mut(saga) {
            resident.deciding = true;
        }
        self.commits.push(pending);
    }

    /// Takes out the calls that the log permits already: actions of steps that were announced ahead.
    fn early_calls(&self, saga: SagaId, commands: &mut Vec<Command>) -> Vec<Box<Invoke>> {
        let committed = &self.residence.sagas[&saga].state;
        let is_ahead = |step: &str| committed.step(step).is_some_and(|step| step.is_ahead);
        let is_early = |command: &mut Command| match command {
            Command::Invoke(invoke) => invoke.operation == Operation::Action && is_ahead(&invoke.step),
            Command::SetTimer { .. } => false,
        };
        let early = commands.extract_if(.., is_early);
        early.filter_map(|command| if let Command::Invoke(invoke) = command { Some(invoke) } else { None }).collect()
    }

    /// Carries out commands whose announcement is durable.
    pub(super) fn carry_out(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Invoke(invoke) => self.invoke(invoke),
                // The timer follows from the state, see `rest`.
                Command::SetTimer { .. } => {}
            }
        }
    }

    /// A saga with nothing to decide: sets its timer, and lets it go if it has ended or sleeps for long.
    fn rest(&mut self, saga: SagaId, now: Timestamp) {
        let Some(resident) = self.residence.sagas.get(&saga) else { return };
        if resident.state.status.is_ended() {
            self.timers.set(saga, None);
            self.residence.sagas.remove(&saga);
            return;
        }
        let mut wake_at = decide::wake_at(&resident.definition, &resident.state);
        if resident.state.mode == Mode::Choreographed {
            // Each report makes way for the next one, soon: it stays for that.
            let quiet_at = Some(resident.state.updated_at.plus(self.limits.idle_max)).filter(|at| *at > now);
            wake_at = wake_at.into_iter().chain(quiet_at).min();
        }
        let is_ours = self.accepts(saga.shard(self.limits.shards));
        self.timers.set(saga, wake_at.filter(|_| is_ours));
        let in_flight = resident.state.steps.iter().any(|step| matches!(step.flight, Flight::Airborne(_)));
        let sleeps = wake_at.is_none_or(|at| at > now.plus(self.limits.idle_max));
        if !in_flight && sleeps {
            self.residence.sagas.remove(&saga);
        }
    }

    fn transition(&self, saga: SagaId, version: u64, decision: &mut Decision, begun: Begun) -> Transition {
        let definition = &self.residence.sagas[&saga].definition;
        let occurred_at = decision.next.updated_at;
        let events = (version + 1..)
            .zip(decision.events.drain(..))
            .map(|(version, announced)| NewEvent {
                version,
                type_name: Arc::from(announced.event.type_name(definition)),
                occurred_at,
                actor: announced.actor,
                origin: announced.origin,
                event: announced.event,
            })
            .collect();
        Transition {
            shard: saga.shard(self.limits.shards),
            row: decision.next.row(definition),
            events,
            start_key: begun.start_key,
            sealed_under: begun.sealed_under,
        }
    }
}
