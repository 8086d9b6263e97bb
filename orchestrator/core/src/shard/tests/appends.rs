//! Appends to streams that are no sagas: what is looked up, written and answered when.

mod asks;

use alloc::{string::ToString, sync::Arc, vec};

pub use self::asks::{AppendAsk, Asking, ask, check, foreign};
use self::asks::{known, name, refused, written};
use super::{
    CommitFate, Happening,
    replica::Replica,
    store::{SHARDS, UNWRITABLE},
};
use crate::{
    ids::{SagaId, Shard},
    shard::{
        appends::{ExpectedVersion, shard_of_stream},
        batch::{StreamHead, StreamLook},
        writer::Refusal,
    },
};

const APPLIED: Happening = Happening::CommitEnds(CommitFate::Applied);
const LOOKED_UP: Happening = Happening::LookUpEnds { failed: false };

#[test]
fn an_append_is_looked_up_then_written_and_only_then_answered() {
    let mut replica = Replica::new();
    replica.exactly(1, 0, &[1, 2]);
    assert!(replica.commit.is_none());
    replica.happen(&LOOKED_UP);
    assert_eq!(replica.answers(), [None]);
    replica.happen(&APPLIED);
    assert_eq!(replica.answers(), [written(2)]);
    let stream = &replica.store.named[&name(1)];
    assert_eq!((stream.shard, stream.id.shard(SHARDS)), (shard_of_stream("cart-1", SHARDS), stream.shard));
    check(&replica);
}

#[test]
fn appends_to_one_stream_are_written_in_their_order() {
    let mut replica = Replica::new();
    replica.any(1, &[1]);
    replica.exactly(1, 1, &[2]);
    replica.any(1, &[3, 4]);
    replica.exactly(1, 0, &[5]);
    replica.happen(&LOOKED_UP);
    assert_eq!(replica.commit.as_ref().unwrap().appends[0].events.len(), 1, "who came first");
    replica.happen(&APPLIED);
    replica.happen(&LOOKED_UP);
    let together = &replica.commit.as_ref().unwrap().appends;
    assert_eq!((together.len(), together[0].events.len()), (1, 3), "what came meanwhile, as one append");
    assert_eq!(replica.answers()[3], None, "its answer depends on what is not durable");
    replica.heal();
    let wrong = Refusal::WrongVersion { expected: 0, actual: 4 };
    assert_eq!(replica.answers(), [written(1), written(2), written(4), refused(wrong)]);
    assert_eq!(replica.ids(1), [1, 2, 3, 4]);
    check(&replica);
}

#[test]
fn a_repetition_is_answered_like_the_first_whatever_version_it_expects() {
    let mut replica = Replica::new();
    replica.exactly(1, 0, &[1, 2]);
    replica.exactly(1, 0, &[1, 2]);
    replica.heal();
    replica.any(1, &[3]);
    replica.exactly(1, 0, &[1, 2]);
    replica.exactly(1, 7, &[2, 3]);
    replica.heal();
    assert_eq!(replica.answers(), [written(2), known(2), written(3), known(2), known(3)]);
    assert_eq!(replica.ids(1), [1, 2, 3]);
    assert_eq!(replica.commit_sizes(), [1, 1], "repetitions write nothing");
}

#[test]
fn ids_that_are_partly_known_and_versions_that_are_wrong_are_refused() {
    let mut replica = Replica::new();
    replica.any(1, &[1, 2]);
    replica.heal();
    replica.any(1, &[2, 3]);
    replica.any(1, &[2, 1]);
    replica.any(1, &[4, 4]);
    replica.exactly(1, 0, &[5]);
    replica.exactly(2, 1, &[5]);
    replica.heal();
    let taken = |id: &str| refused(Refusal::EventIdTaken { event_id: Arc::from(id) });
    let wrong = |expected, actual| refused(Refusal::WrongVersion { expected, actual });
    assert_eq!(replica.answers()[1..], [taken("2"), taken("2"), taken("4"), wrong(0, 2), wrong(1, 0)]);
    assert_eq!((replica.ids(1), replica.ids(2)), (vec![1, 2], vec![]));
}

