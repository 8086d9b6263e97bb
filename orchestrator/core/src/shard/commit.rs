//! Group commit: what is queued while a commit is under way goes into the next one.
//!
//! | a commit ends | what follows |
//! | --- | --- |
//! | applied | each saga takes its next state, its calls are made, its answer is given |
//! | not applied | the same batch again, a little later |
//! | refused | the batch is halved until the offender fails alone |
//! | fenced | the lost shards are forgotten, the rest is committed again |
//! | in doubt | every shard of the batch is forgotten, to be taken again |

use alloc::{
    collections::{BTreeSet, VecDeque},
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use super::{
    batch::{Batch, CommitError, Fence, StartKey, Transition},
    writer::{Effect, Refusal, Writer},
};
use crate::{
    decide::Command,
    ids::Shard,
    state::SagaState,
    time::{Millis, Timestamp},
};

/// How long to wait before a batch that was not applied is tried again.
const COMMIT_AGAIN_AFTER: Millis = Millis(200);

/// A decision that waits to become durable.
#[derive(Debug)]
pub(super) struct Pending<R> {
    pub transition: Transition,
    pub next: SagaState,
    pub commands: Vec<Command>,
    pub reply: Option<R>,
}

/// What follows a transition once it is durable.
#[derive(Debug)]
struct Aftermath<R> {
    next: SagaState,
    commands: Vec<Command>,
    reply: Option<R>,
}

#[derive(Debug)]
struct UnderWay<R> {
    batch: Arc<Batch>,
    /// By index of the batch's transitions.
    aftermaths: Vec<Aftermath<R>>,
}

#[derive(Debug)]
pub(super) struct Commits<R> {
    queue: VecDeque<Pending<R>>,
    /// Batches to be tried again before anything from the queue.
    again: VecDeque<UnderWay<R>>,
    under_way: Option<UnderWay<R>>,
    retry_at: Option<Timestamp>,
    stalled: Option<String>,
    /// Keys of starts that are queued or being committed.
    keys: BTreeSet<(Arc<str>, String)>,
}

impl<R> Default for Commits<R> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            again: VecDeque::new(),
            under_way: None,
            retry_at: None,
            stalled: None,
            keys: BTreeSet::new(),
        }
    }
}

impl<R> Commits<R> {
    pub fn queued(&self) -> usize {
        self.queue.len() + self.again.iter().map(|batch| batch.aftermaths.len()).sum::<usize>()
    }

    pub fn retry_at(&self) -> Option<Timestamp> {
        self.retry_at
    }

    pub fn stalled(&self) -> Option<&str> {
        self.stalled.as_deref()
    }

    /// Whether something of this shard is queued or being committed.
    pub fn concern(&self, shard: Shard) -> bool {
        let mut batches = self.again.iter().chain(&self.under_way);
        self.queue.iter().any(|pending| pending.transition.shard == shard)
            || batches.any(|under_way| under_way.batch.fences.iter().any(|fence| fence.shard == shard))
    }

    pub fn holds_key(&self, key: &StartKey) -> bool {
        self.keys.contains(&(Arc::clone(&key.definition), key.key.clone()))
    }

    pub fn push(&mut self, pending: Pending<R>) {
        if let Some(key) = &pending.transition.start_key {
            self.keys.insert((Arc::clone(&key.definition), key.key.clone()));
        }
        self.queue.push_back(pending);
    }

    /// With nothing left to be tried again, no commit would ever show that they get through after all.
    fn forget_stall(&mut self) {
        if self.again.is_empty() && self.under_way.is_none() {
            self.stalled = None;
            self.retry_at = None;
        }
    }

    fn settle_key(&mut self, transition: &Transition) {
        if let Some(key) = &transition.start_key {
            self.keys.remove(&(Arc::clone(&key.definition), key.key.clone()));
        }
    }
}

impl<R> Writer<R> {
    /// Asks for the next commit, if none is under way and something waits.
    pub(super) fn commit_if_idle(&mut self, now: Timestamp) {
        if self.commits.under_way.is_some() || self.commits.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.commits.retry_at = None;
        let next = match self.commits.again.pop_front() {
            Some(again) => again,
            None if self.commits.queue.is_empty() => return,
            None => {
                let count = self.commits.queue.len().min(self.limits.batch_max);
                let pending = self.commits.queue.drain(..count).collect();
                self.assemble(pending)
            }
        };
        self.effects.push_back(Effect::Commit(Arc::clone(&next.batch)));
        self.commits.under_way = Some(next);
    }

