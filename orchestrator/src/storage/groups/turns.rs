//! A poll: which shards a consumer gets a turn at, and what of each is handed out.
//!
//! What the poll settles comes first, and is written with what is handed out where that is possible. Then, in this order:
//! what is owed, held events whose time has come, and then what is new; nothing of the next kind while
//! there is more of the one before, so that a stream stays in order.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use skald_core::{
    ids::{SagaId, Shard},
    time::{Millis, Timestamp},
};

use super::{
    Delivery, Poll, Polled, Settlement,
    holding::{Failure, Holding},
    rows::{Change, Cursor, GroupRows, Held, HeldStatus, Seen, View},
    settling::{self, InView},
};
use crate::storage::{
    StoreError,
    log::{EventLog, LogEvent, LogFilter, LogQuery, tail::Beyond},
};

/// How long a poll counts: consumers that polled within this time share the shards.
const MEMBER_FOR: Millis = Millis(5000);

/// How long those that polled are remembered at all.
const REMEMBERED_FOR_US: i64 = 3600 * 1_000_000;

/// Events of one shard in a consumer's hands, at most.
const IN_HAND_MAX: usize = 1000;

/// What was looked at in vain is noted after so many positions, or so much time.
const NOTED_AFTER: i64 = 256;
const NOTED_AFTER_US: i64 = 1_000_000;

/// How many owed events are handed out together after one lost lease; half as many after each further one. What ends its
/// consumer's life is found by this and parked.
const OWED_TOGETHER: usize = 64;

/// One shard in this turn.
#[derive(Debug)]
struct Hand {
    cursor: Cursor,
    was_free: bool,
    /// Events that are held from now on.
    hold: Vec<Held>,
    release: Vec<i64>,
    given: Vec<(LogEvent, u32)>,
    /// What was alone in hand when its lease was lost.
    suspect: Option<i64>,
    /// Whether what is held or owed has changed, so that this turn must be written.
    changed: bool,
}

impl Hand {
    fn give(&mut self, event: LogEvent, tries: u32) {
        self.cursor.in_hand.insert(event.position);
        self.given.push((event, tries));
    }

    fn room(&self) -> usize {
        IN_HAND_MAX.saturating_sub(self.cursor.in_hand.len())
    }
}

pub async fn poll<S: GroupRows + EventLog>(store: &S, poll: &Poll) -> Result<Option<Polled>, StoreError> {
    let beyond = store.tail().beyond();
    let Some(mut view) = store.view(&poll.group).await? else { return Ok(None) };
    let mut refused = Vec::new();
    let settled = match settling::settle_in(&mut view, &poll.settle) {
        Some(settled) => settled,
        None => {
            let Some(places) = settling::settle(store, &poll.group, &poll.settle).await? else { return Ok(None) };
            let Some(again) = store.view(&poll.group).await? else { return Ok(None) };
            (refused, view) = (places, again);
            InView::default()
        }
    };
    let mut turn = Turn::begin(store, poll, view);
    turn.park_the_deadly().await?;
    turn.give_owed().await?;
    turn.give_due().await?;
    turn.give_new().await?;
    let mut polled = turn.end(beyond, settled).await?;
    polled.refused.extend(refused);
    Ok(Some(polled))
}

struct Turn<'a, S> {
    store: &'a S,
    poll: &'a Poll,
    view: View,
    hands: BTreeMap<Shard, Hand>,
    /// How many more events the consumer takes.
    room: usize,
    /// Whether this turn came to an end before the log did.
    more: bool,
    /// When a shard that was left out may be had.
    next_at: Option<Timestamp>,
}

impl<'a, S: GroupRows + EventLog> Turn<'a, S> {
    fn begin(store: &'a S, poll: &'a Poll, view: View) -> Self {
        let mut next_at = view.next_due;
        let hands = choose(&view, &poll.consumer, &mut next_at);
        Self { store, poll, hands, room: poll.limit as usize, more: false, next_at, view }
    }

