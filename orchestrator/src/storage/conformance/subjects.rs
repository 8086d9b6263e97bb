//! Keys of personal data: one that lives per subject, destroyed for good, and never under a saga that needs it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use skald_core::{
    shard::batch::{CommitError, Transition},
    state::Status,
};

use super::{
    super::{
        Store,
        subjects::{Erased, SubjectKey},
    },
    fixture::{Backend, Database, LEASE},
    sample::{Saga, batch, owner},
};

fn key(id: &str) -> SubjectKey {
    let mut bytes = [0; 32];
    bytes[..id.len()].copy_from_slice(id.as_bytes());
    SubjectKey { id: id.into(), bytes }
}

fn sealed(transition: Transition, key: &str) -> Transition {
    Transition { sealed_under: Some(key.into()), ..transition }
}

async fn erase(store: &dyn Store, subject: &str) -> Erased {
    store.erase(subject, "ann", "asked").await.unwrap()
}

pub async fn a_subject_has_one_key_that_lives(database: &Database) {
    let (store, other) = (database.migrated(1).await, database.open(1).await);
    assert_eq!(store.live_key("s", &key("k1")).await.unwrap(), key("k1"));
    assert_eq!(other.live_key("s", &key("k2")).await.unwrap(), key("k1"));
    assert_eq!(other.live_key("t", &key("k3")).await.unwrap(), key("k3"));
    let named = other.named_key("k1").await.unwrap().unwrap();
    assert_eq!((named.subject.as_str(), named.bytes), ("s", Some(key("k1").bytes)));
    assert_eq!(other.named_key("k2").await.unwrap(), None);
    let asked = (0..20).map(|at| {
        let store = if at % 2 == 0 { Arc::clone(&store) } else { Arc::clone(&other) };
        tokio::spawn(async move { store.live_key("u", &key(&format!("u{at}"))).await.unwrap() })
    });
    let keys = futures_util::future::join_all(asked).await;
    let keys: std::collections::BTreeSet<String> = keys.into_iter().map(|key| key.unwrap().id.to_string()).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
}

pub async fn an_erasure_destroys_the_key_and_says_so(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    assert_eq!(erase(&*store, "s").await, Erased::Unknown);
    store.live_key("s", &key("k1")).await.unwrap();
    store.live_key("t", &key("k2")).await.unwrap();
    let (mut first, mut second) = (Saga::new(0, 1), Saga::new(0, 1));
    let create = vec![sealed(first.create(), "k1"), sealed(second.create_keyed("key"), "k1"), Saga::new(0, 1).create()];
    store.commit(&batch(&owned, create)).await.unwrap();
    let mut ids = [first.id(), second.id()];
    ids.sort_unstable();
    assert_eq!(erase(&*store, "s").await, Erased::InUse(ids.map(|id| (id, Status::Running)).to_vec()));
    store.commit(&batch(&owned, vec![first.end(Status::Compensated), second.park()])).await.unwrap();
    assert_eq!(erase(&*store, "s").await, Erased::InUse(vec![(second.id(), Status::Parked)]));
    assert!(store.named_key("k1").await.unwrap().unwrap().bytes.is_some());
    store.commit(&batch(&owned, vec![second.end(Status::Abandoned)])).await.unwrap();

    let Erased::Done(row) = erase(&*store, "s").await else { panic!("nothing stands against it") };
    let erasure = row.erasure.clone().unwrap();
    assert_eq!((row.key.as_str(), row.sagas), ("k1", 2));
    assert_eq!((erasure.actor.as_str(), erasure.reason.as_str()), ("ann", "asked"));
    assert!(erasure.at >= row.created_at);
    assert_eq!(store.named_key("k1").await.unwrap().unwrap().bytes, None);
    let again = store.erase("s", "bob", "once more").await.unwrap();
    assert_eq!(again, Erased::Done(row.clone()), "it is erased once");
    assert!(store.named_key("k2").await.unwrap().unwrap().bytes.is_some(), "another's key lives");

    assert_eq!(store.live_key("s", &key("k3")).await.unwrap(), key("k3"));
    let rows = store.subject("s").await.unwrap();
    assert_eq!(rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), ["k1", "k3"]);
    assert_eq!((rows[0].clone(), rows[1].erasure.clone()), (row, None));
    assert!(matches!(erase(&*store, "s").await, Erased::Done(row) if row.key == "k3"));
}

