//! Commits that succeed: whole, gapless, byte by byte.

use std::{collections::HashMap, sync::Arc, time::Duration};

use skald_core::{event::Event, ids::Shard, shard::batch::Transition};

use super::{
    fixture::{Backend, Database, LEASE},
    sample::{Saga, batch, owner, step_started},
};

pub async fn a_saga_is_created_moved_on_and_ended(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut saga = Saga::new(0, 1);
    let transitions = [(saga.create(), 2), (saga.step(), 4), (saga.fail(), 5), (saga.park(), 6), (saga.complete(), 8)];
    for (transition, versions) in transitions {
        let row = transition.row.clone();
        store.commit(&batch(&owned, vec![transition])).await.unwrap();
        assert_eq!(store.row(saga.id()).await.unwrap(), Some(row));
        let events = store.events(saga.id(), 0, 100).await.unwrap();
        assert_eq!(events.iter().map(|event| event.version).collect::<Vec<_>>(), (1..=versions).collect::<Vec<_>>());
        assert_eq!(
            events.iter().map(|event| event.position).collect::<Vec<_>>(),
            (1..=versions as i64).collect::<Vec<_>>()
        );
    }
}

/// Invariant 7.
pub async fn positions_are_gapless_across_batches(database: &Database) {
    let shards: u16 = if database.backend == Backend::Postgres { 3 } else { 1 };
    let store = database.migrated(shards).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut sagas: Vec<Saga> = (0..12).map(|number| Saga::new(number % shards, shards)).collect();
    // Transitions of one batch in no order of shards, and shards of unequal weight.
    let create: Vec<Transition> = sagas.iter_mut().map(Saga::create).collect();
    let step: Vec<Transition> = sagas.iter_mut().rev().step_by(2).map(Saga::step).collect();
    let fail: Vec<Transition> = sagas.iter_mut().skip(4).map(Saga::fail).collect();
    let mut expected = HashMap::<Shard, Vec<_>>::new();
    for transitions in [create, step, fail] {
        for transition in &transitions {
            let events = transition.events.iter().map(|event| (transition.row.id, event.version));
            expected.entry(transition.shard).or_default().extend(events);
        }
        store.commit(&batch(&owned, transitions)).await.unwrap();
    }
    let mut found = HashMap::<Shard, Vec<_>>::new();
    let ids: Vec<_> = sagas.iter().map(Saga::id).collect();
    for event in store.streams(&ids).await.unwrap().into_iter().flatten() {
        assert_eq!(event.shard, event.stream.shard(shards));
        assert_eq!(event.epoch, owned[usize::from(event.shard.0)].epoch);
        found.entry(event.shard).or_default().push((event.position, (event.stream, event.version)));
    }
    for (shard, expected) in expected {
        let found = found.get_mut(&shard).unwrap();
        found.sort();
        let expected: Vec<_> = (1..).zip(expected).collect();
        assert_eq!(*found, expected, "shard {shard}: its events in commit order");
        let head = store.shards().await.unwrap()[usize::from(shard.0)].head;
        assert_eq!(head, expected.len() as i64);
    }
}

pub async fn an_empty_batch_is_fine(database: &Database) {
    let store = database.migrated(1).await;
    store.commit(&batch(&[], vec![])).await.unwrap();
}

pub async fn payloads_come_back_byte_by_byte(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let large = format!("\"{}\"", "0123456789abcdef".repeat(16 * 1024));
    let inputs = [
        r#"{}"#,
        r#"{ "spaced" : [ 1 , 2 ] }"#,
        r#"{"n":123456789012345678901234567890.123456789e-400}"#,
        r#"{"dup":1,"dup":2}"#,
        r#"{"text":"\u00e9\ud83d\ude00 é😀 \"quoted\" \\ \/ \n\u0001 ' $1 ? :a"}"#,
        &large,
    ];
    for input in inputs {
        let mut saga = Saga::new(0, 1);
        let mut create = saga.create_with(input);
        create.events[1].type_name = Arc::from("StockVerificationBegan");
        create.events[1].actor = Some(Arc::from("operator Ørsted"));
        store.commit(&batch(&owned, vec![create])).await.unwrap();
        let events = store.events(saga.id(), 0, 100).await.unwrap();
        let Event::SagaStarted(started) = &events[0].event else { panic!("{:?}", events[0]) };
        assert_eq!(started.input.text().get(), input);
        assert_eq!((&*events[0].type_name, events[0].actor.as_deref()), ("SagaStarted", None));
        let named = (&*events[1].type_name, events[1].actor.as_deref());
        assert_eq!(named, ("StockVerificationBegan", Some("operator Ørsted")));
    }
}

pub async fn a_commit_whose_caller_went_away_leaves_the_store_whole(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut saga = Saga::new(0, 1);
    store.commit(&batch(&owned, vec![saga.create()])).await.unwrap();
    for pause_us in [0, 1, 50, 100, 200, 500, 1000, 2000] {
        let before = saga.clone();
        let step = batch(&owned, vec![saga.step()]);
        let finished = tokio::time::timeout(Duration::from_micros(pause_us), store.commit(&step)).await.is_ok();
        // Whatever was handed over ends before what is asked for next.
        let again = store.commit(&batch(&owned, vec![before.clone().fail()])).await;
        let version = store.row(saga.id()).await.unwrap().unwrap().version;
        if again.is_ok() {
            assert!(!finished, "two transitions continued version {}", before.row.version);
            assert_eq!(version, before.row.version + 1);
            saga = before;
            let _ = saga.fail();
        } else {
            assert_eq!(version, saga.row.version);
        }
    }
    let events = store.events(saga.id(), 0, 1000).await.unwrap();
    assert!(events.iter().map(|event| event.position).eq(1..=events.len() as i64));
}

pub async fn a_large_batch_is_written_whole(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut old: Vec<Saga> = (0..300).map(|_| Saga::new(0, 1)).collect();
    store.commit(&batch(&owned, old.iter_mut().map(Saga::create).collect())).await.unwrap();
    let mut new: Vec<Saga> = (0..211).map(|_| Saga::new(0, 1)).collect();
    let mut transitions: Vec<Transition> = old.iter_mut().map(Saga::step).collect();
    for (number, saga) in new.iter_mut().enumerate() {
        let create = if number % 3 == 0 { saga.create_keyed(&format!("key-{number}")) } else { saga.create() };
        transitions.insert(number * 2, create);
    }
    let order: Vec<_> =
        transitions.iter().flat_map(|of| of.events.iter().map(|event| (of.row.id, event.version))).collect();
    store.commit(&batch(&owned, transitions)).await.unwrap();
    let ids: Vec<_> = old.iter().chain(&new).map(Saga::id).collect();
    let mut events: Vec<_> = store.streams(&ids).await.unwrap().into_iter().flatten().collect();
    events.sort_by_key(|event| event.position);
    assert!(events.iter().map(|event| event.position).eq(1..=600 + order.len() as i64));
    assert!(events[600..].iter().map(|event| (event.stream, event.version)).eq(order));
    for saga in old.iter().chain(&new) {
        assert_eq!(store.row(saga.id()).await.unwrap().as_ref(), Some(&saga.row));
    }
    assert_eq!(store.keyed_saga("checkout", "key-3").await.unwrap().unwrap().saga, new[3].id());
    let mut last = old.swap_remove(0);
    let note = last.transition(vec![step_started("reserve_stock")], |_| {});
    store.commit(&batch(&owned, vec![note])).await.unwrap();
}
