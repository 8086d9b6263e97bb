//! Consumer groups, rule by rule. Leases and retries end when a test says so.

use std::{collections::BTreeMap, sync::Arc};

use skald_core::{
    event::Mode,
    ids::Shard,
    time::{Millis, Timestamp},
};

use super::{
    super::{
        OwnedShard, Storage,
        groups::{
            Delivery, GroupFilter, GroupRetry, NewGroup, Poll, PutGroup, ReplayRange, Settled, Settlement, ShardLag,
            Start,
        },
    },
    fixture::{Backend, Database, LEASE},
    sample::{Named, Saga, mixed, owner},
};

pub const GROUP: &str = "projection";

pub fn new_group() -> NewGroup {
    NewGroup {
        name: GROUP.to_owned(),
        filter: GroupFilter::default(),
        retry: GroupRetry { attempts: 3, ..GroupRetry::default() },
        start: Start::Beginning,
    }
}

pub fn poll_of(consumer: &str, limit: u32) -> Poll {
    Poll { group: GROUP.to_owned(), consumer: consumer.to_owned(), limit, lease: Millis(30_000), settle: Vec::new() }
}

pub fn settlement(delivery: &Delivery, result: Settled) -> Settlement {
    let (shard, position) = (delivery.event.shard, delivery.event.position);
    Settlement { shard, position, token: delivery.token, result }
}

pub fn failed() -> Settled {
    Settled::Failed { error: "no".to_owned(), poison: false }
}

fn poison() -> Settled {
    Settled::Failed { error: "never".to_owned(), poison: true }
}

/// Every lease ends.
pub const LEASES_END: &str = "UPDATE consumer_cursors SET lease_until_us = 0";
/// Whoever polled is forgotten.
pub const MEMBERS_END: &str = "UPDATE consumer_members SET seen_until_us = 0";
/// Every retry is due.
pub const RETRIES_ARE_DUE: &str = "UPDATE consumer_held SET next_at_us = 0 WHERE status = 'retry'";

/// A store with a group from the beginning, and streams of one shard.
struct World<'a> {
    database: &'a Database,
    store: Arc<dyn Storage>,
    owned: Vec<OwnedShard>,
    streams: Vec<Named>,
}

impl<'a> World<'a> {
    async fn new(database: &'a Database, shards: u16, streams: usize) -> Self {
        let store = database.migrated(shards).await;
        let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
        assert_eq!(store.put_group(&new_group()).await.unwrap(), PutGroup::Created);
        let streams = (0..streams).map(|number| Named::new("cart", number as u16 % shards, shards)).collect();
        Self { database, store, owned, streams }
    }

    /// Appends one event to each of these streams, in this order.
    async fn append(&mut self, streams: &[usize]) {
        for stream in streams {
            let append = self.streams[*stream].append(&["A"]);
            self.store.commit(&mixed(&self.owned, vec![], vec![append])).await.unwrap();
        }
    }

    async fn poll(&self, consumer: &str, limit: u32) -> Vec<Delivery> {
        self.store.poll_group(&poll_of(consumer, limit)).await.unwrap().expect("the group is there").deliveries
    }

    async fn next_at(&self) -> Option<Timestamp> {
        self.store.poll_group(&poll_of("somebody", 0)).await.unwrap().unwrap().next_at
    }

    /// Settles all of these; answers which were refused.
    async fn settle(&self, deliveries: &[Delivery], result: &Settled) -> Vec<i64> {
        let settlements: Vec<Settlement> =
            deliveries.iter().map(|delivery| settlement(delivery, result.clone())).collect();
        let refused = self.store.settle(GROUP, &settlements).await.unwrap().unwrap();
        refused.into_iter().map(|(_, position)| position).collect()
    }

    async fn done(&self, deliveries: &[Delivery]) {
        assert_eq!(self.settle(deliveries, &Settled::Done).await, [0; 0]);
    }

    async fn lag(&self) -> Vec<ShardLag> {
        self.store.lags(Some(GROUP)).await.unwrap().remove(GROUP).unwrap()
    }

