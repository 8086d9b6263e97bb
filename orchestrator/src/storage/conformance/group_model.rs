//! Invariant 11 against a small model: whatever consumers, clocks and operators do, every event that a group wants is
//! handled or parked, and no event is handed out before all earlier ones of its stream are done with, or handed out to the
//! same consumer just before it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use skald_core::ids::{SagaId, Shard};

use super::{
    super::{
        OwnedShard, Storage,
        groups::{Delivery, GroupFilter, NewGroup, Poll, ReplayRange, Settled, Settlement},
    },
    fixture::{Backend, Database, LEASE},
    groups::{GROUP, LEASES_END, MEMBERS_END, RETRIES_ARE_DUE, failed, new_group, poll_of, settlement},
    sample::{Named, mixed, owner},
};

const STREAMS: usize = 5;
const CONSUMERS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Act {
    /// An event of a stream; one in a few is not wanted.
    Append(usize, bool),
    Poll(usize, u32),
    /// A consumer settles so many of those it knows, in order; the number says which of them fail.
    Settle(usize, usize, u8),
    /// Both in one.
    SettleAndPoll(usize, usize, u8, u32),
    /// Settles once more what was settled or lost long ago.
    SettleOld(bool),
    LeasesEnd,
    RetriesAreDue,
    MembersEnd,
    ReplayParked(usize),
    DropParked(usize),
    ReplayRange(usize, u8),
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        10 => (0..STREAMS, prop::bool::weighted(0.8)).prop_map(|(stream, wanted)| Act::Append(stream, wanted)),
        8 => (0..CONSUMERS.len(), 1..8_u32).prop_map(|(who, limit)| Act::Poll(who, limit)),
        8 => (0..CONSUMERS.len(), 1..6_usize, any::<u8>()).prop_map(|(who, count, fails)| Act::Settle(who, count, fails)),
        8 => (0..CONSUMERS.len(), 1..6_usize, any::<u8>(), 0..8_u32)
            .prop_map(|(who, count, fails, limit)| Act::SettleAndPoll(who, count, fails, limit)),
        1 => any::<bool>().prop_map(Act::SettleOld),
        2 => Just(Act::LeasesEnd),
        3 => Just(Act::RetriesAreDue),
        1 => Just(Act::MembersEnd),
        2 => (0..4_usize).prop_map(Act::ReplayParked),
        1 => (0..4_usize).prop_map(Act::DropParked),
        1 => (0..4_usize, 1..10_u8).prop_map(|(shard, length)| Act::ReplayRange(shard, length)),
    ]
}

type Place = (Shard, i64);

struct World {
    database: Database,
    store: std::sync::Arc<dyn Storage>,
    owned: Vec<OwnedShard>,
    streams: Vec<Named>,
    /// What the group wants, by place.
    wanted: BTreeMap<Place, SagaId>,
    /// Done with once, or dropped.
    ended: BTreeSet<Place>,
    parked: BTreeSet<Place>,
    tries: BTreeMap<Place, u32>,
    /// What each consumer has been handed and not settled, in the order in which it was.
    known: BTreeMap<usize, Vec<Delivery>>,
    old: Vec<Delivery>,
}

fn place(delivery: &Delivery) -> Place {
    (delivery.event.shard, delivery.event.position)
}

impl World {
    async fn new(backend: Backend) -> Self {
        let database = Database::create(backend).await;
        let shards: u16 = if backend == Backend::Postgres { 3 } else { 1 };
        let store = database.migrated(shards).await;
        let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
        let filter = GroupFilter { types: vec!["Wanted".to_owned()], ..GroupFilter::default() };
        store.put_group(&NewGroup { filter, ..new_group() }).await.unwrap();
        Self {
            database,
            store,
            owned,
            streams: (0..STREAMS).map(|number| Named::new("cart", number as u16 % shards, shards)).collect(),
            wanted: BTreeMap::new(),
            ended: BTreeSet::new(),
            parked: BTreeSet::new(),
            tries: BTreeMap::new(),
            known: BTreeMap::new(),
            old: Vec::new(),
        }
    }

