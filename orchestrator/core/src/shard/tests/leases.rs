//! Several lease machines on one database that answers late, not at all, or only seems not to have done what it was
//! asked: replicas join, stop, die and freeze.

mod database;
mod fleet;

use alloc::{vec, vec::Vec};

use proptest::prelude::*;

use self::fleet::{Fleet, GRACE, LEASE, LOOK, SHARDS};
use crate::{
    decide::tests::T0,
    ids::{Epoch, Shard},
    shard::{
        batch::Fence,
        leases::{
            LeaseEffect, LeaseLimits, LeaseReport, LeaseRequest, LeaseView, Leases, Presence, TakenShard, fair_share,
        },
    },
    time::{Millis, Timestamp},
};

#[derive(Clone, Copy, Debug)]
enum Happening {
    Join,
    Die(u8),
    Stop(u8),
    /// The replica does nothing for so long, and does not notice.
    Freeze(u8, u16),
    /// Its next request fails, done or not done.
    Fault {
        which: u8,
        done: bool,
    },
    /// Its writer does not know how its last commit ended.
    Doubt(u8, u8),
    Pass(u16),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => Just(Happening::Join),
        1 => any::<u8>().prop_map(Happening::Die),
        1 => any::<u8>().prop_map(Happening::Stop),
        1 => (any::<u8>(), 0_u16..9000).prop_map(|(which, for_ms)| Happening::Freeze(which, for_ms)),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(which, done)| Happening::Fault { which, done }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(which, shard)| Happening::Doubt(which, shard)),
        9 => (0_u16..3000).prop_map(Happening::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// [`Fleet::pass`] checks at every step that no shard is relied on by two, and that only its owner relies on it.
    #[test]
    fn no_shard_has_two_owners_and_all_have_one_in_the_end_9(
        seed in any::<u64>(),
        happenings in proptest::collection::vec(happening(), 1..40),
    ) {
        let mut fleet = Fleet::new(seed);
        fleet.join();
        for happening in happenings {
            match happening {
                Happening::Join if fleet.living().len() < 6 => { fleet.join(); }
                Happening::Join => {}
                Happening::Die(which) => fleet.die(which.into()),
                Happening::Stop(which) => fleet.stop(which.into()),
                Happening::Freeze(which, for_ms) => fleet.freeze(which.into(), Millis(for_ms.into())),
                Happening::Fault { which, done } => fleet.fault(which.into(), done),
                Happening::Doubt(which, shard) => fleet.doubt(which.into(), Shard(u16::from(shard) % SHARDS)),
                Happening::Pass(span_ms) => fleet.pass(Millis(span_ms.into())),
            }
        }
        if fleet.living().is_empty() {
            fleet.join();
        }
        fleet.pass(Millis(10_000 + 2 * LEASE.0 + GRACE.0));
        prop_assert_eq!(fleet.shares(), fleet.fair_shares());
        let moves = fleet.moves;
        fleet.pass(Millis(4 * LEASE.0));
        prop_assert_eq!(fleet.moves, moves, "who has a fair share keeps it");
    }
}

#[test]
fn a_fair_share_is_even_and_the_first_have_one_more() {
    for (shards, expected) in [
        (16, vec![vec![16], vec![8, 8], vec![6, 5, 5], vec![4, 4, 4, 4], vec![4, 3, 3, 3, 3]]),
        (1, vec![vec![1], vec![1, 0], vec![1, 0, 0]]),
    ] {
        for shares in expected {
            let live = shares.len();
            let computed: Vec<usize> = (0..live).map(|rank| fair_share(shards, live, rank)).collect();
            assert_eq!(computed, shares);
        }
    }
}

#[test]
fn one_replica_takes_all_at_once() {
    let mut fleet = Fleet::new(1);
    fleet.join();
    let all_taken = fleet.until("all are taken", Millis(500), |fleet| fleet.shares() == [usize::from(SHARDS)]);
    assert!(all_taken < Millis(200), "{all_taken}");
}

#[test]
fn who_joins_gets_its_share_and_only_that_moves() {
    let mut fleet = Fleet::new(2);
    fleet.join();
    fleet.pass(Millis(1000));
    for (joined, expected) in [(1, vec![8, 8]), (2, vec![6, 5, 5]), (3, vec![4, 4, 4, 4])] {
        let before = fleet.moves;
        fleet.join();
        let moving: usize = expected[joined];
        let settled = fleet.until("the shares are fair", Millis(GRACE.0 + 2000), |fleet| fleet.shares() == expected);
        assert!(settled.0 <= GRACE.0 + 2 * LOOK.0 + 600, "{settled}");
        fleet.pass(Millis(10_000));
        assert_eq!(fleet.moves - before, moving, "only what the new one is due moves");
    }
}