    fn assemble(&self, pending: Vec<Pending<R>>) -> UnderWay<R> {
        let mut transitions = Vec::with_capacity(pending.len());
        let mut aftermaths = Vec::with_capacity(pending.len());
        for Pending { transition, next, commands, reply } in pending {
            transitions.push(transition);
            aftermaths.push(Aftermath { next, commands, reply });
        }
        UnderWay { batch: Arc::new(self.fenced(transitions)), aftermaths }
    }

    fn fenced(&self, transitions: Vec<Transition>) -> Batch {
        let shards: BTreeSet<Shard> = transitions.iter().map(|transition| transition.shard).collect();
        let fences = shards
            .into_iter()
            .map(|shard| {
                let epoch = self.owned.get(&shard).expect("what a lost shard had queued was dropped with it").epoch;
                Fence { shard, epoch }
            })
            .collect();
        Batch { fences, transitions, appends: Vec::new() }
    }

    /// The commit under way ended.
    pub fn committed(&mut self, result: Result<(), CommitError>, now: Timestamp) {
        let Some(done) = self.commits.under_way.take() else { return };
        self.commits.stalled = None;
        match result {
            Ok(()) => self.apply(done, now),
            Err(CommitError::NotApplied(reason)) => {
                self.commits.stalled = Some(reason);
                self.commits.retry_at = Some(now.plus(COMMIT_AGAIN_AFTER));
                self.try_again(done);
                self.commits.forget_stall();
            }
            Err(CommitError::Refused(reason)) => {
                if let Some(held) = self.without_lost(done) {
                    self.isolate(held, &reason);
                }
            }
            Err(CommitError::Fenced(lost)) => {
                let lost: Vec<Shard> =
                    lost.into_iter().filter(|shard| self.holds(*shard, &done.batch.fences)).collect();
                self.forget(&lost);
                self.try_again(done);
                self.effects.push_back(Effect::Forgotten(lost));
            }
            Err(CommitError::InDoubt(_)) => {
                let shards: Vec<Shard> = done.batch.fences.iter().map(|fence| fence.shard).collect();
                let doubted: Vec<Shard> =
                    shards.into_iter().filter(|shard| self.holds(*shard, &done.batch.fences)).collect();
                self.answer_in_doubt(done);
                self.forget(&doubted);
                self.effects.push_back(Effect::Forgotten(doubted));
            }
        }
        self.load_wanted();
        self.commit_if_idle(now);
    }

    fn apply(&mut self, done: UnderWay<R>, now: Timestamp) {
        let UnderWay { batch, aftermaths } = done;
        for (index, Aftermath { next, commands, reply }) in aftermaths.into_iter().enumerate() {
            let transition = &batch.transitions[index];
            let saga = transition.row.id;
            self.commits.settle_key(transition);
            self.effects.extend(reply.map(|reply| Effect::Reply(reply, Ok(transition.row.clone()))));
            // A shard that was lost while the commit was under way is another's business, or a later epoch's.
            if !self.holds(transition.shard, &batch.fences) {
                continue;
            }
            self.count_unfinished(transition);
            let Some(resident) = self.residence.get_mut(saga) else { continue };
            resident.state = next;
            resident.deciding = false;
            let definition = Arc::clone(&resident.definition);
            self.effects.push_back(Effect::Committed {
                shard: transition.shard,
                batch: Arc::clone(&batch),
                index,
                definition,
            });
            self.carry_out(commands);
            self.proceed(saga, now);
        }
    }

    fn count_unfinished(&mut self, transition: &Transition) {
        if let Some(owned) = self.owned.get_mut(&transition.shard) {
            owned.unfinished += usize::from(transition.creates());
            owned.unfinished -= usize::from(transition.row.status.is_ended()).min(owned.unfinished);
        }
    }