    async fn is_through(&self) {
        for lag in self.lag().await {
            assert_eq!((lag.position, lag.ahead, lag.in_hand), (lag.head, 0, 0), "{lag:?}");
            assert_eq!((lag.retrying, lag.waiting, lag.parked), (0, 0, 0), "{lag:?}");
        }
    }

    async fn sql(&self, sql: &str) {
        self.database.execute(sql).await.unwrap();
    }
}

/// Stream and version of each, and which try.
fn told(world: &World<'_>, deliveries: &[Delivery]) -> Vec<(usize, u64, u32)> {
    let stream = |delivery: &Delivery| world.streams.iter().position(|stream| stream.id == delivery.event.stream);
    deliveries.iter().map(|of| (stream(of).unwrap(), of.event.version, of.tries)).collect()
}

pub async fn a_group_is_made_changed_and_dropped(database: &Database) {
    let store = database.migrated(1).await;
    assert_eq!(store.poll_group(&poll_of("a", 10)).await.unwrap().map(|_| ()), None);
    assert_eq!(store.settle(GROUP, &[]).await.unwrap(), None);
    assert!(store.group(GROUP).await.unwrap().is_none());
    assert_eq!(store.put_group(&new_group()).await.unwrap(), PutGroup::Created);
    assert_eq!(store.put_group(&new_group()).await.unwrap(), PutGroup::Unchanged);
    let filter = GroupFilter {
        types: vec!["A \"quoted\"".to_owned()],
        mode: Some(Mode::Choreographed),
        ..GroupFilter::default()
    };
    let retry = GroupRetry { initial: Millis(5), max: Millis(7), attempts: 9 };
    let changed = NewGroup { filter: filter.clone(), retry, ..new_group() };
    assert_eq!(store.put_group(&changed).await.unwrap(), PutGroup::Changed);
    assert_eq!(store.put_group(&changed).await.unwrap(), PutGroup::Unchanged);
    store.put_group(&NewGroup { name: "audit".to_owned(), ..new_group() }).await.unwrap();
    let groups = store.groups().await.unwrap();
    let found: Vec<_> = groups.iter().map(|group| (group.name.as_str(), &group.filter, group.retry.attempts)).collect();
    assert_eq!(found, [("audit", &GroupFilter::default(), 3), (GROUP, &filter, 9)]);
    assert_eq!(store.group(GROUP).await.unwrap().as_ref(), Some(&groups[1]));
    let lags = store.lags(None).await.unwrap();
    assert!(lags.keys().eq(["audit", GROUP]), "{lags:?}");
    assert!(store.drop_group(GROUP).await.unwrap() && !store.drop_group(GROUP).await.unwrap());
    assert!(store.group(GROUP).await.unwrap().is_none());
    assert_eq!(store.lags(Some(GROUP)).await.unwrap(), BTreeMap::new());
}

pub async fn events_are_handed_out_once_and_settled(database: &Database) {
    let mut world = World::new(database, 1, 2).await;
    assert!(world.poll("a", 10).await.is_empty());
    world.append(&[0, 0, 1, 0]).await;
    let first = world.poll("a", 3).await;
    assert_eq!(told(&world, &first), [(0, 1, 1), (0, 2, 1), (1, 1, 1)]);
    let second = world.poll("a", 10).await;
    assert_eq!(told(&world, &second), [(0, 3, 1)], "what is in hand is not handed out again");
    assert!(world.poll("a", 10).await.is_empty());
    let lag = world.lag().await;
    assert_eq!((lag[0].position, lag[0].in_hand, lag[0].ahead), (0, 4, 0));
    world.done(&first[1..]).await;
    assert_eq!(world.lag().await[0].position, 0, "the first one is still in hand");
    world.done(&first[..1]).await;
    assert_eq!(world.lag().await[0].position, 3);
    assert_eq!(world.settle(&first, &Settled::Done).await, [1, 2, 3], "settled before");
    world.done(&second).await;
    world.is_through().await;
}