#[test]
fn of_two_that_create_a_stream_at_once_one_is_told_that_it_exists() {
    let mut replica = Replica::new();
    replica.any(0, &[9]);
    replica.exactly(1, 0, &[1]);
    replica.exactly(1, 0, &[2]);
    replica.happen(&LOOKED_UP);
    replica.happen(&LOOKED_UP);
    assert_eq!(replica.answers()[1..], [None, None], "both were looked up together");
    replica.heal();
    assert_eq!(replica.answers()[1..], [written(1), refused(Refusal::WrongVersion { expected: 0, actual: 1 })]);
}

#[test]
fn streams_are_looked_up_together_one_read_at_a_time() {
    let mut replica = Replica::new();
    for stream in 0..4 {
        replica.any(stream, &[1]);
    }
    assert_eq!(replica.look_ups.len(), 1);
    replica.happen(&LOOKED_UP);
    assert_eq!(replica.look_ups[0].1.len(), 3, "those that came meanwhile");
    replica.happen(&LOOKED_UP);
    replica.happen(&APPLIED);
    assert_eq!(replica.commit_sizes(), [1, 3]);
    replica.heal();
    check(&replica);
}

#[test]
fn an_append_in_doubt_can_be_repeated() {
    for (fate, again) in [(CommitFate::AppliedInDoubt, known(1)), (CommitFate::NotAppliedInDoubt, written(1))] {
        let mut replica = Replica::new();
        replica.any(1, &[1]);
        replica.happen(&LOOKED_UP);
        replica.any(1, &[2]);
        replica.happen(&Happening::CommitEnds(fate));
        assert_eq!(replica.answers(), [refused(Refusal::InDoubt), refused(Refusal::NotOwner)], "{fate:?}");
        replica.happen(&Happening::Retake);
        replica.any(1, &[1]);
        replica.heal();
        assert_eq!(replica.answers()[2], again, "{fate:?}");
        check(&replica);
    }
}

#[test]
fn a_fenced_append_is_refused_and_another_owners_events_are_seen() {
    let mut replica = Replica::new();
    replica.exactly(1, 0, &[1]);
    replica.heal();
    replica.exactly(1, 1, &[2]);
    replica.happen(&LOOKED_UP);
    let shard = u8::try_from(shard_of_stream("cart-1", SHARDS).0).unwrap();
    replica.happen(&Happening::Usurped { shard });
    replica.happen(&APPLIED);
    assert_eq!(replica.answers()[1], refused(Refusal::NotOwner));
    replica.happen(&Happening::Retake);
    replica.exactly(1, 1, &[2]);
    replica.exactly(1, 2, &[2]);
    replica.heal();
    let wrong = Refusal::WrongVersion { expected: 1, actual: 2 };
    assert_eq!(replica.answers()[2..], [refused(wrong), written(3)]);
    check(&replica);
}

#[test]
fn an_unwritable_append_fails_alone_among_transitions_and_other_appends() {
    let mut replica = Replica::new();
    replica.happen(&Happening::Start { key: None });
    let unwritable = AppendAsk { stream: 1, expected: ExpectedVersion::Any, ids: vec![7, 8], type_name: UNWRITABLE };
    replica.any(1, &[1]);
    replica.any(2, &[1]);
    replica.happen(&LOOKED_UP);
    replica.happen(&LOOKED_UP);
    replica.happen(&APPLIED);
    for _ in 0..3 {
        replica.happen(&Happening::Start { key: None });
    }
    replica.any(1, &[2]);
    replica.happen(&Happening::Append(unwritable));
    replica.exactly(1, 2, &[3]);
    replica.any(2, &[2]);
    replica.heal();
    let refusal = Refusal::Unwritable("it cannot be written".to_string());
    assert_eq!(replica.answers()[2..], [written(2), refused(refusal), written(3), written(2)]);
    assert_eq!(replica.acknowledged.len(), 4);
    super::check(&mut replica);
}

#[test]
fn a_draining_shard_commits_the_append_that_it_has_and_refuses_those_that_wait() {
    let mut replica = Replica::new();
    replica.any(1, &[1]);
    replica.happen(&LOOKED_UP);
    replica.any(1, &[2]);
    let shards = |replica: &mut Replica| (0..3).for_each(|shard| replica.happen(&Happening::Drain { shard }));
    shards(&mut replica);
    assert_eq!(replica.answers(), [None, refused(Refusal::NotOwner)]);
    assert_eq!(replica.writer.load().shards, 1, "it waits for the commit");
    replica.any(1, &[3]);
    replica.happen(&APPLIED);
    assert_eq!(replica.answers()[0], written(1));
    assert_eq!(replica.answers()[2], refused(Refusal::NotOwner), "nothing new is taken on");
    assert_eq!(replica.writer.load().shards, 0);
    replica.heal();
    check(&replica);
}

