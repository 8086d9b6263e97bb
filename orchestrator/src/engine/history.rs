//! What was committed of one saga, as the commits' own data: who has it needs not read it back.

use std::sync::Arc;

use skald_core::{
    event::Recorded,
    shard::batch::{Batch, Transition},
};

use super::Started;

/// Transitions of one saga, in their order, with the batch that each was committed in.
#[derive(Debug, Default)]
pub(super) struct History(Vec<(Arc<Batch>, usize)>);

impl History {
    pub fn push(&mut self, batch: &Arc<Batch>, index: usize) {
        self.0.push((Arc::clone(batch), index));
    }

    /// The saga as the last transition left it; with its stream, unless somebody else carried it on in between.
    pub fn into_started(self) -> Option<Started> {
        let (batch, index) = self.0.last()?;
        let row = batch.transitions[*index].row.clone();
        let stream: Vec<Recorded> =
            self.0.iter().flat_map(|(batch, index)| recorded(batch, &batch.transitions[*index])).collect();
        let is_whole = stream.iter().map(|recorded| recorded.version).eq(1..=row.version);
        Some(Started { row, stream: is_whole.then_some(stream) })
    }
}

fn recorded<'a>(batch: &'a Batch, transition: &'a Transition) -> impl Iterator<Item = Recorded> + 'a {
    let fence = batch.fences.iter().find(|fence| fence.shard == transition.shard);
    let epoch = fence.map(|fence| fence.epoch).unwrap_or_default();
    transition.events.iter().map(move |event| Recorded {
        stream: transition.row.id,
        version: event.version,
        shard: transition.shard,
        // Only the database knows.
        position: 0,
        epoch,
        occurred_at: event.occurred_at,
        type_name: Arc::clone(&event.type_name),
        actor: event.actor.as_deref().map(str::to_owned),
        event: event.event.clone(),
    })
}