pub async fn a_group_may_begin_at_the_end(database: &Database) {
    let mut world = World::new(database, 1, 1).await;
    world.append(&[0, 0]).await;
    world.store.put_group(&NewGroup { name: "late".to_owned(), start: Start::End, ..new_group() }).await.unwrap();
    world.append(&[0]).await;
    let poll = Poll { group: "late".to_owned(), ..poll_of("a", 10) };
    let deliveries = world.store.poll_group(&poll).await.unwrap().unwrap().deliveries;
    assert_eq!(told(&world, &deliveries), [(0, 3, 1)]);
    assert_eq!(world.poll("a", 10).await.len(), 3, "each group has its own place");
}

pub async fn what_a_group_does_not_want_is_passed_over(database: &Database) {
    let mut world = World::new(database, 1, 1).await;
    let filter = GroupFilter { categories: vec!["complaint".to_owned()], ..GroupFilter::default() };
    world.store.put_group(&NewGroup { filter, ..new_group() }).await.unwrap();
    let mut complaint = Named::new("complaint", 0, 1);
    world.append(&[0; 5]).await;
    world.store.commit(&mixed(&world.owned, vec![Saga::new(0, 1).create()], vec![])).await.unwrap();
    assert!(world.poll("a", 10).await.is_empty());
    world.store.commit(&mixed(&world.owned, vec![], vec![complaint.append(&["Made", "Closed"])])).await.unwrap();
    world.append(&[0; 5]).await;
    let deliveries = world.poll("a", 10).await;
    let types: Vec<&str> = deliveries.iter().map(|delivery| &*delivery.event.type_name).collect();
    assert_eq!(types, ["Made", "Closed"]);
    world.done(&deliveries).await;
    world.is_through().await;
    // What is looked at in vain is noted by and by.
    world.append(&[0]).await;
    world.sql("UPDATE consumer_cursors SET moved_at_us = 0").await;
    assert!(world.poll("a", 10).await.is_empty());
    world.is_through().await;
}

pub async fn what_is_in_hand_when_a_lease_ends_is_handed_out_again(database: &Database) {
    let mut world = World::new(database, 1, 2).await;
    world.append(&[0, 1, 0]).await;
    let first = world.poll("a", 10).await;
    world.done(&first[1..2]).await;
    assert!(world.poll("b", 10).await.is_empty(), "the lease protects what is in hand");
    assert!(world.next_at().await.is_some(), "its end is worth waiting for");
    world.sql(LEASES_END).await;
    world.sql(MEMBERS_END).await;
    world.append(&[1]).await;
    let again = world.poll("b", 10).await;
    assert_eq!(told(&world, &again), [(0, 1, 2), (0, 2, 2), (1, 2, 1)], "what was settled stays settled");
    assert_ne!(again[0].token, first[0].token);
    assert_eq!(world.settle(&first, &Settled::Done).await, [1, 2, 3], "the former holder is too late");
    assert_eq!(world.settle(&first, &poison()).await, [1, 2, 3]);
    world.done(&again).await;
    world.is_through().await;
}

pub async fn a_late_settlement_counts_while_nobody_else_began(database: &Database) {
    let mut world = World::new(database, 1, 1).await;
    world.append(&[0]).await;
    let first = world.poll("a", 10).await;
    world.sql(LEASES_END).await;
    world.done(&first).await;
    world.is_through().await;
}

/// A delivery whose answer was lost on the way is not in hand of anybody who knows.
pub async fn polling_does_not_renew_a_lease_and_settling_the_oldest_does(database: &Database) {
    let mut world = World::new(database, 1, 1).await;
    world.append(&[0, 0, 0]).await;
    let until = async || database.query("SELECT CAST(lease_until_us AS text) FROM consumer_cursors").await;
    let first = world.poll("a", 2).await;
    let begun = until().await;
    let second = world.poll("a", 10).await;
    assert_eq!((told(&world, &second), until().await), (vec![(0, 3, 1)], begun.clone()));
    world.done(&first[1..]).await;
    assert_eq!(until().await, begun);
    world.done(&first[..1]).await;
    assert!(until().await > begun);
}

