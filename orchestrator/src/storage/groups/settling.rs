//! Settling deliveries: what is done leaves the consumer's hands, what failed is held with its stream behind it.

use std::collections::BTreeMap;

use skald_core::{
    ids::{SagaId, Shard},
    time::Timestamp,
};

use super::{
    GroupRetry, Settled, Settlement,
    holding::{Failure, Holding},
    rows::{Change, Cursor, GroupRows, View},
};
use crate::storage::{StoreError, log::EventLog};

/// How often what others changed meanwhile is read and decided again.
const ROUNDS: usize = 32;

pub async fn settle<S: GroupRows + EventLog>(
    store: &S,
    group: &str,
    settlements: &[Settlement],
) -> Result<Option<Vec<(Shard, i64)>>, StoreError> {
    let mut open = BTreeMap::<Shard, Vec<&Settlement>>::new();
    for settlement in settlements {
        open.entry(settlement.shard).or_default().push(settlement);
    }
    let mut refused = Vec::new();
    for _ in 0..ROUNDS {
        let Some(view) = store.view(group).await? else { return Ok(None) };
        let mut changes = Vec::new();
        let mut refused_now = BTreeMap::<Shard, Vec<(Shard, i64)>>::new();
        for (shard, settlements) in &open {
            let cursor = view.cursors.iter().find(|cursor| cursor.shard == *shard);
            let settled = match cursor {
                Some(cursor) => settle_shard(store, group, cursor, settlements, view.group.retry, view.now).await?,
                None => None,
            };
            let (accepted, change) = settled.map_or((Vec::new(), None), |(accepted, change)| (accepted, Some(change)));
            refused_now.insert(*shard, self::refused(settlements, &accepted));
            changes.extend(change);
        }
        let waiting: Vec<Shard> = changes.iter().map(|change| change.cursor.shard).collect();
        let moved = if changes.is_empty() { Vec::new() } else { store.change(group, None, changes).await? };
        for (shard, places) in refused_now {
            if !waiting.contains(&shard) || moved.contains(&shard) {
                open.remove(&shard);
                refused.extend(places);
            }
        }
        if open.is_empty() {
            return Ok(Some(refused));
        }
    }
    Err(contended())
}

/// Settles in the view itself, which whoever asked is to write, where nothing but the view must be known for it: nothing
/// is held and nothing has failed. None when that is not so, and the view is as it was.
pub fn settle_in(view: &mut View, settlements: &[Settlement]) -> Option<InView> {
    let mut in_view = InView::default();
    let mut cursors = view.cursors.clone();
    for settlement in settlements {
        let shard = settlement.shard;
        if in_view.settled.contains_key(&shard) {
            continue;
        }
        let of_shard: Vec<&Settlement> = settlements.iter().filter(|other| other.shard == shard).collect();
        let cursor = cursors.iter_mut().find(|cursor| cursor.shard == shard);
        let counting = cursor.as_ref().map_or(Vec::new(), |cursor| counting(cursor, &of_shard));
        let mut accepted = Vec::new();
        if let Some(cursor) = cursor.filter(|_| !counting.is_empty()) {
            if !is_plain(cursor, &counting) {
                return None;
            }
            let holding = Holding::new(cursor.clone(), BTreeMap::new(), Vec::new());
            let change;
            (accepted, change) = decide(holding, cursor, counting, view.group.retry, view.now);
            *cursor = change.cursor;
        }
        in_view.refused.extend(refused(&of_shard, &accepted));
        in_view.settled.insert(shard, accepted);
    }
    view.cursors = cursors;
    Some(in_view)
}

/// What was settled in a view.
#[derive(Debug, Default)]
pub struct InView {
    /// Position and token of what is accepted once it is written.
    pub settled: BTreeMap<Shard, Vec<(i64, i64)>>,
    pub refused: Vec<(Shard, i64)>,
}

/// Decides what becomes of one shard, and which positions under which tokens are accepted; None when none is.
async fn settle_shard<S: GroupRows + EventLog>(
    store: &S,
    group: &str,
    cursor: &Cursor,
    settlements: &[&Settlement],
    policy: GroupRetry,
    now: Timestamp,
) -> Result<Option<(Vec<(i64, i64)>, Change)>, StoreError> {
    let counting = counting(cursor, settlements);
    if counting.is_empty() {
        return Ok(None);
    }
    let holding = match is_plain(cursor, &counting) {
        true => Holding::new(cursor.clone(), BTreeMap::new(), Vec::new()),
        false => read(store, group, cursor, &counting).await?,
    };
    Ok(Some(decide(holding, cursor, counting, policy, now)))
}

/// Those of what the consumer has in hand.
fn counting<'a>(cursor: &Cursor, settlements: &[&'a Settlement]) -> Vec<&'a Settlement> {
    let counts =
        |settlement: &&Settlement| settlement.token == cursor.token && cursor.in_hand.contains(settlement.position);
    settlements.iter().copied().filter(counts).collect()
}

/// Whether nothing is held, nor will be.
fn is_plain(cursor: &Cursor, settlements: &[&Settlement]) -> bool {
    !cursor.holds && settlements.iter().all(|settlement| matches!(settlement.result, Settled::Done))
}

fn refused(settlements: &[&Settlement], accepted: &[(i64, i64)]) -> Vec<(Shard, i64)> {
    let is_refused = |settlement: &&&Settlement| !accepted.contains(&(settlement.position, settlement.token));
    settlements.iter().filter(is_refused).map(|settlement| (settlement.shard, settlement.position)).collect()
}

fn decide(
    mut holding: Holding,
    before: &Cursor,
    counting: Vec<&Settlement>,
    policy: GroupRetry,
    now: Timestamp,
) -> (Vec<(i64, i64)>, Change) {
    let mut accepted = Vec::new();
    for settlement in counting {
        // A failure takes the later events of its stream out of hand.
        if !holding.cursor.in_hand.contains(settlement.position) {
            continue;
        }
        accepted.push((settlement.position, settlement.token));
        match &settlement.result {
            Settled::Done => holding.done(settlement.position, now),
            Settled::Failed { error, poison } => {
                let failure = Failure { error: error.clone(), poison: *poison };
                holding.fail(settlement.position, &failure, policy, now);
            }
        }
    }
    let settled = &mut holding.cursor;
    settled.losses = 0;
    settled.moved_at = now;
    if settled.in_hand.first() != before.in_hand.first() {
        settled.lease_until = now.plus(settled.lease);
    }
    (accepted, holding.into_change())
}

/// Reads which streams are concerned, and what is held of them.
async fn read<S: GroupRows + EventLog>(
    store: &S,
    group: &str,
    cursor: &Cursor,
    settlements: &[&Settlement],
) -> Result<Holding, StoreError> {
    let open: Vec<i64> = cursor.in_hand.iter().chain(cursor.owed.iter()).collect();
    let events = store.events_at(cursor.shard, &open).await?;
    let streams: BTreeMap<i64, SagaId> = events.iter().map(|event| (event.position, event.stream)).collect();
    let mut concerned: Vec<SagaId> =
        settlements.iter().filter_map(|settlement| streams.get(&settlement.position).copied()).collect();
    concerned.sort();
    concerned.dedup();
    let held = store.held(group, cursor.shard, &concerned).await?;
    Ok(Holding::new(cursor.clone(), streams, held))
}

/// Others were faster again and again; nothing of what was asked is half done.
pub fn contended() -> StoreError {
    StoreError::Unavailable(sqlx::Error::Protocol("a consumer group's cursor is contended".to_owned()))
}