#[test]
fn the_shards_of_the_dead_are_taken_within_the_lease_and_a_second() {
    for seed in 0..50 {
        let mut fleet = Fleet::new(seed);
        (0..3).for_each(|_| fleet.join());
        fleet.pass(Millis(8000 + seed * 37));
        assert_eq!(fleet.shares(), [6, 5, 5]);
        fleet.die((seed % 3) as usize);
        let taken = fleet.until("all are taken", Millis(LEASE.0 + 2000), |fleet| fleet.shares() == [8, 8]);
        assert!(taken.0 <= LEASE.0 + 1000, "{taken}");
        assert_eq!(fleet.unclean, if seed % 3 == 0 { 6 } else { 5 }, "each is known to be unclean");
    }
}

#[test]
fn who_stops_hands_over_each_shard_when_it_is_drained() {
    for seed in 0..50 {
        let mut fleet = Fleet::new(seed);
        (0..2).for_each(|_| fleet.join());
        fleet.pass(Millis(8000));
        fleet.stop(0);
        fleet.until("it has stopped", Millis(GRACE.0 + 1000), |fleet| fleet.running() == 1);
        let taken = fleet.until("all are taken", Millis(2000), |fleet| fleet.shares() == [usize::from(SHARDS)]);
        assert!(fleet.longest_gap < Millis(1000), "a released shard was free for {}", fleet.longest_gap);
        assert!(taken < Millis(1000), "{taken}");
        assert_eq!(fleet.unclean, 0);
    }
}

#[test]
fn who_wakes_after_its_lease_relies_on_nothing_before_it_has_asked() {
    let mut fleet = Fleet::new(3);
    (0..2).for_each(|_| fleet.join());
    fleet.pass(Millis(8000));
    fleet.freeze(0, Millis(7000));
    fleet.until("the other one has all", Millis(6500), |fleet| fleet.shares_awake() == [usize::from(SHARDS)]);
    fleet.until("both share", Millis(20_000), |fleet| fleet.shares() == [8, 8]);
}

fn limits() -> LeaseLimits {
    LeaseLimits { shards: 4, lease: Millis(5000), look_every: Millis(400), grace: Millis(1000) }
}

fn at(millis: u64) -> Timestamp {
    T0.plus(Millis(millis))
}

fn fences(shards: &[u16]) -> Vec<Fence> {
    shards.iter().map(|shard| Fence { shard: Shard(*shard), epoch: Epoch(1) }).collect()
}

fn view(replicas: &[&str], free: &[u16], mine: &[u16]) -> LeaseView {
    LeaseView {
        replicas: replicas.iter().map(|id| (*id).into()).collect(),
        free: free.iter().copied().map(Shard).collect(),
        mine: fences(mine),
    }
}

fn effects(leases: &mut Leases) -> Vec<LeaseEffect> {
    core::iter::from_fn(|| leases.next_effect()).collect()
}

/// One that has all four shards since `at(0)`.
fn owner_of_all() -> Leases {
    let mut leases = Leases::new("a".into(), limits(), at(0));
    leases.tick(at(0));
    leases.answered(Some(LeaseReport { view: view(&["a"], &[0, 1, 2, 3], &[]), ..LeaseReport::default() }), at(0));
    let taken = |shard| TakenShard { shard: Shard(shard), epoch: Epoch(1), died: false };
    let report = LeaseReport {
        taken: (0..4).map(taken).collect(),
        view: view(&["a"], &[], &[0, 1, 2, 3]),
        ..LeaseReport::default()
    };
    leases.answered(Some(report), at(0));
    assert_eq!(leases.held(), 4);
    effects(&mut leases);
    leases
}

#[test]
fn the_first_request_only_says_that_it_lives_and_the_second_takes() {
    let mut leases = Leases::new("a".into(), limits(), at(0));
    leases.tick(at(0));
    let hello =
        LeaseRequest { presence: Presence::Heartbeat, renew: Vec::new(), release: Vec::new(), take: Vec::new() };
    assert_eq!(effects(&mut leases), [LeaseEffect::Ask(hello)]);
    leases.answered(Some(LeaseReport { view: view(&["z", "a"], &[1, 2, 3], &[]), ..LeaseReport::default() }), at(10));
    let [LeaseEffect::Ask(request)] = &effects(&mut leases)[..] else { panic!("it asks again at once") };
    assert_eq!(request.presence, Presence::Unchanged);
    assert_eq!(request.take, [Shard(2), Shard(3)], "half of four, from its own place on");
}