pub async fn a_failed_event_is_tried_again_later_and_then_parked(database: &Database) {
    let mut world = World::new(database, 1, 2).await;
    world.append(&[0, 1]).await;
    let both = world.poll("a", 10).await;
    world.done(&both[1..]).await;
    let mut failing = both[..1].to_vec();
    for (tries, waits_ms) in [(1, 1000), (2, 2000)] {
        let before = world.store.now().await.unwrap();
        assert_eq!(world.settle(&failing, &failed()).await, [0; 0]);
        let after = world.store.now().await.unwrap();
        assert!(world.poll("a", 10).await.is_empty());
        let next_at = world.next_at().await.unwrap();
        assert!(before.plus(Millis(waits_ms)) <= next_at && next_at <= after.plus(Millis(waits_ms)));
        assert_eq!(world.lag().await[0].retrying, 1);
        world.sql(RETRIES_ARE_DUE).await;
        failing = world.poll("a", 10).await;
        assert_eq!(told(&world, &failing), [(0, 1, tries + 1)]);
    }
    assert_eq!(world.settle(&failing, &failed()).await, [0; 0]);
    world.sql(RETRIES_ARE_DUE).await;
    assert!(world.poll("a", 10).await.is_empty());
    let parked = world.store.parked(GROUP, None, 10).await.unwrap().unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!((parked[0].event.position, parked[0].tries, parked[0].error.as_str()), (1, 3, "no"));
    assert_eq!(world.next_at().await, None);
    assert!(world.store.parked("nobody", None, 10).await.unwrap().is_none());
}

/// Invariant 11.
pub async fn a_held_event_holds_back_its_own_stream_only(database: &Database) {
    let mut world = World::new(database, 1, 2).await;
    world.append(&[0, 1, 0, 1]).await;
    let all = world.poll("a", 10).await;
    assert_eq!(world.settle(&all[..1], &poison()).await, [0; 0], "parked at once");
    assert_eq!(world.settle(&all[1..], &Settled::Done).await, [3], "the one behind it is out of hand");
    world.append(&[0, 1, 0]).await;
    let others = world.poll("a", 10).await;
    assert_eq!(told(&world, &others), [(1, 3, 1)]);
    world.done(&others).await;
    let lag = world.lag().await;
    assert_eq!((lag[0].parked, lag[0].waiting, lag[0].position), (1, 3, 7));

    assert_eq!(world.store.replay_parked(GROUP, Shard(0), 2).await.unwrap(), Some(false), "it is not parked");
    assert_eq!(world.store.replay_parked(GROUP, Shard(0), 1).await.unwrap(), Some(true));
    assert_eq!(world.store.replay_parked(GROUP, Shard(0), 1).await.unwrap(), Some(false));
    let again = world.poll("a", 10).await;
    assert_eq!(told(&world, &again), [(0, 1, 1)], "with a fresh policy, alone");
    world.done(&again).await;
    world.append(&[0]).await;
    let rest = world.poll("a", 10).await;
    assert_eq!(told(&world, &rest), [(0, 2, 1), (0, 3, 1), (0, 4, 1)], "then what waited, and what is new behind it");
    world.done(&rest).await;
    let last = world.poll("a", 10).await;
    assert_eq!(told(&world, &last), [(0, 5, 1)]);
    world.done(&last).await;
    world.is_through().await;
}

pub async fn a_dropped_event_lets_its_stream_go_on(database: &Database) {
    let mut world = World::new(database, 1, 1).await;
    world.append(&[0, 0]).await;
    let all = world.poll("a", 10).await;
    world.settle(&all[..1], &poison()).await;
    assert_eq!(world.store.drop_parked(GROUP, Shard(0), 2).await.unwrap(), Some(false));
    assert_eq!(world.store.drop_parked(GROUP, Shard(7), 1).await.unwrap(), Some(false));
    assert_eq!(world.store.drop_parked("nobody", Shard(0), 1).await.unwrap(), None);
    assert_eq!(world.store.drop_parked(GROUP, Shard(0), 1).await.unwrap(), Some(true));
    assert!(world.store.parked(GROUP, None, 10).await.unwrap().unwrap().is_empty());
    let rest = world.poll("a", 10).await;
    assert_eq!(told(&world, &rest), [(0, 2, 1)]);
    world.done(&rest).await;
    world.is_through().await;
}