#[test]
fn what_a_look_up_from_before_the_shard_was_lost_brings_is_ignored() {
    let mut replica = Replica::new();
    replica.any(1, &[1]);
    let (read, _) = replica.look_ups.pop().unwrap();
    replica.happen(&Happening::LeaseRanOut);
    assert_eq!(replica.answers(), [refused(Refusal::NotOwner)]);
    replica.happen(&Happening::Retake);
    replica.any(1, &[2]);
    let head = StreamHead { id: SagaId::new(replica.now, [9; 10], Shard(0), 1), version: 5, updated_at: replica.now };
    let outdated = StreamLook { name: name(1), head: Some(head), known: vec![(Arc::from("2"), 5)] };
    replica.writer.looked_up(read, vec![outdated], replica.now);
    replica.happen(&Happening::TimePasses);
    replica.heal();
    assert_eq!(replica.answers()[1], written(1));
}

#[test]
fn a_look_up_that_fails_refuses_who_was_looked_up_and_nobody_else() {
    let mut replica = Replica::new();
    replica.any(1, &[1]);
    replica.any(1, &[2]);
    replica.any(2, &[1]);
    replica.happen(&Happening::LookUpEnds { failed: true });
    assert_eq!(replica.answers(), [refused(Refusal::Overloaded), None, None]);
    let (read, asks) = replica.look_ups.pop().unwrap();
    assert_eq!(asks.len(), 2);
    let only_one = vec![replica.store.look_up(asks.iter().find(|ask| *ask.name == *"cart-2").unwrap())];
    replica.writer.looked_up(read, only_one, replica.now);
    replica.happen(&Happening::TimePasses);
    replica.heal();
    assert_eq!(replica.answers()[1..], [refused(Refusal::Overloaded), written(1)], "what is left out failed");
}

#[test]
fn no_append_is_taken_beyond_what_fits_or_while_commits_do_not_get_through() {
    let mut replica = Replica::within(1000, 2);
    for id in 1..=3 {
        replica.any(1, &[id]);
    }
    assert_eq!(replica.answers(), [None, None, refused(Refusal::Overloaded)]);
    replica.heal();
    replica.any(1, &[4]);
    replica.happen(&LOOKED_UP);
    replica.happen(&Happening::CommitEnds(CommitFate::NotApplied));
    replica.any(1, &[5]);
    assert_eq!(replica.answers()[3..], [None, refused(Refusal::Overloaded)]);
    replica.heal();
    assert_eq!(replica.answers()[3], written(3), "the same batch again");
    check(&replica);
}

#[test]
fn what_is_queued_goes_on_when_what_did_not_get_through_is_lost() {
    let mut replica = Replica::new();
    replica.any(1, &[1]);
    replica.happen(&LOOKED_UP);
    let lost = shard_of_stream("cart-1", SHARDS);
    let other = (2..).find(|stream| shard_of_stream(&name(*stream), SHARDS) != lost).unwrap();
    replica.any(other, &[1]);
    replica.happen(&LOOKED_UP);
    replica.happen(&Happening::CommitEnds(CommitFate::NotApplied));
    replica.writer.lose(&[lost]);
    assert!(replica.writer.next_wake().is_some(), "nothing else would begin its commit");
    replica.happen(&Happening::TimePasses);
    replica.happen(&APPLIED);
    assert_eq!(replica.answers(), [refused(Refusal::NotOwner), written(1)]);
}

#[test]
fn time_in_a_stream_never_runs_backward() {
    let mut replica = Replica::new();
    replica.any(1, &[1]);
    replica.heal();
    let ahead = replica.now.plus(crate::time::Millis(5_000));
    let stream = replica.store.named.get_mut(&name(1)).unwrap();
    stream.events[0].event.occurred_at = ahead;
    replica.any(1, &[2]);
    replica.heal();
    assert_eq!(replica.store.named[&name(1)].events[1].event.occurred_at, ahead);
}
