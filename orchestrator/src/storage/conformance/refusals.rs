//! Commits that must not succeed, and then leave no trace.

use std::sync::Arc;

use skald_core::{
    ids::{Epoch, Shard},
    shard::batch::{Batch, CommitError, Fence, Transition},
};

use super::{
    super::{Store, StoreError},
    dump::dump,
    fixture::{Backend, Database, LEASE},
    sample::{Saga, batch, fences, owner, step_started},
};

/// The batch must fail, with nothing changed. Says how it failed.
async fn fails(store: &dyn Store, batch: &Arc<Batch>) -> CommitError {
    let keys = ["key", "other"];
    let before = dump(store, &keys).await;
    let error = store.commit(batch).await.expect_err("must fail");
    assert_eq!(dump(store, &keys).await, before, "after {error}");
    error
}

async fn refused(store: &dyn Store, batch: &Arc<Batch>) {
    let error = fails(store, batch).await;
    assert!(matches!(error, CommitError::Refused(_)), "{error:?}");
}

/// Invariant 9.
pub async fn a_wrong_epoch_writes_nothing(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut old = Saga::new(0, 1);
    store.commit(&batch(&owned, vec![old.create()])).await.unwrap();
    for epoch in [0, owned[0].epoch.0 - 1, owned[0].epoch.0 + 1, i64::MAX] {
        let mut stale = batch(&owned, vec![old.clone().step(), Saga::new(0, 1).create_keyed("key")]);
        Arc::make_mut(&mut stale).fences[0].epoch = Epoch(epoch);
        assert_eq!(fails(&*store, &stale).await, CommitError::Fenced(vec![Shard(0)]));
    }
    store.commit(&batch(&owned, vec![old.step()])).await.unwrap();
}

/// Invariant 9, across processes.
pub async fn the_former_owner_writes_nothing(database: &Database) {
    let former = database.migrated(1).await;
    let owned = former.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut saga = Saga::new(0, 1);
    former.commit(&batch(&owned, vec![saga.create()])).await.unwrap();
    former.release(&owner("a")).await.unwrap();

    let successor = database.open(1).await;
    let retaken = successor.take_shards(&owner("b"), None, LEASE).await.unwrap();
    assert_eq!((retaken[0].epoch.0, retaken[0].head), (owned[0].epoch.0 + 1, 2));
    let stale = batch(&owned, vec![saga.clone().step()]);
    assert_eq!(fails(&*former, &stale).await, CommitError::Fenced(vec![Shard(0)]));
    successor.commit(&batch(&retaken, vec![saga.step()])).await.unwrap();
    assert_eq!(fails(&*former, &stale).await, CommitError::Fenced(vec![Shard(0)]));
}

pub async fn one_lost_shard_fences_the_whole_batch_and_is_named(database: &Database) {
    let store = database.migrated(3).await;
    let mut owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    // On SQLite there is no shard 1 at all, which comes to the same.
    if database.backend == Backend::Postgres {
        owned[1].epoch = Epoch(99);
    }
    let transitions = vec![Saga::new(0, 3).create(), Saga::new(1, 3).create_keyed("key")];
    assert_eq!(fails(&*store, &batch(&owned, transitions)).await, CommitError::Fenced(vec![Shard(1)]));
}

pub async fn a_version_that_is_not_next_writes_nothing(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let (mut saga, mut other) = (Saga::new(0, 1), Saga::new(0, 1));
    let first = saga.create();
    store.commit(&batch(&owned, vec![first, other.create()])).await.unwrap();
    let before = saga.clone();
    store.commit(&batch(&owned, vec![saga.step()])).await.unwrap();
    let stale = before.clone().fail();
    let mut skipping = saga.clone();
    let _ = skipping.step();
    for wrong in [stale, skipping.step()] {
        refused(&*store, &batch(&owned, vec![other.clone().step(), wrong, Saga::new(0, 1).create_keyed("key")])).await;
    }
    store.commit(&batch(&owned, vec![saga.step(), other.step()])).await.unwrap();
}