pub async fn a_long_queue_behind_a_held_event_comes_in_order(database: &Database) {
    let mut world = World::new(database, 1, 1).await;
    world.append(&[0]).await;
    let first = world.poll("a", 10).await;
    world.settle(&first, &poison()).await;
    let types = vec!["A"; 450];
    let append = world.streams[0].append(&types);
    world.store.commit(&mixed(&world.owned, vec![], vec![append])).await.unwrap();
    while world.lag().await[0].ahead > 0 {
        assert!(world.poll("a", 200).await.is_empty());
    }
    world.store.replay_parked(GROUP, Shard(0), 1).await.unwrap();
    let mut versions = Vec::new();
    for turn in 0.. {
        let deliveries = world.poll("a", 60).await;
        if deliveries.is_empty() {
            break;
        }
        // Now and then one fails in the middle.
        let fails = if turn % 3 == 1 { deliveries.len() / 2 } else { deliveries.len() };
        versions.extend(deliveries[..fails].iter().map(|delivery| delivery.event.version));
        world.done(&deliveries[..fails]).await;
        if fails < deliveries.len() {
            world.settle(&deliveries[fails..=fails], &failed()).await;
            assert_eq!(
                world.settle(&deliveries[fails + 1..], &Settled::Done).await.len(),
                deliveries.len() - fails - 1
            );
            assert!(world.poll("a", 60).await.is_empty());
            world.sql(RETRIES_ARE_DUE).await;
        }
    }
    assert!(versions.iter().copied().eq(1..=451), "{versions:?}");
    world.is_through().await;
}

pub async fn parked_events_are_listed_page_by_page(database: &Database) {
    let shards: u16 = if database.backend == Backend::Postgres { 3 } else { 1 };
    let mut world = World::new(database, shards, 7).await;
    world.append(&[0, 1, 2, 3, 4, 5, 6]).await;
    let all = world.poll("a", 100).await;
    assert_eq!(all.len(), 7);
    world.settle(&all, &poison()).await;
    let mut places = Vec::new();
    loop {
        let page = world.store.parked(GROUP, places.last().copied(), 2).await.unwrap().unwrap();
        if page.is_empty() {
            break;
        }
        places.extend(page.iter().map(|parked| (parked.event.shard, parked.event.position)));
    }
    let mut expected: Vec<_> = all.iter().map(|delivery| (delivery.event.shard, delivery.event.position)).collect();
    expected.sort();
    assert_eq!(places, expected);
}

pub async fn consumers_share_the_shards(database: &Database) {
    let shards: u16 = if database.backend == Backend::Postgres { 4 } else { 1 };
    let mut world = World::new(database, shards, usize::from(shards)).await;
    let every: Vec<usize> = (0..usize::from(shards)).collect();
    world.append(&every).await;
    let alone = world.poll("a", 100).await;
    assert_eq!(alone.len(), usize::from(shards), "one alone gets all");
    assert!(world.poll("b", 100).await.is_empty());
    world.append(&every).await;
    let kept = world.poll("a", 100).await;
    assert_eq!(kept.len(), usize::from(shards).div_ceil(2), "no more than its share from now on");
    world.done(&alone).await;
    world.done(&kept).await;
    let (one, two) = (world.poll("a", 100).await, world.poll("b", 100).await);
    world.append(&every).await;
    let (mine, others) = (world.poll("a", 100).await, world.poll("b", 100).await);
    let of = |deliveries: &[Delivery]| {
        let mut shards: Vec<Shard> = deliveries.iter().map(|delivery| delivery.event.shard).collect();
        shards.sort();
        shards.dedup();
        shards
    };
    let (a, b) = (of(&[&one[..], &mine].concat()), of(&[&two[..], &others].concat()));
    assert!(a.iter().all(|shard| !b.contains(shard)), "{a:?} {b:?}");
    assert_eq!((a.len(), b.len()), (usize::from(shards).div_ceil(2), usize::from(shards) / 2));
    for deliveries in [one, two, mine, others] {
        world.done(&deliveries).await;
    }
    world.sql(MEMBERS_END).await;
    let rest = world.poll("b", 100).await;
    world.done(&rest).await;
    world.is_through().await;
}

