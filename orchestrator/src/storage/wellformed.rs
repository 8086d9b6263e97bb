//! What every batch must satisfy before a database sees it.
//!
//! A database would catch some of this, but not each the same, and both backends shall refuse the same batches.

use std::collections::HashSet;

use skald_core::shard::batch::{Batch, CommitError, Transition};

/// The most bytes of a name or key that both databases can hold in an index, two at a time.
const INDEXED_BYTES_MAX: usize = 1000;

/// Refuses a batch that breaks the contract of [`Batch`].
pub fn check(batch: &Batch) -> Result<(), CommitError> {
    if !batch.fences.is_sorted_by(|one, next| one.shard < next.shard) {
        return Err(refused("the fences are not in ascending order".to_owned()));
    }
    let mut sagas = HashSet::with_capacity(batch.transitions.len());
    for transition in &batch.transitions {
        if !sagas.insert(transition.row.id) {
            return Err(refused(format!("saga {} has two transitions in one batch", transition.row.id)));
        }
        check_transition(batch, transition)?;
    }
    Ok(())
}

fn check_transition(batch: &Batch, transition: &Transition) -> Result<(), CommitError> {
    let row = &transition.row;
    let id = row.id;
    if fence_index(batch, transition).is_none() {
        return Err(refused(format!("saga {id} lies in shard {}, which has no fence", transition.shard)));
    }
    let Some((first, last)) = transition.events.first().zip(transition.events.last()) else {
        return Err(refused(format!("saga {id} has a transition without events")));
    };
    let consecutive = transition.events.windows(2).all(|pair| pair[1].version == pair[0].version + 1);
    if first.version == 0 || !consecutive || last.version != row.version {
        return Err(refused(format!("saga {id}: the events do not lead up to version {}", row.version)));
    }
    if transition.start_key.is_some() && !transition.creates() {
        return Err(refused(format!("saga {id} exists already and cannot take a start key")));
    }
    check_text(transition)
}

fn check_text(transition: &Transition) -> Result<(), CommitError> {
    let row = &transition.row;
    let (key_definition, key) =
        transition.start_key.as_ref().map_or(("", ""), |key| (&*key.definition, key.key.as_str()));
    let indexed = [&*row.definition, &*row.correlation_id, key_definition, key];
    if indexed.iter().any(|text| text.len() > INDEXED_BYTES_MAX) {
        return Err(refused(format!("saga {} has a name or a key of more than {INDEXED_BYTES_MAX} bytes", row.id)));
    }
    // PostgreSQL cannot store this character in text; SQLite could, but would cut the text off there when asked.
    let free = transition.events.iter().flat_map(|event| [&*event.type_name, event.actor.as_deref().unwrap_or("")]);
    if indexed.into_iter().chain([row.state.as_str()]).chain(free).any(|text| text.contains('\0')) {
        return Err(refused(format!("saga {} has a NUL character in a name or a key", row.id)));
    }
    Ok(())
}

/// Where the fence of a transition is among the batch's fences.
pub fn fence_index(batch: &Batch, transition: &Transition) -> Option<usize> {
    batch.fences.binary_search_by_key(&transition.shard, |fence| fence.shard).ok()
}

fn refused(reason: String) -> CommitError {
    CommitError::Refused(reason)
}