    async fn act(&mut self, act: &Act) {
        match act {
            Act::Append(stream, wanted) => self.append(*stream, *wanted).await,
            Act::Poll(who, limit) => self.poll(*who, *limit).await,
            Act::Settle(who, count, fails) => self.settle(*who, *count, *fails).await,
            Act::SettleAndPoll(who, count, fails, limit) => self.settle_and_poll(*who, (*count, *fails), *limit).await,
            Act::SettleOld(done) => self.settle_old(*done).await,
            Act::LeasesEnd => self.sql(LEASES_END).await,
            Act::RetriesAreDue => self.sql(RETRIES_ARE_DUE).await,
            Act::MembersEnd => self.sql(MEMBERS_END).await,
            Act::ReplayParked(nth) => {
                if let Some(place) = self.parked.iter().nth(*nth).copied() {
                    assert_eq!(self.store.replay_parked(GROUP, place.0, place.1).await.unwrap(), Some(true));
                    self.parked.remove(&place);
                    self.tries.remove(&place);
                }
            }
            Act::DropParked(nth) => {
                if let Some(place) = self.parked.iter().nth(*nth).copied() {
                    assert_eq!(self.store.drop_parked(GROUP, place.0, place.1).await.unwrap(), Some(true));
                    self.parked.remove(&place);
                    self.ended.insert(place);
                }
            }
            Act::ReplayRange(shard, length) => self.replay(*shard, i64::from(*length)).await,
        }
    }

    async fn append(&mut self, stream: usize, wanted: bool) {
        let append = self.streams[stream].append(&[if wanted { "Wanted" } else { "Unwanted" }]);
        let (shard, id) = (append.shard, append.stream);
        self.store.commit(&mixed(&self.owned, vec![], vec![append])).await.unwrap();
        if wanted {
            let head = self.store.heads().await.unwrap()[&shard];
            self.wanted.insert((shard, head), id);
        }
    }

    async fn poll(&mut self, who: usize, limit: u32) {
        let polled = self.store.poll_group(&poll_of(CONSUMERS[who], limit)).await.unwrap().unwrap();
        self.handed_out(who, limit, polled.deliveries);
    }

    fn handed_out(&mut self, who: usize, limit: u32, deliveries: Vec<Delivery>) {
        assert!(deliveries.len() <= limit as usize);
        for delivery in deliveries {
            let place = place(&delivery);
            assert_eq!(self.wanted.get(&place), Some(&delivery.event.stream), "not wanted: {delivery:?}");
            assert!(!self.parked.contains(&place), "parked: {delivery:?}");
            let earlier =
                self.wanted.range((place.0, 0)..place).filter(|(_, stream)| **stream == delivery.event.stream);
            for (earlier, _) in earlier {
                let mine = self.known.get(&who).is_some_and(|known| {
                    known.iter().any(|other| self::place(other) == *earlier && other.token == delivery.token)
                });
                assert!(self.ended.contains(earlier) || mine, "{place:?} is handed out before {earlier:?}");
            }
            // What is handed out again takes the place of what was lost.
            let known = self.known.entry(who).or_default();
            self.old.extend(known.extract_if(.., |other| self::place(other) == place));
            known.push(delivery);
        }
    }

    async fn settle(&mut self, who: usize, count: usize, fails: u8) {
        let sent = self.next_settlements(who, count, fails);
        let refused = self.store.settle(GROUP, &sent).await.unwrap().unwrap();
        self.settled(who, &sent, &refused);
    }

    async fn settle_and_poll(&mut self, who: usize, (count, fails): (usize, u8), limit: u32) {
        let sent = self.next_settlements(who, count, fails);
        let poll = Poll { settle: sent.clone(), ..poll_of(CONSUMERS[who], limit) };
        let polled = self.store.poll_group(&poll).await.unwrap().unwrap();
        self.settled(who, &sent, &polled.refused);
        self.handed_out(who, limit, polled.deliveries);
    }

    /// As a consumer does: in order, and after a failure nothing more of that stream.
    fn next_settlements(&self, who: usize, count: usize, fails: u8) -> Vec<Settlement> {
        let mut failed_streams = BTreeSet::new();
        let mut settlements = Vec::new();
        for (nth, delivery) in self.known.get(&who).into_iter().flatten().take(count).enumerate() {
            let fail = fails >> nth.min(7) & 1 == 1 && failed_streams.insert(delivery.event.stream);
            settlements.push(settlement(delivery, if fail { failed() } else { Settled::Done }));
        }
        settlements
    }

