//! Settling deliveries: what is done leaves the consumer's hands, what failed is held with its stream behind it.

use std::collections::BTreeMap;

use skald_core::{
    ids::{SagaId, Shard},
    time::Timestamp,
};

use super::{
    GroupRetry, Settled, Settlement,
    holding::{Failure, Holding},
    rows::{Change, Cursor, GroupRows},
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
            let is_refused = |settlement: &&&Settlement| !accepted.contains(&(settlement.position, settlement.token));
            let places = settlements.iter().filter(is_refused).map(|settlement| (*shard, settlement.position));
            refused_now.insert(*shard, places.collect());
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

/// Decides what becomes of one shard, and which positions under which tokens are accepted; None when none is.
async fn settle_shard<S: GroupRows + EventLog>(
    store: &S,
    group: &str,
    cursor: &Cursor,
    settlements: &[&Settlement],
    policy: GroupRetry,
    now: Timestamp,
) -> Result<Option<(Vec<(i64, i64)>, Change)>, StoreError> {
    let counts =
        |settlement: &&&Settlement| settlement.token == cursor.token && cursor.in_hand.contains(settlement.position);
    let counting: Vec<&Settlement> = settlements.iter().filter(counts).copied().collect();
    if counting.is_empty() {
        return Ok(None);
    }
    let mut holding = Holding::new(cursor.clone(), BTreeMap::new(), Vec::new());
    if cursor.holds || counting.iter().any(|settlement| matches!(settlement.result, Settled::Failed { .. })) {
        holding = read(store, group, cursor, &counting).await?;
    }
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
    if settled.in_hand.first() != cursor.in_hand.first() {
        settled.lease_until = now.plus(settled.lease);
    }
    Ok(Some((accepted, holding.into_change())))
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
