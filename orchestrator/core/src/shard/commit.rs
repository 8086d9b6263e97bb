//! Group commit: what is queued while a commit is under way goes into the next one. What nothing waits for stays out, for
//! a while ([`unhurried`](super::unhurried)).
//!
//! | a commit ends | what follows |
//! | --- | --- |
//! | applied | each saga takes its next state, its calls are made, its answer is given |
//! | not applied | the same batch again, a little later |
//! | refused | the batch is halved until the offender fails alone |
//! | fenced | the lost shards are forgotten, the rest is committed again |
//! | in doubt | every shard of the batch is forgotten, to be taken again |

use alloc::{collections::BTreeSet, string::ToString, sync::Arc, vec::Vec};

use super::{
    batch::{Append, Batch, CommitError, Fence, Transition},
    queue::{Aftermath, Pending, PendingAppend, UnderWay},
    writer::{Effect, Refusal, Writer},
};
use crate::{
    ids::Shard,
    time::{Millis, Timestamp},
};

/// How long to wait before a batch that was not applied is tried again.
const COMMIT_AGAIN_AFTER: Millis = Millis(200);

impl<R, A> Writer<R, A> {
    /// Asks for the next commit, if none is under way and something waits.
    pub(super) fn commit_if_idle(&mut self, now: Timestamp) {
        if self.commits.under_way.is_some() || self.commits.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.commits.retry_at = None;
        while let Some(saga) = self.commits.unhurried.pop_due(now) {
            self.hurry(saga);
        }
        let next = match self.commits.again.pop_front() {
            Some(again) => again,
            None if self.commits.queue.is_empty() && self.commits.appends.is_empty() => return,
            None => {
                let count = self.commits.queue.len().min(self.limits.batch_max);
                let pending = self.commits.queue.drain(..count).collect();
                let count = self.commits.appends_that_fit(self.limits.batch_max);
                let appends = self.commits.appends.drain(..count).collect();
                self.assemble(pending, appends)
            }
        };
        self.effects.push_back(Effect::Commit(Arc::clone(&next.batch)));
        self.commits.under_way = Some(next);
    }

    fn assemble(&self, pending: Vec<Pending<R>>, appended: Vec<PendingAppend<A>>) -> UnderWay<R, A> {
        let mut transitions = Vec::with_capacity(pending.len());
        let mut aftermaths = Vec::with_capacity(pending.len());
        for Pending { transition, next, commands, reply } in pending {
            transitions.push(transition);
            aftermaths.push(Aftermath { next, commands, reply });
        }
        let (appends, asked) = appended.into_iter().map(|pending| (pending.append, pending.asked)).unzip();
        UnderWay::new(self.fenced(transitions, appends), aftermaths, asked)
    }