#[test]
fn a_lease_counts_from_before_it_was_asked_for_and_ends_early() {
    let mut leases = owner_of_all();
    assert_eq!(leases.until(Shard(0)), Some(at(4000)));
    leases.tick(at(1700));
    let report = LeaseReport {
        renewed: (0..4).map(Shard).collect(),
        view: view(&["a"], &[], &[0, 1, 2, 3]),
        ..LeaseReport::default()
    };
    leases.answered(Some(report), at(3000));
    assert_eq!(leases.until(Shard(0)), Some(at(5700)), "not 7000");
}

#[test]
fn what_cannot_be_renewed_is_lost_before_the_lease_ends() {
    let mut leases = owner_of_all();
    leases.tick(at(1700));
    leases.answered(None, at(2500));
    leases.tick(at(2900));
    effects(&mut leases);
    leases.tick(at(3999));
    assert_eq!(effects(&mut leases), []);
    leases.tick(at(4000));
    let lost = LeaseEffect::Lost((0..4).map(Shard).collect());
    assert_eq!(effects(&mut leases), core::slice::from_ref(&lost));
    // A late answer brings nothing back that was lost, but shows what is still in its name.
    let report = LeaseReport {
        renewed: (0..4).map(Shard).collect(),
        view: view(&["a"], &[], &[0, 1, 2, 3]),
        ..LeaseReport::default()
    };
    leases.answered(Some(report), at(4100));
    assert_eq!(leases.held(), 0);
    let [LeaseEffect::Ask(request)] = &effects(&mut leases)[..] else { panic!("it asks again at once") };
    assert_eq!(request.take.len(), 4);
}

#[test]
fn what_another_owns_is_lost_at_once() {
    let mut leases = owner_of_all();
    leases.tick(at(400));
    effects(&mut leases);
    leases.answered(Some(LeaseReport { view: view(&["a"], &[], &[0, 1, 3]), ..LeaseReport::default() }), at(410));
    assert_eq!(effects(&mut leases), [LeaseEffect::Lost(vec![Shard(2)])]);
}

#[test]
fn a_surplus_is_released_when_drained_or_when_the_grace_is_over() {
    let mut leases = owner_of_all();
    leases.tick(at(400));
    effects(&mut leases);
    let joined = LeaseReport { view: view(&["a", "b"], &[], &[0, 1, 2, 3]), ..LeaseReport::default() };
    leases.answered(Some(joined), at(410));
    assert_eq!(effects(&mut leases), [LeaseEffect::Drain(vec![Shard(3), Shard(2)])]);
    leases.drained(Shard(0), at(420));
    assert_eq!(effects(&mut leases), [], "what does not drain is not given up");
    leases.drained(Shard(3), at(420));
    let [LeaseEffect::Released(released), LeaseEffect::Ask(request)] = &effects(&mut leases)[..] else {
        panic!("it is released at once")
    };
    assert_eq!((&released[..], &request.release[..]), (&[Shard(3)][..], &fences(&[3])[..]));
    leases.answered(Some(LeaseReport { view: view(&["a", "b"], &[3], &[0, 1, 2]), ..LeaseReport::default() }), at(430));
    leases.tick(at(1409));
    effects(&mut leases);
    leases.tick(at(1410));
    assert_eq!(effects(&mut leases), [LeaseEffect::Released(vec![Shard(2)])]);
}

#[test]
fn a_shard_in_doubt_is_taken_again_at_once() {
    let mut leases = owner_of_all();
    leases.forgotten(&[Shard(1)], at(100));
    let [LeaseEffect::Ask(request)] = &effects(&mut leases)[..] else { panic!("it asks at once") };
    assert_eq!(request.take, [Shard(1)]);
    let taken = vec![TakenShard { shard: Shard(1), epoch: Epoch(2), died: false }];
    let mut view = view(&["a"], &[], &[0, 1, 2, 3]);
    view.mine[1].epoch = Epoch(2);
    leases.answered(Some(LeaseReport { taken, view, ..LeaseReport::default() }), at(110));
    let [LeaseEffect::Taken(taken)] = &effects(&mut leases)[..] else { panic!("it is taken") };
    assert_eq!(taken.epoch, Epoch(2));
}

#[test]
fn who_holds_nothing_stops_with_one_request_also_when_it_fails() {
    let mut leases = Leases::new("a".into(), limits(), at(0));
    leases.stop(Millis(1000), at(0));
    let [LeaseEffect::Ask(request)] = &effects(&mut leases)[..] else { panic!("it says goodbye") };
    assert_eq!(request.presence, Presence::Gone);
    leases.answered(None, at(10));
    assert_eq!(effects(&mut leases), [LeaseEffect::Stopped]);
    assert_eq!((leases.is_stopped(), leases.next_wake()), (true, None));
}