    /// The first of what it knows, with these results.
    fn settled(&mut self, who: usize, settlements: &[Settlement], refused: &[Place]) {
        let known = self.known.remove(&who).unwrap_or_default();
        let (now, later) = known.split_at(settlements.len());
        // What failed, by stream. A replayed event may have been handed out after later ones: those before it stay in hand.
        let mut failures: BTreeMap<SagaId, Place> = BTreeMap::new();
        let is_void = |failures: &BTreeMap<SagaId, Place>, delivery: &Delivery| {
            failures.get(&delivery.event.stream).is_some_and(|failure| *failure < place(delivery))
        };
        for (delivery, settlement) in now.iter().zip(settlements) {
            let (place, stream) = (place(delivery), delivery.event.stream);
            let fail = matches!(settlement.result, Settled::Failed { .. });
            let accepted = !refused.contains(&place);
            assert!(!(accepted && is_void(&failures, delivery)), "settled after a failure before it: {delivery:?}");
            if accepted && fail {
                failures.insert(stream, place);
                let tries = self.tries.entry(place).or_default();
                *tries += 1;
                if *tries >= new_group().retry.attempts {
                    self.parked.insert(place);
                }
            } else if accepted {
                self.ended.insert(place);
                self.tries.remove(&place);
            }
            self.old.push(delivery.clone());
        }
        let (void, later): (Vec<_>, Vec<_>) = later.iter().cloned().partition(|delivery| is_void(&failures, delivery));
        self.old.extend(void);
        self.known.insert(who, later);
    }

    /// Whoever comes too late, or twice, changes nothing.
    async fn settle_old(&mut self, done: bool) {
        let in_hand = |old: &&Delivery| {
            let known = self.known.values().flatten();
            !known.into_iter().any(|known| place(known) == place(old) && known.token == old.token)
        };
        let old: Vec<_> = self.old.iter().filter(in_hand).cloned().collect();
        let result = if done { Settled::Done } else { failed() };
        let sent: Vec<_> = old.iter().map(|delivery| settlement(delivery, result.clone())).collect();
        let refused = self.store.settle(GROUP, &sent).await.unwrap().unwrap();
        assert_eq!(refused.len(), old.len(), "of {old:?} only {refused:?} were refused");
    }

    async fn replay(&mut self, shard: usize, length: i64) {
        let shard = self.owned[shard % self.owned.len()].shard;
        let head = self.store.heads().await.unwrap()[&shard];
        let range = ReplayRange { shard, after: (head - length).max(0), until: head, limit: 100 };
        self.store.replay_range(GROUP, &range).await.unwrap().unwrap();
    }

    async fn sql(&self, sql: &str) {
        self.database.execute(sql).await.unwrap();
    }

    async fn check_parked(&mut self) {
        let parked = self.store.parked(GROUP, None, 1000).await.unwrap().unwrap();
        // Leases that ended over one event alone park it too.
        let silent = parked.iter().filter(|parked| parked.error.contains("silent"));
        self.parked.extend(silent.map(|of| (of.event.shard, of.event.position)));
        let found: BTreeSet<Place> = parked.iter().map(|of| (of.event.shard, of.event.position)).collect();
        assert_eq!(found, self.parked);
    }

    /// One patient consumer handles all that is left.
    async fn drain(&mut self) {
        for known in std::mem::take(&mut self.known).into_values() {
            self.old.extend(known);
        }
        for sql in [LEASES_END, MEMBERS_END] {
            self.sql(sql).await;
        }
        for _ in 0..500 {
            self.sql(RETRIES_ARE_DUE).await;
            self.poll(0, 50).await;
            self.check_parked().await;
            let count = self.known.get(&0).map_or(0, Vec::len);
            if let (0, Some(place)) = (count, self.parked.first().copied()) {
                assert_eq!(self.store.replay_parked(GROUP, place.0, place.1).await.unwrap(), Some(true));
                self.parked.remove(&place);
            } else if count == 0 {
                break;
            }
            self.settle(0, count, 0).await;
        }
        let wanted: BTreeSet<Place> = self.wanted.keys().copied().collect();
        assert_eq!(self.ended, wanted, "handled or parked, every one");
        self.check_parked().await;
        for lag in self.store.lags(Some(GROUP)).await.unwrap().remove(GROUP).unwrap() {
            assert_eq!((lag.in_hand, lag.retrying, lag.waiting, lag.parked), (0, 0, 0, 0), "{lag:?}");
        }
    }
}

#[test]
fn every_event_is_handled_or_parked_and_each_stream_in_order_11() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16);
    let config = Config { cases, max_shrink_iters: 300, failure_persistence: None, ..Config::default() };
    for backend in [Backend::Sqlite, Backend::Postgres] {
        TestRunner::new(config.clone())
            .run(&prop::collection::vec(acts(), 1..80), |history| {
                runtime.block_on(async {
                    let mut world = World::new(backend).await;
                    for act in &history {
                        world.act(act).await;
                        world.check_parked().await;
                    }
                    world.drain().await;
                });
                Ok(())
            })
            .unwrap();
    }
}