    /// Whether the shard is still owned under the epoch that a batch was made for.
    fn holds(&self, shard: Shard, fences: &[Fence]) -> bool {
        let fence = fences.iter().find(|fence| fence.shard == shard);
        fence.is_some_and(|fence| self.owns(shard) == Some(fence.epoch))
    }

    fn try_again(&mut self, batch: UnderWay<R>) {
        let held = self.without_lost(batch);
        if let Some(held) = held {
            self.commits.again.push_front(held);
        }
    }

    /// The part of a batch whose shards are still held under its epochs; the rest is answered and dropped.
    fn without_lost(&mut self, batch: UnderWay<R>) -> Option<UnderWay<R>> {
        let UnderWay { batch, aftermaths } = batch;
        if batch.fences.iter().all(|fence| self.owns(fence.shard) == Some(fence.epoch)) {
            return Some(UnderWay { batch, aftermaths });
        }
        let mut held = (Vec::new(), Vec::new());
        for (transition, aftermath) in batch.transitions.iter().zip(aftermaths) {
            if self.holds(transition.shard, &batch.fences) {
                held.0.push(transition.clone());
                held.1.push(aftermath);
            } else {
                self.commits.settle_key(transition);
                self.effects.extend(aftermath.reply.map(|reply| Effect::Reply(reply, Err(Refusal::NotOwner))));
            }
        }
        (!held.0.is_empty()).then(|| UnderWay { batch: Arc::new(self.fenced(held.0)), aftermaths: held.1 })
    }

    fn answer_in_doubt(&mut self, batch: UnderWay<R>) {
        for transition in &batch.batch.transitions {
            self.commits.settle_key(transition);
        }
        for reply in batch.aftermaths.into_iter().filter_map(|aftermath| aftermath.reply) {
            self.effects.push_back(Effect::Reply(reply, Err(Refusal::InDoubt)));
        }
    }

    /// Halves a refused batch; a batch of one is the offender.
    fn isolate(&mut self, refused: UnderWay<R>, reason: &str) {
        if refused.aftermaths.len() > 1 {
            let UnderWay { batch, mut aftermaths } = refused;
            let mut transitions = batch.transitions.clone();
            let middle = transitions.len() / 2;
            let later = (transitions.split_off(middle), aftermaths.split_off(middle));
            for (transitions, aftermaths) in [later, (transitions, aftermaths)] {
                let batch = Arc::new(self.fenced(transitions));
                self.try_again(UnderWay { batch, aftermaths });
            }
            return;
        }
        let transition = &refused.batch.transitions[0];
        let saga = transition.row.id;
        self.commits.settle_key(transition);
        let refusal = match &transition.start_key {
            Some(_) => Refusal::KeyExists,
            None => Refusal::Stuck(reason.to_string()),
        };
        let asked = refused.aftermaths.into_iter().filter_map(|aftermath| aftermath.reply);
        let owed: Vec<R> = asked.chain(self.residence.retain(|resident| resident != saga)).collect();
        for reply in owed {
            self.effects.push_back(Effect::Reply(reply, Err(refusal.clone())));
        }
        if let Refusal::Stuck(reason) = refusal {
            self.effects.push_back(Effect::Stuck { saga, reason });
        }
    }

    /// Forgets shards and everything about them, except what is under way to the database.
    pub(super) fn forget(&mut self, shards: &[Shard]) {
        let total = self.limits.shards;
        let gone = |shard: Shard| shards.contains(&shard);
        for shard in shards {
            self.owned.remove(shard);
        }
        self.timers.retain(|saga| !gone(saga.shard(total)));
        let mut owed = self.residence.retain(|saga| !gone(saga.shard(total)));
        for pending in core::mem::take(&mut self.commits.queue) {
            if gone(pending.transition.shard) {
                self.commits.settle_key(&pending.transition);
                owed.extend(pending.reply);
            } else {
                self.commits.queue.push_back(pending);
            }
        }
        for batch in core::mem::take(&mut self.commits.again) {
            let held = self.without_lost(batch);
            self.commits.again.extend(held);
        }
        self.commits.forget_stall();
        for reply in owed {
            self.effects.push_back(Effect::Reply(reply, Err(Refusal::NotOwner)));
        }
    }
}
