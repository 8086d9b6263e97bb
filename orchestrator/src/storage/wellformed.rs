//! What every batch must satisfy before a database sees it.
//!
//! A database would catch some of this, but not each the same, and both backends shall refuse the same batches.

use std::{collections::HashSet, sync::Arc};

use skald_core::{
    ids::Shard,
    shard::batch::{Append, Batch, CommitError, Origin, Transition},
};

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
    let (mut streams, mut names) = (HashSet::new(), HashSet::new());
    for append in &batch.appends {
        if sagas.contains(&append.stream) || !streams.insert(append.stream) || !names.insert(&append.name) {
            return Err(refused(format!("stream {} has two appends in one batch", append.name)));
        }
        check_append(batch, append)?;
    }
    Ok(())
}

/// Whether anything in it came from outside, which takes more columns and the table of streams to say.
pub fn is_from_outside(batch: &Batch) -> bool {
    let mut own = batch.transitions.iter().flat_map(|transition| &transition.events);
    !batch.appends.is_empty() || own.any(|event| event.origin != Origin::default())
}

/// Whether a saga begins in it that holds personal data.
pub fn is_sealed(batch: &Batch) -> bool {
    batch.transitions.iter().any(|transition| transition.sealed_under.is_some())
}

fn check_transition(batch: &Batch, transition: &Transition) -> Result<(), CommitError> {
    let row = &transition.row;
    let id = row.id;
    if fence_index(batch, transition.shard).is_none() {
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
    if transition.sealed_under.is_some() && !transition.creates() {
        return Err(refused(format!("saga {id} exists already and cannot be sealed under another key")));
    }
    check_text(transition)
}

fn check_text(transition: &Transition) -> Result<(), CommitError> {
    let row = &transition.row;
    let (key_definition, key) =
        transition.start_key.as_ref().map_or(("", ""), |key| (&*key.definition, key.key.as_str()));
    let event_ids = transition.events.iter().map(|event| text(event.origin.event_id.as_ref()));
    let indexed = [&*row.definition, &*row.correlation_id, key_definition, key];
    if indexed.into_iter().chain(event_ids.clone()).any(|text| text.len() > INDEXED_BYTES_MAX) {
        return Err(refused(format!("saga {} has a name or a key of more than {INDEXED_BYTES_MAX} bytes", row.id)));
    }
    let free = transition
        .events
        .iter()
        .flat_map(|event| [&*event.type_name, text(event.actor.as_ref()), text(event.origin.causation_id.as_ref())]);
    // PostgreSQL cannot store this character in text; SQLite could, but would cut the text off there when asked.
    if indexed.into_iter().chain([row.state.as_str()]).chain(event_ids).chain(free).any(|text| text.contains('\0')) {
        return Err(refused(format!("saga {} has a NUL character in a name or a key", row.id)));
    }
    Ok(())
}

fn check_append(batch: &Batch, append: &Append) -> Result<(), CommitError> {
    let name = &append.name;
    if fence_index(batch, append.shard).is_none() {
        return Err(refused(format!("stream {name} lies in shard {}, which has no fence", append.shard)));
    }
    let consecutive = append.events.windows(2).all(|pair| pair[1].version.checked_sub(1) == Some(pair[0].version));
    let first = append.events.first().map(|event| event.version);
    if first.is_none() || first != append.version_before.checked_add(1) || !consecutive {
        return Err(refused(format!("stream {name}: no events that follow version {}", append.version_before)));
    }
    let indexed = || append.events.iter().map(|event| &*event.event_id).chain([&**name]);
    if indexed().any(|text| text.len() > INDEXED_BYTES_MAX) {
        return Err(refused(format!("stream {name} has an id of more than {INDEXED_BYTES_MAX} bytes")));
    }
    let free = append.events.iter().flat_map(|event| {
        let optional = [&event.actor, &event.correlation_id, &event.causation_id];
        optional.into_iter().map(|word| text(word.as_ref())).chain([&*event.type_name])
    });
    if indexed().chain(free).any(|text| text.contains('\0')) {
        return Err(refused(format!("stream {name} has a NUL character in an id or a name")));
    }
    Ok(())
}

fn text(optional: Option<&Arc<str>>) -> &str {
    optional.map_or("", |text| text)
}

/// Where the fence of a shard is among the batch's fences.
pub fn fence_index(batch: &Batch, shard: Shard) -> Option<usize> {
    batch.fences.binary_search_by_key(&shard, |fence| fence.shard).ok()
}

fn refused(reason: String) -> CommitError {
    CommitError::Refused(reason)
}