    /// An event that was alone in hand when lease after lease was lost is taken to be what ends its consumers.
    async fn park_the_deadly(&mut self) -> Result<(), StoreError> {
        let policy = self.view.group.retry;
        for hand in self.hands.values_mut() {
            let Some(suspect) = hand.suspect.filter(|_| hand.cursor.losses >= policy.attempts) else { continue };
            let shard = hand.cursor.shard;
            let owed: Vec<i64> = hand.cursor.owed.iter().collect();
            let owed = self.store.events_at(shard, &owed).await?;
            let streams: BTreeMap<i64, SagaId> = owed.iter().map(|event| (event.position, event.stream)).collect();
            let Some(stream) = streams.get(&suspect).copied() else { continue };
            let held = self.store.held(&self.poll.group, shard, &[stream]).await?;
            let mut holding = Holding::new(hand.cursor.clone(), streams, held);
            let error = format!("its consumer fell silent {} times", hand.cursor.losses);
            holding.fail(suspect, &Failure { error, poison: true }, policy, self.view.now);
            let Change { cursor, hold, release } = holding.into_change();
            (hand.cursor, hand.hold, hand.release) = (cursor, hold, release);
            hand.cursor.losses = 0;
            hand.cursor.holds = true;
        }
        Ok(())
    }

    async fn give_owed(&mut self) -> Result<(), StoreError> {
        for hand in self.hands.values_mut().filter(|hand| !hand.cursor.owed.is_empty()) {
            let shard = hand.cursor.shard;
            let together = match hand.cursor.losses {
                0 => IN_HAND_MAX,
                losses => (OWED_TOGETHER >> losses.min(16)).max(1).saturating_sub(hand.cursor.in_hand.len()),
            };
            let together = together.min(hand.room()).min(self.room);
            let owed: Vec<i64> = hand.cursor.owed.iter().take(together).collect();
            if owed.is_empty() {
                continue;
            }
            let events = self.store.events_at(shard, &owed).await?;
            let tries = hand.cursor.losses.saturating_add(1);
            hand.changed = true;
            // Those that retention removed are owed no longer.
            for position in owed {
                hand.cursor.owed.remove(position);
            }
            self.room -= events.len();
            for event in events {
                hand.give(event, tries);
            }
        }
        Ok(())
    }

    async fn give_due(&mut self) -> Result<(), StoreError> {
        let open = |hand: &&Hand| hand.cursor.holds && hand.cursor.owed.is_empty();
        let shards: Vec<Shard> = self.hands.values().filter(open).map(|hand| hand.cursor.shard).collect();
        if !self.view.due || shards.is_empty() || self.room == 0 {
            return Ok(());
        }
        // What is in hand already is among them.
        let in_hand: usize = shards.iter().map(|shard| self.hands[shard].cursor.in_hand.len()).sum();
        let limit = u32::try_from(self.room + in_hand).unwrap_or(u32::MAX);
        let due = self.store.due(&self.poll.group, &shards, self.view.now, limit).await?;
        let mut by_shard = BTreeMap::<Shard, BTreeMap<i64, u32>>::new();
        for held in due {
            let Some(hand) = self.hands.get(&held.shard) else { continue };
            let just_held = hand.hold.iter().any(|other| other.stream == held.stream);
            if !just_held && !hand.cursor.in_hand.contains(held.position) {
                by_shard.entry(held.shard).or_default().insert(held.position, held.tries);
            }
        }
        for (shard, due) in by_shard {
            let Some(hand) = self.hands.get_mut(&shard) else { continue };
            let positions: Vec<i64> = due.keys().copied().take(hand.room().min(self.room)).collect();
            let events = self.store.events_at(shard, &positions).await?;
            let found: BTreeSet<i64> = events.iter().map(|event| event.position).collect();
            hand.release.extend(positions.iter().filter(|position| !found.contains(position)));
            hand.changed = true;
            self.room -= events.len();
            for event in events {
                let tries = due[&event.position].saturating_add(1);
                hand.give(event, tries);
            }
        }
        Ok(())
    }

