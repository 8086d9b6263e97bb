//! What becomes of a shard's cursor and held events when a delivery is settled: a stream with a held event goes on behind
//! it, in order.

use std::collections::{BTreeMap, BTreeSet};

use skald_core::{
    ids::SagaId,
    time::{Millis, Timestamp},
};

use super::{
    GroupRetry,
    rows::{Change, Cursor, Held, HeldStatus},
};

/// How many events of a stream are let go together, once what held them is gone.
const FREED_TOGETHER: usize = 100;

/// One shard of a group, being worked on.
#[derive(Debug)]
pub struct Holding {
    pub cursor: Cursor,
    /// The streams of what is in hand and owed, as far as they matter.
    streams: BTreeMap<i64, SagaId>,
    /// Held events of the streams concerned: all, or the first ones of many.
    held: BTreeMap<i64, Held>,
    changed: BTreeSet<i64>,
    released: BTreeSet<i64>,
}

/// Why an event was not handled.
#[derive(Clone, Debug)]
pub struct Failure {
    pub error: String,
    pub poison: bool,
}

impl Holding {
    pub fn new(cursor: Cursor, streams: BTreeMap<i64, SagaId>, held: Vec<Held>) -> Self {
        let held = held.into_iter().map(|held| (held.position, held)).collect();
        Self { cursor, streams, held, changed: BTreeSet::new(), released: BTreeSet::new() }
    }

    /// A held event as it is by now.
    pub fn get(&self, position: i64) -> Option<&Held> {
        self.held.get(&position)
    }

    pub fn done(&mut self, position: i64, now: Timestamp) {
        self.cursor.in_hand.remove(position);
        self.release(position, now);
    }

    /// Holds an event no longer, whereupon its stream goes on.
    pub fn release(&mut self, position: i64, now: Timestamp) {
        if let Some(held) = self.held.remove(&position) {
            self.changed.remove(&position);
            self.released.insert(position);
            self.free(held.stream, now);
        }
    }

    /// Holds an event that was in hand, and whatever follows it in its stream.
    pub fn fail(&mut self, position: i64, failure: &Failure, policy: GroupRetry, now: Timestamp) {
        let Some(stream) = self.streams.get(&position).copied() else { return };
        self.cursor.in_hand.remove(position);
        self.cursor.owed.remove(position);
        let tries = self.held.get(&position).map_or(0, |held| held.tries).saturating_add(1);
        let parked = failure.poison || tries >= policy.attempts;
        self.hold(Held {
            shard: self.cursor.shard,
            position,
            stream,
            status: if parked { HeldStatus::Parked } else { HeldStatus::Retry },
            tries,
            next_at: if parked { now } else { now.plus(delay(policy, tries)) },
            error: Some(failure.error.clone()),
            held_at: now,
        });
        self.hold_back(position, stream, now);
    }

    /// Holds an event behind those of its stream that are held, or lets it be handed out if none is before it.
    pub fn replay(&mut self, position: i64, stream: SagaId, now: Timestamp) {
        let held_back = self
            .of_stream(stream)
            .any(|held| held.position < position && (held.status != HeldStatus::Retry || held.next_at > now));
        let status = if held_back { HeldStatus::Waiting } else { HeldStatus::Retry };
        // Its time comes no later than that of those behind it: whoever takes the first ones due takes it with them.
        let behind = self.of_stream(stream).filter(|held| held.position > position && held.status == HeldStatus::Retry);
        let next_at = behind.map(|held| held.next_at).fold(now, Timestamp::min);
        let shard = self.cursor.shard;
        self.hold(Held { shard, position, stream, status, tries: 0, next_at, error: None, held_at: now });
    }

    pub fn into_change(self) -> Change {
        let Self { cursor, mut held, changed, released, .. } = self;
        let hold = changed.into_iter().filter_map(|position| held.remove(&position)).collect();
        Change { cursor, hold, release: released.into_iter().collect() }
    }

    fn of_stream(&self, stream: SagaId) -> impl Iterator<Item = &Held> {
        self.held.values().filter(move |held| held.stream == stream)
    }

    fn hold(&mut self, held: Held) {
        self.released.remove(&held.position);
        self.changed.insert(held.position);
        self.held.insert(held.position, held);
    }

    /// Takes out of hand what follows in the stream: it may not be settled before what is held.
    fn hold_back(&mut self, position: i64, stream: SagaId, now: Timestamp) {
        let open = self.cursor.in_hand.iter().chain(self.cursor.owed.iter());
        let later: Vec<i64> =
            open.filter(|other| *other > position && self.streams.get(other) == Some(&stream)).collect();
        for later in later {
            self.cursor.in_hand.remove(later);
            self.cursor.owed.remove(later);
            if !self.held.contains_key(&later) {
                let (shard, status) = (self.cursor.shard, HeldStatus::Waiting);
                let error = None;
                self.hold(Held { shard, position: later, stream, status, tries: 0, next_at: now, error, held_at: now });
            }
        }
        let freed: Vec<Held> = self
            .of_stream(stream)
            .filter(|held| held.position > position && held.status == HeldStatus::Retry)
            .map(|held| Held { status: HeldStatus::Waiting, ..held.clone() })
            .collect();
        for held in freed {
            self.hold(held);
        }
    }

    /// Lets go what waited, when nothing before it is held any more.
    fn free(&mut self, stream: SagaId, now: Timestamp) {
        let waiting = self.of_stream(stream).take_while(|held| held.status == HeldStatus::Waiting);
        let freed: Vec<Held> = waiting
            .take(FREED_TOGETHER)
            .map(|held| Held { status: HeldStatus::Retry, next_at: now, ..held.clone() })
            .collect();
        for held in freed {
            self.hold(held);
        }
    }
}

/// How long to wait after so many failures.
fn delay(policy: GroupRetry, tries: u32) -> Millis {
    let doublings = tries.saturating_sub(1).min(63);
    Millis(policy.initial.0.saturating_mul(1 << doublings).min(policy.max.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_its_maximum() {
        let delays = |tries| delay(GroupRetry::default(), tries).0;
        assert_eq!([1, 2, 3, 6, 7, 8, 200].map(delays), [1000, 2000, 4000, 32_000, 60_000, 60_000, 60_000]);
    }
}
