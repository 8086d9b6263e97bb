//! Decisions whose commit nothing waits for: the calls that follow from them were announced ahead and are under way.
//!
//! When the next call of the saga ends, that is decided on what this one led to, and both become one transition; so on
//! until something waits for the commit (a call that was not announced yet, the end of the saga, ..), or some time has
//! passed. What a crash takes away is learned again: the calls are made again under their keys.

use alloc::collections::{BTreeMap, VecDeque};

use super::queue::Pending;
use crate::{
    ids::SagaId,
    time::{Millis, Timestamp},
};

/// How long such a decision waits for the next one of its saga. Those who follow the log hear of it so much later.
const UNHURRIED_MAX: Millis = Millis(25);

#[derive(Debug)]
pub(super) struct Unhurried<R> {
    decisions: BTreeMap<SagaId, (Timestamp, Pending<R>)>,
    /// In the order of time; an entry whose decision has gone means nothing.
    due: VecDeque<(Timestamp, SagaId)>,
}

impl<R> Default for Unhurried<R> {
    fn default() -> Self {
        Self { decisions: BTreeMap::new(), due: VecDeque::new() }
    }
}

impl<R> Unhurried<R> {
    pub fn len(&self) -> usize {
        self.decisions.len()
    }

    pub fn contains(&self, saga: SagaId) -> bool {
        self.decisions.contains_key(&saga)
    }

    pub fn get_mut(&mut self, saga: SagaId) -> Option<&mut Pending<R>> {
        self.decisions.get_mut(&saga).map(|(_, pending)| pending)
    }

    pub fn sagas(&self) -> impl Iterator<Item = SagaId> {
        self.decisions.keys().copied()
    }

    pub fn put(&mut self, saga: SagaId, pending: Pending<R>, now: Timestamp) {
        let due = now.plus(UNHURRIED_MAX);
        self.due.push_back((due, saga));
        self.decisions.insert(saga, (due, pending));
    }

    pub fn take(&mut self, saga: SagaId) -> Option<Pending<R>> {
        self.decisions.remove(&saga).map(|(_, pending)| pending)
    }

    /// A saga whose decision has waited long enough.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<SagaId> {
        while let Some((due, saga)) = self.due.pop_front_if(|(due, _)| *due <= now) {
            if self.decisions.get(&saga).is_some_and(|(since, _)| *since == due) {
                return Some(saga);
            }
        }
        None
    }

    /// When [`Unhurried::pop_due`] is next worth asking.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.front().map(|(due, _)| *due)
    }

    pub fn retain(&mut self, keep: impl Fn(SagaId) -> bool) {
        self.decisions.retain(|saga, _| keep(*saga));
    }
}
