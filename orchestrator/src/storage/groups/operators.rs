//! What people do with a group: replay or drop what is parked, have a part of the log handled once more.

use std::collections::{BTreeMap, BTreeSet};

use skald_core::{
    ids::{SagaId, Shard},
    time::Timestamp,
};

use super::{
    Parked, ReplayRange, Replayed,
    holding::Holding,
    rows::{Cursor, GroupRows, Held, HeldStatus},
    settling::contended,
};
use crate::storage::{
    StoreError,
    log::{EventLog, LogEvent, LogFilter, LogQuery},
};

/// How often what others changed meanwhile is read and decided again.
const ROUNDS: usize = 32;

pub async fn parked<S: GroupRows + EventLog>(
    store: &S,
    group: &str,
    after: Option<(Shard, i64)>,
    limit: u32,
) -> Result<Vec<Parked>, StoreError> {
    let held = store.parked_rows(group, after.unwrap_or((Shard(0), 0)), limit).await?;
    let mut positions = BTreeMap::<Shard, Vec<i64>>::new();
    for held in &held {
        positions.entry(held.shard).or_default().push(held.position);
    }
    let mut events = BTreeMap::<(Shard, i64), LogEvent>::new();
    for (shard, positions) in positions {
        let found = store.events_at(shard, &positions).await?;
        events.extend(found.into_iter().map(|event| ((shard, event.position), event)));
    }
    let with_event = |held: Held| {
        let event = events.remove(&(held.shard, held.position))?;
        Some(Parked { event, tries: held.tries, error: held.error.unwrap_or_default(), parked_at: held.held_at })
    };
    Ok(held.into_iter().filter_map(with_event).collect())
}

/// What is to become of a parked event.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    Replay,
    Drop,
}

pub async fn decide_parked<S: GroupRows + EventLog>(
    store: &S,
    group: &str,
    place: (Shard, i64),
    fate: Fate,
) -> Result<Option<bool>, StoreError> {
    let (shard, position) = place;
    for _ in 0..ROUNDS {
        let Some(view) = store.view(group).await? else { return Ok(None) };
        let Some(cursor) = view.cursors.into_iter().find(|cursor| cursor.shard == shard) else {
            return Ok(Some(false));
        };
        let before = store.parked_rows(group, (shard, position.saturating_sub(1)), 1).await?;
        let Some(stream) = before.first().filter(|held| held.position == position).map(|held| held.stream) else {
            return Ok(Some(false));
        };
        let held = store.held(group, shard, &[stream]).await?;
        let mut holding = Holding::new(cursor, BTreeMap::new(), held);
        if holding.get(position).is_none_or(|held| held.status != HeldStatus::Parked) {
            return Ok(Some(false));
        }
        match fate {
            Fate::Replay => holding.replay(position, stream, view.now),
            Fate::Drop => holding.release(position, view.now),
        }
        if !store.change(group, None, vec![holding.into_change()]).await?.is_empty() {
            return Ok(Some(true));
        }
    }
    Err(contended())
}

pub async fn replay_range<S: GroupRows + EventLog>(
    store: &S,
    group: &str,
    range: &ReplayRange,
) -> Result<Option<Replayed>, StoreError> {
    for _ in 0..ROUNDS {
        let Some(view) = store.view(group).await? else { return Ok(None) };
        let cursor = view.cursors.into_iter().find(|cursor| cursor.shard == range.shard);
        let until = cursor.as_ref().map_or(0, |cursor| cursor.looked_to.min(range.until));
        let Some(cursor) = cursor.filter(|_| range.after < until) else {
            return Ok(Some(Replayed { events: 0, read_to: range.after, ended: true }));
        };
        let query = LogQuery {
            after: BTreeMap::from([(range.shard, range.after)]),
            until: BTreeMap::from([(range.shard, until)]),
            limit: range.limit,
            filter: LogFilter::from(&view.group.filter),
        };
        let page = store.log(&query).await?;
        let read_to = page.read_to.get(&range.shard).copied().unwrap_or(until);
        let (holding, events) = hold_again(store, group, cursor, &page.events, view.now).await?;
        let replayed = Some(Replayed { events, read_to, ended: read_to >= until });
        if events == 0 || !store.change(group, None, vec![holding.into_change()]).await?.is_empty() {
            return Ok(replayed);
        }
    }
    Err(contended())
}

/// Holds these events so that they are handed out again; those that will be anyway are left as they are.
async fn hold_again<S: GroupRows>(
    store: &S,
    group: &str,
    cursor: Cursor,
    events: &[LogEvent],
    now: Timestamp,
) -> Result<(Holding, u64), StoreError> {
    let streams: BTreeSet<SagaId> = events.iter().map(|event| event.stream).collect();
    let streams: Vec<SagaId> = streams.into_iter().collect();
    let held = store.held(group, cursor.shard, &streams).await?;
    let mut holding = Holding::new(cursor, BTreeMap::new(), held);
    let mut count = 0;
    for event in events {
        let open = holding.cursor.in_hand.contains(event.position) || holding.cursor.owed.contains(event.position);
        if !open && holding.get(event.position).is_none() {
            holding.replay(event.position, event.stream, now);
            count += 1;
        }
    }
    Ok((holding, count))
}
