//! Giving shards up in good order: what was begun ends and is committed, nothing new begins.
//!
//! | in a draining shard | |
//! | --- | --- |
//! | a start under a key, an operator's command, a callback, an append | refused: the next owner takes it |
//! | a start without a key | goes to another shard |
//! | a saga's time comes | it is not looked at: the next owner does |
//! | a saga is being loaded, a stream looked up | whoever waits for it is refused |
//! | an append waits for its commit | it is committed |
//! | a call in flight ends | its report is decided and committed |
//! | a call that this announces | is not made: the next owner makes it |
//!
//! When no call is in flight and nothing waits for a commit, the shard is drained and can be forgotten.

use alloc::{boxed::Box, vec::Vec};

use super::writer::{Effect, Refusal, Writer};
use crate::{
    decide::Invoke,
    ids::{SagaId, Shard},
};

impl<R, A> Writer<R, A> {
    /// Begins to give these shards up; [`Writer::drained`] tells when what was begun has ended. There is no way back but
    /// to forget the shard ([`Writer::lose`]) and own it again.
    pub fn drain(&mut self, shards: &[Shard]) {
        let total = self.limits.shards;
        let stays = |saga: SagaId| !shards.contains(&saga.shard(total));
        for shard in shards {
            if let Some(owned) = self.owned.get_mut(shard) {
                owned.draining = true;
            }
        }
        self.timers.retain(stays);
        for reply in self.residence.retain_loading(stays) {
            self.effects.push_back(Effect::Reply(reply, Err(Refusal::NotOwner)));
        }
        self.load_wanted();
        self.retain_lines(|shard| !shards.contains(&shard));
    }

    /// Draining shards in which nothing goes on any more.
    #[must_use]
    pub fn drained(&self) -> Vec<Shard> {
        let at_rest = self.owned.iter().filter(|(_, owned)| owned.draining && owned.calls.is_empty());
        at_rest.map(|(shard, _)| *shard).filter(|shard| !self.commits.concern(*shard, self.limits.shards)).collect()
    }

    /// Whether new work in the shard is taken on here.
    #[must_use]
    pub fn accepts(&self, shard: Shard) -> bool {
        self.owned.get(&shard).is_some_and(|owned| !owned.draining)
    }

    /// Asks for the call, unless its shard is being given up: then it was announced and the next owner makes it.
    pub(super) fn invoke(&mut self, invoke: Box<Invoke>) {
        let shard = invoke.saga.shard(self.limits.shards);
        if let Some(owned) = self.owned.get_mut(&shard)
            && !owned.draining
        {
            self.sagas_calling += usize::from(!owned.is_calling(invoke.saga));
            self.in_flight += usize::from(owned.calls.insert((invoke.saga, invoke.call)));
            self.effects.push_back(Effect::Invoke(invoke));
        }
    }

    pub(super) fn call_ended(&mut self, saga: SagaId, call: u64) {
        if let Some(owned) = self.owned.get_mut(&saga.shard(self.limits.shards))
            && owned.calls.remove(&(saga, call))
        {
            self.in_flight -= 1;
            self.sagas_calling -= usize::from(!owned.is_calling(saga));
        }
    }
}
