//! When which saga must be looked at: one time per saga, whether it is in memory or not.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::{ids::SagaId, time::Timestamp};

#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(Timestamp, SagaId)>,
    by_saga: BTreeMap<SagaId, Timestamp>,
}

impl Timers {
    /// Sets, moves or (with None) removes the time of a saga.
    pub fn set(&mut self, saga: SagaId, at: Option<Timestamp>) {
        let before = match at {
            Some(at) => self.by_saga.insert(saga, at),
            None => self.by_saga.remove(&saga),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, saga));
        }
        if let Some(at) = at {
            self.by_time.insert((at, saga));
        }
    }

    /// Removes and returns one saga whose time has come.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<SagaId> {
        let (at, saga) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.set(saga, None);
        Some(saga)
    }

    pub fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }

    pub fn len(&self) -> usize {
        self.by_saga.len()
    }

    pub fn retain(&mut self, mut keep: impl FnMut(SagaId) -> bool) {
        self.by_saga.retain(|saga, _| keep(*saga));
        self.by_time.retain(|(_, saga)| keep(*saga));
    }
}
