//! What was committed of one saga, as the commits' own data: who has it needs not read it back.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use skald_core::{
    event::Fact,
    ids::SagaId,
    shard::batch::{Batch, Transition},
};
use tokio::sync::oneshot;

use super::{Started, is_settled};

/// Who waits for which saga to settle, and what was committed of it meanwhile.
#[derive(Debug, Default)]
pub(super) struct Awaited(HashMap<SagaId, (oneshot::Sender<History>, History)>);

impl Awaited {
    /// Before the saga's first commit is told of.
    pub fn insert(&mut self, saga: SagaId, settled: oneshot::Sender<History>) {
        self.0.insert(saga, (settled, History::default()));
    }

    pub fn committed(&mut self, batch: &Arc<Batch>, index: usize) {
        let row = &batch.transitions[index].row;
        let Entry::Occupied(mut awaited) = self.0.entry(row.id) else { return };
        awaited.get_mut().1.push(batch, index);
        if is_settled(row.status) {
            let (settled, history) = awaited.remove();
            // Whoever waited may have left.
            let _ = settled.send(history);
        }
    }

    /// Forgets those who left.
    pub fn sweep(&mut self) {
        self.0.retain(|_, (settled, _)| !settled.is_closed());
    }
}

/// Transitions of one saga, in their order, with the batch that each was committed in.
#[derive(Clone, Debug, Default)]
pub struct History(Vec<(Arc<Batch>, usize)>);

impl History {
    fn push(&mut self, batch: &Arc<Batch>, index: usize) {
        self.0.push((Arc::clone(batch), index));
    }

    /// The saga as the last transition left it; with its history, unless somebody else carried it on in between.
    pub(super) fn into_started(self) -> Option<Started> {
        let (batch, index) = self.0.last()?;
        let row = batch.transitions[*index].row.clone();
        let is_whole = self.facts().map(|fact| fact.version).eq(1..=row.version);
        Some(Started { row, history: is_whole.then_some(self) })
    }

    /// Its events.
    pub fn facts(&self) -> impl Iterator<Item = Fact<'_>> {
        self.0.iter().flat_map(|(batch, index)| facts(batch, &batch.transitions[*index]))
    }
}

fn facts<'a>(batch: &'a Batch, transition: &'a Transition) -> impl Iterator<Item = Fact<'a>> {
    let fence = batch.fences.iter().find(|fence| fence.shard == transition.shard);
    let epoch = fence.expect("every transition lies in a fenced shard").epoch;
    transition.events.iter().map(move |event| Fact {
        stream: transition.row.id,
        version: event.version,
        epoch,
        occurred_at: event.occurred_at,
        event: &event.event,
    })
}

#[cfg(test)]
mod tests {
    use skald_core::{
        ids::{Epoch, Shard},
        shard::batch::Fence,
    };

    use super::*;
    use crate::storage::conformance::sample::Saga;

    #[test]
    fn a_stream_is_whole_or_it_is_none() {
        let fences = vec![Fence { shard: Shard(0), epoch: Epoch(3) }];
        let mut saga = Saga::new(0, 1);
        let batches = [saga.create(), saga.step(), saga.complete()].map(|transition| {
            Arc::new(Batch { fences: fences.clone(), transitions: vec![transition], appends: vec![] })
        });
        let of = |batches: &[&Arc<Batch>]| {
            let mut history = History::default();
            batches.iter().for_each(|batch| history.push(batch, 0));
            history.into_started()
        };
        let [created, stepped, completed] = &batches;
        let whole = of(&[created, stepped, completed]).unwrap();
        assert_eq!(whole.row, saga.row);
        let history = whole.history.unwrap();
        assert_eq!(history.facts().last().unwrap().version, saga.row.version);
        assert!(history.facts().all(|fact| fact.epoch == Epoch(3) && fact.stream == saga.id()));
        for partial in [&[created, completed][..], &[stepped, completed]] {
            let started = of(partial).unwrap();
            assert_eq!((started.row, started.history.is_none()), (saga.row.clone(), true));
        }
        assert!(of(&[]).is_none());
    }
}
