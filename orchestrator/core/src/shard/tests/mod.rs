//! The writer against a store that fails in every way a store can, with crashes, usurpers and an unreliable network.

mod appends;
mod leases;
mod replica;
mod store;

use alloc::{boxed::Box, collections::BTreeMap, vec, vec::Vec};

use proptest::prelude::*;
use serde_json::json;

use self::{appends::AppendAsk, replica::Replica, store::Store};
use super::admission::BURST;
use crate::{
    decide::{
        Invoke,
        tests::{
            TAKEOVERS_MAX,
            world::{Fate, Mark},
        },
    },
    ids::Shard,
    shard::writer::{Effect, Refusal},
    state::Status,
    time::Millis,
};

#[derive(Clone, Debug)]
pub(super) enum Happening {
    Start {
        key: Option<u8>,
    },
    CommitEnds(CommitFate),
    CallEnds {
        which: u8,
        fate: Fate,
    },
    LoadEnds {
        failed: bool,
    },
    TimePasses,
    /// Another replica takes a shard; this one finds out by its fence.
    Usurped {
        shard: u8,
    },
    /// This replica takes back what nobody holds on to.
    Retake,
    LeaseRanOut,
    /// A shard is to be given up.
    Drain {
        shard: u8,
    },
    Compensate {
        which: u8,
    },
    Append(AppendAsk),
    LookUpEnds {
        failed: bool,
    },
    Crash,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum CommitFate {
    Applied,
    NotApplied,
    AppliedInDoubt,
    NotAppliedInDoubt,
    /// Reported as applied although its epoch is over by now.
    AppliedAsOfOld,
}

fn happening() -> impl Strategy<Value = Happening> {
    let commit = prop_oneof![
        12 => Just(CommitFate::Applied),
        1 => Just(CommitFate::NotApplied),
        1 => Just(CommitFate::AppliedInDoubt),
        1 => Just(CommitFate::NotAppliedInDoubt),
    ];
    let fate = prop_oneof![
        8 => Just(Fate::Fine),
        1 => Just(Fate::ReplyLost),
        1 => Just(Fate::Refuse),
        1 => Just(Fate::Busy),
        1 => Just(Fate::Late),
        1 => Just(Fate::Accepted),
    ];
    prop_oneof![
        4 => proptest::option::of(0_u8..4).prop_map(|key| Happening::Start { key }),
        12 => commit.prop_map(Happening::CommitEnds),
        12 => (any::<u8>(), fate).prop_map(|(which, fate)| Happening::CallEnds { which, fate }),
        3 => any::<bool>().prop_map(|failed| Happening::LoadEnds { failed }),
        3 => Just(Happening::TimePasses),
        1 => any::<u8>().prop_map(|shard| Happening::Usurped { shard }),
        2 => Just(Happening::Retake),
        1 => Just(Happening::LeaseRanOut),
        2 => any::<u8>().prop_map(|shard| Happening::Drain { shard }),
        1 => any::<u8>().prop_map(|which| Happening::Compensate { which }),
        6 => appends::ask().prop_map(Happening::Append),
        6 => proptest::bool::weighted(0.1).prop_map(|failed| Happening::LookUpEnds { failed }),
        1 => Just(Happening::Crash),
    ]
}

fn check(replica: &mut Replica) {
    replica.store.check_log();
    appends::check(replica);
    let mut keys: BTreeMap<u8, _> = BTreeMap::new();
    for (saga, key) in replica.acknowledged.clone() {
        let row = replica.store.rows.get(&saga).expect("invariant 10: an acknowledged start exists");
        assert!(row.status.is_ended() || row.status == Status::Parked, "invariant 2: {row:?}");
        if let Some(key) = key {
            assert_eq!(*keys.entry(key).or_insert(saga), saga, "invariant 10: one key, one saga");
        }
    }
    let statuses: Vec<_> = replica.store.rows.values().map(|row| (row.id, row.status)).collect();
    for (saga, status) in statuses {
        let world = replica.worlds.entry(saga).or_default();
        world.deliver_late();
        for step in ["a", "b", "c"] {
            let (effects, undone) = (world.count(step, Mark::Effect), world.count(step, Mark::Undo));
            match status {
                Status::Completed => assert_eq!((effects, undone), (1, 0), "invariant 3: {saga} {step}"),
                Status::Parked => assert!(undone <= effects && effects <= 1, "{saga} {step}"),
                _ => assert_eq!(effects, undone, "invariant 4: {saga} {step} is {status}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_done_twice_whatever_the_store_does(
        happenings in proptest::collection::vec(happening(), 0..150),
    ) {
        let mut replica = Replica::new();
        for happening in &happenings {
            replica.happen(happening);
        }
        replica.heal();
        check(&mut replica);
    }
}

#[test]
fn transitions_of_many_sagas_go_in_one_commit() {
    let mut replica = Replica::new();
    for _ in 0..20 {
        replica.happen(&Happening::Start { key: None });
    }
    replica.happen(&Happening::CommitEnds(CommitFate::Applied));
    assert_eq!(replica.commit_sizes(), [1, 19], "the first alone, what came meanwhile together");
}

const FINE: Happening = Happening::CallEnds { which: 0, fate: Fate::Fine };
const APPLIED: Happening = Happening::CommitEnds(CommitFate::Applied);

/// Step a of a chain a, b, c is being called.
fn begun() -> Replica {
    let mut replica = Replica::new();
    replica.happen(&Happening::Start { key: None });
    replica.happen(&APPLIED);
    replica
}

#[test]
fn steps_announced_ahead_are_called_at_once_and_become_one_transition() {
    let mut replica = begun();
    for step in ["a", "b", "c"] {
        assert_eq!(&*replica.calls_made()[0].step, step);
        assert!(replica.commit.is_none(), "nothing waits for a commit");
        replica.happen(&FINE);
    }
    assert!(replica.commit.is_some(), "the end of the saga is waited for");
    replica.happen(&APPLIED);
    assert_eq!(replica.commit_sizes(), [1, 1]);
    check(&mut replica);
}

#[test]
fn a_chain_of_n_slow_steps_costs_n_plus_one_commits() {
    let mut replica = begun();
    for _ in 0..3 {
        replica.happen(&FINE);
        replica.happen(&Happening::TimePasses);
        replica.happen(&APPLIED);
    }
    assert_eq!(replica.commit_sizes(), [1; 4]);
    check(&mut replica);
}

#[test]
fn what_nothing_waits_for_is_committed_after_a_while() {
    let mut replica = begun();
    replica.happen(&FINE);
    let due = replica.writer.next_wake().expect("it is not forgotten");
    assert!(due <= replica.now.plus(Millis(25)), "{due:?}");
    replica.happen(&Happening::TimePasses);
    assert!(replica.commit.is_some());
    assert!(replica.writer.next_wake().is_none_or(|at| at > replica.now), "no other wake-up until it has ended");
}

#[test]
fn an_operators_command_waits_for_the_commit_of_what_went_before_and_for_nothing_else() {
    let mut replica = begun();
    replica.happen(&FINE);
    replica.happen(&Happening::Compensate { which: 0 });
    assert!(replica.commit.is_some(), "what the command is decided on");
    replica.happen(&APPLIED);
    assert!(replica.commit.is_some(), "the command");
    replica.heal();
    assert!(replica.store.rows.values().all(|row| row.status == Status::Compensated));
    check(&mut replica);
}

#[test]
fn what_was_called_ahead_and_is_not_in_the_log_is_called_again_after_a_crash() {
    let mut replica = begun();
    replica.happen(&FINE);
    replica.happen(&FINE);
    replica.happen(&Happening::Crash);
    replica.heal();
    assert!(replica.store.rows.values().all(|row| row.status == Status::Completed));
    check(&mut replica);
}

#[test]
fn starts_without_a_key_go_to_every_shard_some_at_a_time() {
    let mut replica = Replica::new();
    for _ in 0..192 {
        replica.happen(&Happening::Start { key: None });
    }
    replica.heal();
    let shards: Vec<u16> = replica.store.rows.keys().map(|saga| saga.shard(3).0).collect();
    let count = |shard: u16| shards.iter().filter(|at| **at == shard).count();
    assert_eq!([count(0), count(1), count(2)], [64; 3]);
    let mut in_order = replica.acknowledged.iter().map(|(saga, _)| saga.shard(3).0).collect::<Vec<_>>();
    in_order.dedup();
    assert!(in_order.len() <= 7, "{in_order:?}");
}

#[test]
fn an_offender_fails_alone_and_the_others_of_its_batch_are_written() {
    let mut replica = Replica::new();
    replica.happen(&Happening::Start { key: Some(1) });
    replica.happen(&Happening::CommitEnds(CommitFate::Applied));
    for key in [None, Some(1), None, None] {
        replica.happen(&Happening::Start { key });
    }
    replica.heal();
    assert_eq!(replica.refusals, [Refusal::KeyExists]);
    assert_eq!(replica.acknowledged.len(), 4);
    check(&mut replica);
}

#[test]
fn no_start_is_taken_beyond_what_fits() {
    let mut replica = Replica::with_room_for(3);
    for _ in 0..5 {
        replica.happen(&Happening::Start { key: None });
    }
    assert_eq!(replica.refusals, [Refusal::Overloaded, Refusal::Overloaded]);
    replica.heal();
    assert_eq!(replica.acknowledged.len(), 3);
}

/// Those whose first commit is under way among them.
#[test]
fn no_more_starts_are_taken_at_once_than_are_known_to_fare_well() {
    let mut replica = Replica::with_room_for(10_000);
    for _ in 0..=BURST {
        replica.happen(&Happening::Start { key: None });
    }
    assert_eq!(replica.refusals, [Refusal::Overloaded]);
    replica.heal();
    assert_eq!(replica.acknowledged.len(), BURST);
}

#[test]
fn a_saga_is_one_load_however_many_calls_it_makes_at_once() {
    let mut replica = Replica::new();
    replica.happen(&Happening::Start { key: None });
    replica.happen(&Happening::CommitEnds(CommitFate::Applied));
    let first = replica.calls_made()[0].clone();
    let load = |replica: &Replica| (replica.writer.in_flight(), replica.writer.active());
    let (1, alone) = load(&replica) else { panic!("one call is made") };
    let more = first.call + 1..first.call + 50;
    for call in more.clone() {
        replica.writer.invoke(Box::new(Invoke { call, ..first.clone() }));
    }
    assert_eq!(load(&replica), (50, alone));
    more.for_each(|call| replica.writer.call_ended(first.saga, call));
    assert_eq!(load(&replica), (1, alone));
    replica.writer.call_ended(first.saga, first.call);
    assert_eq!(load(&replica), (0, alone - 1));
}

#[test]
fn starts_are_taken_again_when_what_could_not_be_written_was_lost_with_its_shard() {
    let not_applied = Happening::CommitEnds(CommitFate::NotApplied);
    for lost_with in [[&not_applied, &Happening::LeaseRanOut], [&Happening::LeaseRanOut, &not_applied]] {
        let mut replica = Replica::new();
        replica.happen(&Happening::Start { key: None });
        lost_with.into_iter().for_each(|happening| replica.happen(happening));
        replica.happen(&Happening::Retake);
        assert!(replica.writer.has_room(), "nothing is left that could show that commits get through again");
        replica.happen(&Happening::Start { key: None });
        replica.heal();
        assert_eq!(replica.acknowledged.len(), 1);
        check(&mut replica);
    }
}

#[test]
fn a_saga_that_waits_for_long_leaves_the_memory_and_comes_back() {
    let mut replica = Replica::new();
    replica.happen(&Happening::Start { key: None });
    replica.happen(&Happening::CommitEnds(CommitFate::Applied));
    replica.happen(&Happening::CallEnds { which: 0, fate: Fate::Accepted });
    replica.happen(&Happening::CommitEnds(CommitFate::Applied));
    let load = replica.writer.load();
    assert_eq!((load.unfinished, load.resident, load.timers), (1, 0, 1));
    replica.heal();
    check(&mut replica);
}

#[test]
fn a_replica_without_the_shard_takes_nothing() {
    let mut replica = Replica::new();
    replica.writer.lose(&[Shard(0), Shard(1), Shard(2)]);
    replica.happen(&Happening::Start { key: None });
    assert_eq!(replica.refusals, [Refusal::NotOwner]);
}

/// All shards are being given up while a call is in flight.
fn draining() -> Replica {
    let mut replica = Replica::new();
    replica.happen(&Happening::Start { key: None });
    replica.happen(&Happening::CommitEnds(CommitFate::Applied));
    assert_eq!(replica.calls_made().len(), 1);
    (0..3).for_each(|shard| replica.happen(&Happening::Drain { shard }));
    replica
}

#[test]
fn a_draining_shard_waits_for_its_call_and_the_commit_of_what_it_said() {
    let mut replica = draining();
    assert_eq!(replica.writer.load().shards, 1, "those without a call are drained at once");
    replica.happen(&Happening::CallEnds { which: 0, fate: Fate::Fine });
    assert_eq!(replica.writer.load().shards, 1, "the report is not committed yet");
    replica.happen(&Happening::TimePasses);
    replica.happen(&Happening::CommitEnds(CommitFate::Applied));
    assert_eq!(replica.writer.load().shards, 0);
    assert!(replica.calls_made().is_empty(), "the next step is announced and left to the next owner");
    replica.heal();
    assert_eq!(replica.acknowledged.len(), 1);
    check(&mut replica);
}

#[test]
fn a_draining_shard_takes_nothing_on() {
    let mut replica = draining();
    replica.happen(&Happening::Start { key: None });
    replica.happen(&Happening::Start { key: Some(1) });
    replica.happen(&Happening::Compensate { which: 0 });
    assert_eq!(replica.refusals, [Refusal::NotOwner, Refusal::NotOwner, Refusal::NotOwner]);
    replica.heal();
    check(&mut replica);
}

#[test]
fn a_start_without_a_key_goes_to_a_shard_that_stays() {
    let mut replica = Replica::new();
    replica.happen(&Happening::Start { key: None });
    replica.happen(&Happening::CommitEnds(CommitFate::Applied));
    let busy = replica.calls_made()[0].saga.shard(3);
    replica.happen(&Happening::Drain { shard: u8::try_from(busy.0).unwrap() });
    for _ in 0..6 {
        replica.happen(&Happening::Start { key: None });
    }
    assert_eq!(replica.refusals, []);
    replica.happen(&Happening::CommitEnds(CommitFate::Applied));
    replica.happen(&Happening::CommitEnds(CommitFate::Applied));
    assert!(replica.calls_made()[1..].iter().all(|call| call.saga.shard(3) != busy));
    assert_eq!(replica.calls_made().len(), 7);
}

#[test]
fn a_saga_being_loaded_does_not_keep_a_shard_from_draining() {
    let mut replica = sleeping();
    let outdated = replica.take_load();
    (0..3).for_each(|shard| replica.happen(&Happening::Drain { shard }));
    assert_eq!(replica.writer.load().shards, 0);
    replica.end_this_load(outdated);
    assert_eq!(replica.writer.load().resident, 0);
    replica.heal();
    check(&mut replica);
}

/// A saga that is out of memory and due: the next load is of it.
fn sleeping() -> Replica {
    let mut replica = Replica::new();
    replica.happen(&Happening::Start { key: None });
    replica.happen(&Happening::CommitEnds(CommitFate::Applied));
    replica.happen(&Happening::CallEnds { which: 0, fate: Fate::Accepted });
    replica.happen(&Happening::CommitEnds(CommitFate::Applied));
    replica.happen(&Happening::TimePasses);
    replica
}

#[test]
fn what_a_read_from_before_the_shard_was_lost_brings_is_ignored() {
    let mut replica = sleeping();
    let outdated = replica.take_load();
    replica.happen(&Happening::LeaseRanOut);
    replica.happen(&Happening::Retake);
    replica.happen(&Happening::TimePasses);
    replica.end_this_load(outdated);
    assert_eq!(replica.writer.load().resident, 0, "the stream may have grown since");
    replica.heal();
    check(&mut replica);
}

#[test]
fn a_commit_that_ends_after_its_shard_was_taken_again_changes_nothing_in_memory() {
    let mut replica = Replica::new();
    replica.happen(&Happening::Start { key: None });
    replica.happen(&Happening::LeaseRanOut);
    replica.happen(&Happening::Retake);
    let before = replica.writer.load();
    replica.happen(&Happening::CommitEnds(CommitFate::AppliedAsOfOld));
    assert_eq!(replica.writer.load(), before);
    assert!(replica.calls_made().is_empty(), "the shard's new epoch has not decided anything");
}

#[test]
fn a_saga_that_cannot_be_read_is_left_and_keeps_no_other_back() {
    let mut replica = sleeping();
    let (read, sagas) = replica.take_load();
    replica.writer.unreadable(read, sagas[0], "an event of a newer version");
    assert!(matches!(replica.writer.next_effect(), Some(Effect::Stuck { .. })));
    replica.happen(&Happening::Start { key: None });
    replica.heal();
    assert_eq!(replica.acknowledged.len(), 2);
    assert_eq!(replica.writer.load().unfinished, 1, "the one that was left");
}

#[test]
fn only_what_was_in_progress_when_a_process_died_is_counted_and_parked_in_the_end() {
    let mut replica = Replica::new();
    replica.happen(&Happening::Start { key: None });
    replica.happen(&Happening::CommitEnds(CommitFate::Applied));
    let count = |replica: &Replica| {
        replica.store.events.iter().filter(|recorded| recorded.event.kind() == "SagaTakenOver").count() as u32
    };
    for takeovers in 1..TAKEOVERS_MAX {
        replica.happen(&Happening::LeaseRanOut);
        replica.happen(&Happening::Retake);
        replica.begin_again();
        assert_eq!(count(&replica), takeovers - 1, "a lost lease is no death");
        replica.happen(&Happening::Crash);
        replica.happen(&Happening::LeaseRanOut);
        replica.happen(&Happening::Retake);
        replica.begin_again();
        assert_eq!(count(&replica), takeovers, "a death is not forgotten with the lease that told of it");
    }
    replica.happen(&Happening::Crash);
    replica.begin_again();
    assert!(replica.store.rows.values().all(|row| row.status == Status::Parked));
    assert!(replica.calls_made().is_empty());
}

/// A chain of three; what a poll waits for is longer than the memory keeps it.
pub(super) fn document() -> serde_json::Value {
    use crate::decide::tests::{saga, step};
    saga(vec![step("a", json!({})), step("b", json!({})), step("c", json!({}))])
}

pub(super) const IDLE_MAX: Millis = Millis(20);