pub async fn a_saga_that_does_not_exist_cannot_move_on(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut saga = Saga::new(0, 1);
    let _ = saga.create();
    refused(&*store, &batch(&owned, vec![saga.step(), Saga::new(0, 1).create()])).await;
}

pub async fn a_saga_cannot_be_created_twice(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut saga = Saga::new(0, 1);
    let create = saga.create();
    store.commit(&batch(&owned, vec![create.clone()])).await.unwrap();
    refused(&*store, &batch(&owned, vec![Saga::new(0, 1).create(), create])).await;
}

/// Invariant 10.
pub async fn a_start_key_makes_one_saga(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut first = Saga::new(0, 1);
    store.commit(&batch(&owned, vec![first.create_keyed("key")])).await.unwrap();
    refused(&*store, &batch(&owned, vec![Saga::new(0, 1).create_keyed("key")])).await;
    let twice = vec![Saga::new(0, 1).create_keyed("other"), Saga::new(0, 1).create_keyed("other")];
    refused(&*store, &batch(&owned, twice)).await;
    assert_eq!(store.keyed_saga("checkout", "key").await.unwrap().unwrap().saga, first.id());
    store.commit(&batch(&owned, vec![Saga::new(0, 1).create_keyed("Key")])).await.unwrap();
}