    async fn give_new(&mut self) -> Result<(), StoreError> {
        let has_new =
            |hand: &&Hand| hand.cursor.owed.is_empty() && hand.cursor.looked_to < hand.cursor.head && hand.room() > 0;
        let after: BTreeMap<Shard, i64> =
            self.hands.values().filter(has_new).map(|hand| (hand.cursor.shard, hand.cursor.looked_to)).collect();
        if after.is_empty() || self.room == 0 {
            return Ok(());
        }
        let room = after.keys().map(|shard| self.hands[shard].room()).min().unwrap_or(0).min(self.room);
        let query = LogQuery {
            after,
            until: BTreeMap::new(),
            limit: u32::try_from(room).unwrap_or(u32::MAX),
            filter: LogFilter::from(&self.view.group.filter),
        };
        let heads = self.hands.iter().map(|(shard, hand)| (*shard, hand.cursor.head)).collect();
        let page = match self.store.tail().page(&query, &heads) {
            Some(page) => page,
            None => self.store.log(&query).await?,
        };
        self.more |= page.more;
        for (shard, read_to) in page.read_to {
            if let Some(hand) = self.hands.get_mut(&shard) {
                hand.cursor.looked_to = read_to;
            }
        }
        let behind = |event: &&LogEvent| self.hands.get(&event.shard).is_some_and(|hand| hand.cursor.holds);
        let behind: BTreeSet<(Shard, SagaId)> =
            page.events.iter().filter(behind).map(|event| (event.shard, event.stream)).collect();
        let mut held = HashSet::new();
        if !behind.is_empty() {
            let streams: Vec<_> = behind.into_iter().collect();
            held = self.store.held_streams(&self.poll.group, &streams).await?;
        }
        for event in page.events {
            let Some(hand) = self.hands.get_mut(&event.shard) else { continue };
            let just_held = hand.hold.iter().any(|other| other.stream == event.stream);
            if just_held || held.contains(&event.stream) {
                hand.hold.push(waiting(&event, self.view.now));
                hand.changed = true;
            } else {
                self.room -= 1;
                hand.give(event, 1);
            }
        }
        Ok(())
    }

    /// Writes what was settled and handed out, and hands it out as far as nobody else was faster.
    async fn end(self, mut beyond: Beyond, settled: InView) -> Result<Polled, StoreError> {
        let Self { store, poll, view, hands, more, mut next_at, .. } = self;
        let now = view.now;
        beyond.filter = LogFilter::from(&view.group.filter);
        beyond.after = view.cursors.iter().map(|cursor| (cursor.shard, cursor.looked_to)).collect();
        let was_settled = |shard: Shard| settled.settled.get(&shard).is_some_and(|accepted| !accepted.is_empty());
        let mut given = BTreeMap::new();
        let mut changes = Vec::new();
        for cursor in
            view.cursors.iter().filter(|cursor| was_settled(cursor.shard) && !hands.contains_key(&cursor.shard))
        {
            changes.push(Change { cursor: cursor.clone(), hold: Vec::new(), release: Vec::new() });
        }
        for (shard, mut hand) in hands {
            let seen_so_far = beyond.after.insert(shard, hand.cursor.looked_to);
            let advanced = hand.cursor.looked_to - seen_so_far.unwrap_or(0);
            let old = now.as_micros() - hand.cursor.moved_at.as_micros() >= NOTED_AFTER_US;
            let worth_noting = advanced >= NOTED_AFTER || (advanced > 0 && old);
            if hand.given.is_empty() && !hand.changed && !worth_noting && !was_settled(shard) {
                continue;
            }
            if !hand.given.is_empty() && hand.was_free {
                hand.cursor.consumer = Some(poll.consumer.clone());
                hand.cursor.token += 1;
                hand.cursor.lease = poll.lease;
                hand.cursor.lease_until = now.plus(poll.lease);
            }
            hand.cursor.moved_at = now;
            given.insert(shard, (hand.cursor.token, hand.given));
            changes.push(Change { cursor: hand.cursor, hold: hand.hold, release: hand.release });
        }
        let asked = changes.len();
        let seen = seen(&view, &poll.consumer);
        let moved = match (asked, &seen) {
            (0, None) => Vec::new(),
            _ => store.change(&poll.group, seen, changes).await?,
        };
        let mut deliveries = Vec::new();
        for (token, given) in moved.iter().filter_map(|shard| given.remove(shard)) {
            deliveries.extend(given.into_iter().map(|(event, tries)| Delivery { event, token, tries }));
        }
        let mut refused = settled.refused;
        let is_open = |settlement: &&Settlement| {
            let accepted = settled
                .settled
                .get(&settlement.shard)
                .is_some_and(|accepted| accepted.contains(&(settlement.position, settlement.token)));
            accepted && !moved.contains(&settlement.shard)
        };
        let open: Vec<Settlement> = poll.settle.iter().filter(is_open).cloned().collect();
        if !open.is_empty() {
            // What was handed out may not get lost in a failure: what is not settled now is as good as refused.
            let again = settling::settle(store, &poll.group, &open).await.ok().flatten();
            let places = || open.iter().map(|settlement| (settlement.shard, settlement.position)).collect();
            refused.extend(again.unwrap_or_else(places));
        }
        if deliveries.is_empty() && (more || moved.len() < asked) {
            next_at = Some(now);
        }
        Ok(Polled { deliveries, next_at, beyond, refused })
    }
}