pub async fn no_saga_begins_under_a_key_that_was_destroyed(database: &Database) {
    let store = database.migrated(1).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    store.live_key("s", &key("k1")).await.unwrap();
    let create = vec![sealed(Saga::new(0, 1).create(), "k1"), sealed(Saga::new(0, 1).create(), "none")];
    let refused = store.commit(&batch(&owned, create)).await.unwrap_err();
    assert!(matches!(refused, CommitError::Refused(_)), "{refused:?}");
    assert!(matches!(erase(&*store, "s").await, Erased::Done(_)), "nothing of the refused batch was written");
    store.live_key("s", &key("k2")).await.unwrap();
    for key in ["k1", "k2"] {
        let create = vec![Saga::new(0, 1).create(), sealed(Saga::new(0, 1).create_keyed(key), key)];
        let committed = store.commit(&batch(&owned, create)).await;
        assert_eq!(committed.is_ok(), key == "k2", "{committed:?}");
    }
    let mut late = Saga::new(0, 1);
    store.commit(&batch(&owned, vec![late.create()])).await.unwrap();
    let refused = store.commit(&batch(&owned, vec![sealed(late.step(), "k2")])).await.unwrap_err();
    assert!(matches!(refused, CommitError::Refused(_)), "only a saga's first events are sealed: {refused:?}");
}

/// Of a start and an erasure at once, one comes first: then the erasure finds the saga, or the start finds no key.
pub async fn a_start_and_an_erasure_at_once_know_of_each_other(database: &Database) {
    let (store, other) = (database.migrated(1).await, database.open(1).await);
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let eraser = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            let (mut erased, mut refused) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                match erase(&*other, "s").await {
                    Erased::Done(_) => erased += 1,
                    Erased::InUse(_) => refused += 1,
                    Erased::Unknown => tokio::task::yield_now().await,
                }
            }
            (erased, refused)
        }
    });
    let (mut begun, mut too_late) = (0, 0);
    for number in 0..150 {
        let key = store.live_key("s", &key(&format!("k{number}"))).await.unwrap();
        let mut saga = Saga::new(0, 1);
        match store.commit(&batch(&owned, vec![sealed(saga.create(), &key.id)])).await {
            Ok(()) => {
                begun += 1;
                tokio::time::sleep(std::time::Duration::from_millis(number % 3)).await;
                let lives = store.named_key(&key.id).await.unwrap().unwrap().bytes.is_some();
                assert!(lives, "saga {} is unfinished", saga.id());
                store.commit(&batch(&owned, vec![saga.end(Status::Completed)])).await.unwrap();
            }
            Err(CommitError::Refused(_)) => too_late += 1,
            Err(error) => panic!("{error}"),
        }
    }
    done.store(true, Ordering::Relaxed);
    let (erased, refused) = eraser.await.unwrap();
    assert!(begun > 0 && erased > 0, "begun {begun}, too late {too_late}, erased {erased}, refused {refused}");
}

pub async fn a_destroyed_key_is_in_no_file_any_more(database: &Database) {
    if database.backend == Backend::Postgres {
        return;
    }
    let store = database.migrated(1).await;
    let secret = SubjectKey { id: "k1".into(), bytes: *b"these-32-bytes-open-all-of-janes" };
    for number in 0..50 {
        store.live_key(&format!("other{number}"), &key(&format!("o{number}"))).await.unwrap();
    }
    store.live_key("s", &secret).await.unwrap();
    let path = database.url.strip_prefix("sqlite:").unwrap();
    let holds = || {
        let files = [path.to_owned(), format!("{path}-wal")].map(|file| std::fs::read(file).unwrap_or_default());
        files.iter().any(|bytes| bytes.windows(32).any(|window| window == secret.bytes))
    };
    assert!(holds());
    assert!(matches!(erase(&*store, "s").await, Erased::Done(_)));
    assert!(!holds());
}