pub async fn the_halves_of_a_refused_batch_find_the_offender(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut sagas: Vec<Saga> = (0..9).map(|_| Saga::new(0, 1)).collect();
    store.commit(&batch(&owned, vec![sagas[5].clone().create()])).await.unwrap();
    let transitions: Vec<Transition> = sagas.iter_mut().map(Saga::create).collect();
    let mut offenders = Vec::new();
    let mut work = vec![transitions];
    while let Some(mut transitions) = work.pop() {
        match store.commit(&batch(&owned, transitions.clone())).await {
            Ok(()) => {}
            Err(CommitError::Refused(_)) if transitions.len() == 1 => offenders.push(transitions[0].row.id),
            Err(CommitError::Refused(_)) => {
                let half = transitions.split_off(transitions.len() / 2);
                work.extend([half, transitions]);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(offenders, [sagas[5].id()]);
    for saga in &sagas {
        assert!(store.row(saga.id()).await.unwrap().is_some());
    }
    assert_eq!(store.shards().await.unwrap()[0].head, 2 * 9, "a refused batch takes no positions");
}

pub async fn a_malformed_batch_is_refused(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut saga = Saga::new(0, 1);
    let (create, step) = (saga.create(), saga.step());
    let with = |change: fn(&mut Transition)| {
        let mut changed = create.clone();
        change(&mut changed);
        batch(&owned, vec![changed])
    };
    let mut fences_twice = batch(&owned, vec![create.clone()]);
    Arc::make_mut(&mut fences_twice).fences.extend(fences(&owned));
    let unfenced = Arc::new(Batch { transitions: vec![create.clone()], ..Batch::default() });
    let mut keyed_late = step.clone();
    keyed_late.start_key = Saga::new(0, 1).create_keyed("key").start_key;
    let malformed = [
        ("the same saga twice", batch(&owned, vec![create.clone(), step])),
        ("no fence", unfenced),
        ("a fence twice", fences_twice),
        ("no events", with(|transition| transition.events.clear())),
        ("a gap", with(|transition| transition.events[1].version = 3)),
        ("version 0", with(|transition| transition.events[0].version = 0)),
        ("a row behind its events", with(|transition| transition.row.version = 1)),
        (
            "a version beyond all bounds",
            with(|transition| {
                transition.events.truncate(1);
                transition.events[0].version = u64::MAX;
                transition.row.version = u64::MAX;
            }),
        ),
        ("an actor with a NUL", with(|transition| transition.events[1].actor = Some("a\0".into()))),
        ("an endless correlation", with(|transition| transition.row.correlation_id = "c".repeat(1001).into())),
        ("a NUL", with(|transition| transition.row.state.push('\0'))),
        ("a start key for a saga that exists", batch(&owned, vec![keyed_late])),
    ];
    for (name, malformed) in malformed {
        let error = fails(&*store, &malformed).await;
        assert!(matches!(error, CommitError::Refused(_)), "{name}: {error:?}");
    }
    let needless = Fence { shard: Shard(9), epoch: Epoch(1) };
    let mut fenced_elsewhere = batch(&owned, vec![create.clone()]);
    Arc::make_mut(&mut fenced_elsewhere).fences.push(needless);
    assert_eq!(fails(&*store, &fenced_elsewhere).await, CommitError::Fenced(vec![Shard(9)]));
    store.commit(&batch(&owned, vec![create])).await.unwrap();
}

pub async fn events_cannot_be_changed_or_deleted(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    store.commit(&batch(&owned, vec![Saga::new(0, 1).create()])).await.unwrap();
    let before = dump(&*store, &[]).await;
    let mut attempts = vec!["UPDATE events SET data = '{}'", "DELETE FROM events"];
    if database.backend == Backend::Postgres {
        attempts.extend([
            "TRUNCATE events",
            "TRUNCATE events_default",
            "DELETE FROM events_default",
            "UPDATE events_default SET kind = 'x'",
        ]);
    }
    for sql in attempts {
        let error = database.execute(sql).await.expect_err(sql).to_string();
        assert!(error.contains("append-only"), "{sql}: {error}");
    }
    assert_eq!(dump(&*store, &[]).await, before);
}

pub async fn retention_may_delete_events(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut saga = Saga::new(0, 1);
    store.commit(&batch(&owned, vec![saga.create()])).await.unwrap();
    let sql = match database.backend {
        Backend::Postgres => "BEGIN; SET LOCAL skald.retention = 'on'; DELETE FROM events; COMMIT",
        Backend::Sqlite => {
            "BEGIN IMMEDIATE; INSERT INTO retention_under_way VALUES (0); DELETE FROM events;
             DELETE FROM retention_under_way; COMMIT"
        }
    };
    database.execute(sql).await.unwrap();
    assert!(store.events(saga.id(), 0, 10).await.unwrap().is_empty());
    assert!(database.execute("UPDATE events SET kind = 'x'").await.is_ok(), "there is nothing left to refuse");
}

/// A fold of what is not understood would be a wrong state.
pub async fn what_this_skald_cannot_read_is_not_guessed_at(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let columns = "position, shard, stream, version, epoch, kind, occurred_at_us, schema_version, data";
    let cases = [
        ("'SagaTeleported', 0, 1, '{}'", "SagaTeleported"),
        ("'StepStarted', 0, 1, '{\"step\":1}'", "StepStarted"),
        ("'StepStarted', 0, 3, '{\"step\":\"a\",\"operation\":\"action\"}'", "form 3 of event kind `StepStarted`"),
    ];
    for (position, (values, named)) in (100..).zip(cases) {
        let mut saga = Saga::new(0, 1);
        store.commit(&batch(&owned, vec![saga.create()])).await.unwrap();
        let id = match database.backend {
            Backend::Sqlite => format!("x'{}'", saga.id().as_uuid().simple()),
            Backend::Postgres => format!("'{}'", saga.id()),
        };
        let sql = format!("INSERT INTO events ({columns}) VALUES ({position}, 0, {id}, 3, 1, {values})");
        database.execute(&sql).await.unwrap();
        for error in [
            store.events(saga.id(), 0, 10).await.map(drop).unwrap_err(),
            store.streams(&[saga.id()]).await.map(drop).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(matches!(error, StoreError::Unreadable(_)), "{text}");
            assert!(text.contains(&format!("{}, event 3", saga.id())) && text.contains(named), "{text}");
        }
        assert_eq!(store.events(saga.id(), 0, 2).await.unwrap().len(), 2);
        // The stream has grown past its row: the engine must not be able to write over it.
        let more = saga.transition(vec![step_started("b")], |_| {});
        refused_unread(&*store, &batch(&owned, vec![more])).await;
    }
}

/// As `refused`, for a store whose events cannot be dumped.
async fn refused_unread(store: &dyn Store, batch: &Arc<Batch>) {
    let error = store.commit(batch).await.expect_err("must fail");
    assert!(matches!(error, CommitError::Refused(_)), "{error:?}");
}