/// The shards at which a consumer gets a turn: those it holds, and free ones with something to hand out, up to its share.
fn choose(view: &View, consumer: &str, next_at: &mut Option<Timestamp>) -> BTreeMap<Shard, Hand> {
    let now = view.now;
    let in_use = |cursor: &Cursor| !cursor.in_hand.is_empty() && cursor.lease_until > now;
    let members = view.members.iter().filter(|(_, until)| *until > now).map(|(name, _)| name.as_str());
    let holders = view.cursors.iter().filter(|cursor| in_use(cursor)).filter_map(|cursor| cursor.consumer.as_deref());
    let consumers: BTreeSet<&str> = members.chain(holders).chain([consumer]).collect();
    let rank = consumers.iter().position(|other| *other == consumer).unwrap_or(0);
    let share = view.cursors.len() / consumers.len() + usize::from(rank < view.cursors.len() % consumers.len());

    let mut soonest = |at: Timestamp| *next_at = Some(next_at.map_or(at, |next| next.min(at)));
    let mut hands = BTreeMap::new();
    for cursor in view.cursors.iter().filter(|cursor| in_use(cursor)) {
        // What is in hand may be lost, and is then to be had.
        soonest(cursor.lease_until);
        if cursor.consumer.as_deref() == Some(consumer) && hands.len() < share {
            hands.insert(cursor.shard, hand(cursor, true));
        }
    }
    let something = |cursor: &&Cursor| {
        let lost = !cursor.in_hand.is_empty();
        lost || !cursor.owed.is_empty() || cursor.looked_to < cursor.head || (view.due && cursor.holds)
    };
    // Each consumer begins elsewhere, so that they seldom reach for the same shard.
    let begin = rank * view.cursors.len() / consumers.len();
    let in_turn = view.cursors[begin..].iter().chain(&view.cursors[..begin]);
    for cursor in in_turn.filter(|cursor| !in_use(cursor)).filter(something) {
        if hands.len() < share {
            hands.insert(cursor.shard, hand(cursor, false));
        } else if let Some(until) = view.members.iter().map(|(_, until)| *until).filter(|until| *until > now).min() {
            soonest(until);
        }
    }
    hands
}

/// Takes a shard up; what is in hand under a lease that ended is owed from now on.
fn hand(cursor: &Cursor, in_use: bool) -> Hand {
    let mut cursor = cursor.clone();
    let lost = !in_use && !cursor.in_hand.is_empty();
    let suspect = cursor.in_hand.first().filter(|_| lost && cursor.in_hand.len() == 1);
    if lost {
        cursor.owed.append(&mut cursor.in_hand);
        cursor.losses = cursor.losses.saturating_add(1);
    }
    Hand { cursor, was_free: !in_use, hold: Vec::new(), release: Vec::new(), given: Vec::new(), suspect, changed: lost }
}

fn waiting(event: &LogEvent, now: Timestamp) -> Held {
    Held {
        shard: event.shard,
        position: event.position,
        stream: event.stream,
        status: HeldStatus::Waiting,
        tries: 0,
        next_at: now,
        error: None,
        held_at: now,
    }
}

/// Whether the consumer is to be noted as one that polls: now and then, long before it is forgotten.
fn seen(view: &View, consumer: &str) -> Option<Seen> {
    let until = view.members.iter().find(|(name, _)| name == consumer).map(|(_, until)| *until);
    let renew_before = view.now.plus(Millis(MEMBER_FOR.0 / 2));
    let forget_before = Timestamp::from_micros(view.now.as_micros() - REMEMBERED_FOR_US);
    let due = until.is_none_or(|until| until < renew_before);
    due.then(|| Seen { consumer: consumer.to_owned(), until: view.now.plus(MEMBER_FOR), forget_before })
}