    fn fenced(&self, transitions: Vec<Transition>, appends: Vec<Append>) -> Batch {
        let shards = transitions.iter().map(|transition| transition.shard);
        let shards: BTreeSet<Shard> = shards.chain(appends.iter().map(|append| append.shard)).collect();
        let fences = shards
            .into_iter()
            .map(|shard| {
                let epoch = self.owned.get(&shard).expect("what a lost shard had queued was dropped with it").epoch;
                Fence { shard, epoch }
            })
            .collect();
        Batch { fences, transitions, appends }
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

    fn apply(&mut self, done: UnderWay<R, A>, now: Timestamp) {
        let UnderWay { batch, aftermaths, asked, .. } = done;
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
            if transition.creates() {
                self.admission.acknowledged(transition.row.created_at, self.active(), now);
            }
            let Some(resident) = self.residence.get_mut(saga) else { continue };
            resident.state = next;
            resident.deciding = false;
            let definition = Arc::clone(&resident.definition);
            let traceparent = resident.state.traceparent.clone();
            self.effects.push_back(Effect::Committed {
                shard: transition.shard,
                batch: Arc::clone(&batch),
                index,
                definition,
                traceparent,
            });
            self.carry_out(commands);
            self.proceed(saga, now);
        }
        for (append, asked) in batch.appends.iter().zip(asked) {
            self.answer_appended(append, asked);
            if self.holds(append.shard, &batch.fences) {
                self.advance_line(&append.name);
            }
        }
        self.look_up_wanted();
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

    fn try_again(&mut self, batch: UnderWay<R, A>) {
        let held = self.without_lost(batch);
        if let Some(held) = held {
            self.commits.again.push_front(held);
        }
    }

    /// The part of a batch whose shards are still held under its epochs; the rest is answered and dropped.
    fn without_lost(&mut self, batch: UnderWay<R, A>) -> Option<UnderWay<R, A>> {
        if batch.batch.fences.iter().all(|fence| self.owns(fence.shard) == Some(fence.epoch)) {
            return Some(batch);
        }
        let UnderWay { batch, aftermaths, asked, .. } = batch;
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
        let mut appends = (Vec::new(), Vec::new());
        for (append, asked) in batch.appends.iter().zip(asked) {
            if self.holds(append.shard, &batch.fences) {
                appends.0.push(append.clone());
                appends.1.push(asked);
            } else {
                self.refuse_asked(asked, &Refusal::NotOwner);
            }
        }
        if held.0.is_empty() && appends.0.is_empty() {
            return None;
        }
        Some(UnderWay::new(self.fenced(held.0, appends.0), held.1, appends.1))
    }

    fn answer_in_doubt(&mut self, batch: UnderWay<R, A>) {
        for transition in &batch.batch.transitions {
            self.commits.settle_key(transition);
        }
        for reply in batch.aftermaths.into_iter().filter_map(|aftermath| aftermath.reply) {
            self.effects.push_back(Effect::Reply(reply, Err(Refusal::InDoubt)));
        }
        for asked in batch.asked {
            self.refuse_asked(asked, &Refusal::InDoubt);
        }
    }

    /// Halves a refused batch; a batch of one is the offender.
    fn isolate(&mut self, refused: UnderWay<R, A>, reason: &str) {
        if refused.len() > 1 {
            return self.halve(refused);
        }
        let UnderWay { batch, aftermaths, asked, .. } = refused;
        for (append, asked) in batch.appends.iter().zip(asked) {
            self.refuse_append(append, asked, Refusal::Unwritable(reason.to_string()));
        }
        for (transition, aftermath) in batch.transitions.iter().zip(aftermaths) {
            self.refuse_transition(transition, aftermath.reply, reason);
        }
    }

    /// The first half is tried first.
    fn halve(&mut self, refused: UnderWay<R, A>) {
        let middle = refused.len() / 2;
        let UnderWay { batch, mut aftermaths, mut asked, .. } = refused;
        let (mut transitions, mut appends) = (batch.transitions.clone(), batch.appends.clone());
        let in_transitions = middle.min(transitions.len());
        let in_appends = middle - in_transitions;
        let later = (transitions.split_off(in_transitions), appends.split_off(in_appends));
        let later = (later, aftermaths.split_off(in_transitions), asked.split_off(in_appends));
        for ((transitions, appends), aftermaths, asked) in [later, ((transitions, appends), aftermaths, asked)] {
            self.try_again(UnderWay::new(self.fenced(transitions, appends), aftermaths, asked));
        }
    }

    fn refuse_transition(&mut self, transition: &Transition, reply: Option<R>, reason: &str) {
        let saga = transition.row.id;
        self.commits.settle_key(transition);
        let refusal = match (&transition.start_key, &transition.sealed_under) {
            (Some(_), _) => Refusal::KeyExists,
            (None, Some(_)) => Refusal::Unwritable(reason.to_string()),
            (None, None) => Refusal::Stuck(reason.to_string()),
        };
        let owed: Vec<R> = reply.into_iter().chain(self.residence.retain(|resident| resident != saga)).collect();
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
            if let Some(owned) = self.owned.remove(shard) {
                self.in_flight -= owned.calls.len();
                self.sagas_calling -= owned.sagas_calling();
            }
        }
        self.timers.retain(|saga| !gone(saga.shard(total)));
        let mut owed = self.residence.retain(|saga| !gone(saga.shard(total)));
        self.commits.unhurried.retain(|saga| !gone(saga.shard(total)));
        for pending in core::mem::take(&mut self.commits.queue) {
            if gone(pending.transition.shard) {
                self.commits.settle_key(&pending.transition);
                owed.extend(pending.reply);
            } else {
                self.commits.queue.push_back(pending);
            }
        }
        for pending in core::mem::take(&mut self.commits.appends) {
            if gone(pending.append.shard) {
                self.refuse_asked(pending.asked, &Refusal::NotOwner);
            } else {
                self.commits.appends.push_back(pending);
            }
        }
        self.retain_lines(|shard| !gone(shard));
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