pub async fn a_part_of_the_log_is_handled_once_more(database: &Database) {
    let mut world = World::new(database, 1, 3).await;
    world.append(&[0, 1, 0, 2, 0, 1]).await;
    let all = world.poll("a", 5).await;
    world.done(&all[..4]).await;
    // One is in hand, one was not looked at yet: neither is handed out twice.
    let range = ReplayRange { shard: Shard(0), after: 1, until: 100, limit: 2 };
    let first = world.store.replay_range(GROUP, &range).await.unwrap().unwrap();
    assert_eq!((first.events, first.read_to, first.ended), (2, 3, false));
    let second = world.store.replay_range(GROUP, &ReplayRange { after: 3, limit: 10, ..range }).await.unwrap().unwrap();
    assert_eq!((second.events, second.read_to, second.ended), (1, 5, true));
    let again = world.store.replay_range(GROUP, &ReplayRange { limit: 10, ..range }).await.unwrap().unwrap();
    assert_eq!(again.events, 0, "they will be handed out already");
    assert!(world.store.replay_range("nobody", &range).await.unwrap().is_none());
    let replayed = world.poll("a", 10).await;
    assert_eq!(told(&world, &replayed), [(1, 1, 1), (0, 2, 1), (2, 1, 1)], "what is new in their streams waits");
    world.done(&all[4..]).await;
    world.done(&replayed).await;
    let rest = world.poll("a", 10).await;
    assert_eq!(told(&world, &rest), [(1, 2, 1)]);
    world.done(&rest).await;
    world.is_through().await;
}

/// An event whose handling ends its consumer's life must not do so for ever.
pub async fn an_event_that_ends_its_consumers_is_parked(database: &Database) {
    let mut world = World::new(database, 1, 12).await;
    world.append(&(0..12).collect::<Vec<usize>>()).await;
    let deadly = 5;
    let mut handled = std::collections::BTreeSet::new();
    for _ in 0..60 {
        // Settles one by one, and dies of the deadly one.
        for delivery in world.poll("a", 8).await {
            let position = delivery.event.position;
            if position == deadly {
                world.sql(LEASES_END).await;
                break;
            }
            if world.settle(&[delivery], &Settled::Done).await.is_empty() {
                handled.insert(position);
            }
        }
    }
    let parked = world.store.parked(GROUP, None, 10).await.unwrap().unwrap();
    assert!(parked.len() == 1 && parked[0].event.position == deadly, "{parked:?}");
    assert!(parked[0].error.contains("silent"), "{}", parked[0].error);
    assert!(handled.into_iter().eq((1..=12).filter(|position| *position != deadly)));
}

pub async fn a_group_that_is_made_anew_refuses_what_the_old_one_handed_out(database: &Database) {
    let mut world = World::new(database, 1, 1).await;
    world.append(&[0]).await;
    let old = world.poll("a", 10).await;
    world.store.drop_group(GROUP).await.unwrap();
    world.store.put_group(&new_group()).await.unwrap();
    let new = world.poll("a", 10).await;
    assert_eq!(world.settle(&old, &Settled::Done).await, [1]);
    world.done(&new).await;
}

/// Whoever is slower reads again: nothing is handed out twice under leases that hold.
pub async fn consumers_that_poll_at_once_get_different_events(database: &Database) {
    let shards: u16 = if database.backend == Backend::Postgres { 4 } else { 1 };
    let mut world = World::new(database, shards, 8).await;
    world.append(&[0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7]).await;
    let names: Vec<String> = (0..6).map(|number| format!("consumer-{number}")).collect();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let polls = names.iter().map(|name| world.poll(name, 3));
        let polled: Vec<Vec<Delivery>> = futures_util::future::join_all(polls).await;
        for delivery in polled.iter().flatten() {
            assert!(seen.insert((delivery.event.shard, delivery.event.position)), "twice: {delivery:?}");
        }
        let settles = polled.iter().map(|deliveries| world.done(deliveries));
        futures_util::future::join_all(settles).await;
    }
    assert_eq!(seen.len(), 16);
    world.is_through().await;
}
