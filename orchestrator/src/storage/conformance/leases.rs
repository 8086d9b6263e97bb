//! Who may write: leases by the database's clock, epochs that only grow.

use std::{collections::HashSet, time::Duration};

use skald_core::{
    ids::{Epoch, Shard},
    time::Millis,
};

use super::{
    super::{OwnedShard, Owner, Store},
    fixture::{Backend, Database, LEASE},
    sample::{fences, owner},
};

/// Short enough to wait for its end.
const SHORT: Millis = Millis(30);

fn shard_count(database: &Database) -> u16 {
    if database.backend == Backend::Postgres { 4 } else { 1 }
}

/// Waits until there is something to take.
async fn take_when_free(store: &dyn Store, owner: &Owner) -> Vec<OwnedShard> {
    tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let taken = store.take_shards(owner, None, LEASE).await.unwrap();
            if !taken.is_empty() {
                return taken;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the lease ends")
}

pub async fn a_free_shard_is_taken(database: &Database) {
    let shards = shard_count(database);
    let store = database.migrated(shards).await;
    let before = store.shards().await.unwrap();
    assert_eq!(before.iter().map(|row| row.shard.0).collect::<Vec<_>>(), (0..shards).collect::<Vec<_>>());
    assert!(before.iter().all(|row| row.owner.is_none() && row.head == 0));
    let taken = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let expected = (0..shards).map(|shard| OwnedShard { shard: Shard(shard), epoch: Epoch(1), head: 0, died: false });
    assert_eq!(taken, expected.collect::<Vec<_>>());
    let now = store.now().await.unwrap();
    for row in store.shards().await.unwrap() {
        assert_eq!((row.owner.as_deref(), row.owner_url.as_deref()), (Some("a"), Some("http://a:8080")));
        assert_eq!(row.epoch, Epoch(1));
        let left = now.until(row.lease_until);
        assert!(left <= LEASE && left.0 > LEASE.0 - 10_000, "{left}");
    }
}

pub async fn a_lease_protects_from_others_but_not_from_its_owner(database: &Database) {
    let store = database.migrated(shard_count(database)).await;
    let first = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    assert_eq!(store.take_shards(&owner("b"), None, LEASE).await.unwrap(), []);
    let again = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    assert_eq!(again.len(), first.len());
    assert!(again.iter().all(|owned| owned.epoch == Epoch(2)));
}

pub async fn an_ended_lease_protects_no_longer(database: &Database) {
    let store = database.migrated(shard_count(database)).await;
    store.take_shards(&owner("a"), None, SHORT).await.unwrap();
    let taken = take_when_free(&*store, &owner("b")).await;
    assert!(taken.iter().all(|owned| owned.epoch == Epoch(2)));
}

pub async fn a_renewed_lease_lasts_longer(database: &Database) {
    let store = database.migrated(shard_count(database)).await;
    let owned = store.take_shards(&owner("a"), None, SHORT).await.unwrap();
    let all: Vec<Shard> = owned.iter().map(|owned| owned.shard).collect();
    // Even past its end, while nobody else took it.
    let ended = store.shards().await.unwrap()[0].lease_until;
    while store.now().await.unwrap() <= ended {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.renew(&owner("a"), &fences(&owned), LEASE).await.unwrap(), all);
    assert_eq!(store.take_shards(&owner("b"), None, LEASE).await.unwrap(), []);
    assert!(store.shards().await.unwrap().iter().all(|row| row.epoch == Epoch(1)), "renewing is not taking");
}

pub async fn a_lost_shard_cannot_be_renewed(database: &Database) {
    let store = database.migrated(shard_count(database)).await;
    let owned = store.take_shards(&owner("a"), None, SHORT).await.unwrap();
    let taken = take_when_free(&*store, &owner("b")).await;
    let lost: HashSet<Shard> = taken.iter().map(|owned| owned.shard).collect();
    let kept = store.renew(&owner("a"), &fences(&owned), LEASE).await.unwrap();
    assert!(kept.iter().all(|shard| !lost.contains(shard)));
    assert_eq!(store.renew(&owner("b"), &fences(&taken), LEASE).await.unwrap().len(), taken.len());
    assert_eq!(store.renew(&owner("a"), &fences(&taken), LEASE).await.unwrap(), [], "the epoch alone is not enough");
    assert_eq!(store.renew(&owner("a"), &[], LEASE).await.unwrap(), []);
}

pub async fn a_released_shard_is_free_at_once(database: &Database) {
    let store = database.migrated(shard_count(database)).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    store.release(&owner("b")).await.unwrap();
    assert_eq!(store.take_shards(&owner("b"), None, LEASE).await.unwrap(), [], "that was not b's to release");
    store.release(&owner("a")).await.unwrap();
    assert_eq!(store.renew(&owner("a"), &fences(&owned), LEASE).await.unwrap(), []);
    let taken = store.take_shards(&owner("b"), None, LEASE).await.unwrap();
    assert_eq!(taken.len(), owned.len());
    assert!(taken.iter().all(|owned| owned.epoch == Epoch(2)));
}

pub async fn what_the_dead_owned_is_free_at_once(database: &Database) {
    let store = database.migrated(shard_count(database)).await;
    store.heartbeat(&owner("a"), LEASE).await.unwrap();
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    store.bury("b").await.unwrap();
    assert_eq!(store.take_shards(&owner("b"), None, LEASE).await.unwrap(), [], "it was not b that owned them");
    store.bury("a").await.unwrap();
    assert!(store.replicas().await.unwrap().is_empty());
    let taken = store.take_shards(&owner("b"), None, LEASE).await.unwrap();
    assert_eq!(taken.len(), owned.len());
    assert!(taken.iter().all(|owned| owned.epoch == Epoch(2)));
}

pub async fn only_what_was_asked_for_is_taken(database: &Database) {
    let store = database.migrated(shard_count(database)).await;
    assert_eq!(store.take_shards(&owner("a"), Some(&[]), LEASE).await.unwrap(), []);
    assert_eq!(store.take_shards(&owner("a"), Some(&[Shard(99)]), LEASE).await.unwrap(), []);
    let taken = store.take_shards(&owner("a"), Some(&[Shard(0)]), LEASE).await.unwrap();
    assert_eq!(taken, [OwnedShard { shard: Shard(0), epoch: Epoch(1), head: 0, died: false }]);
    assert_eq!(store.take_shards(&owner("b"), Some(&[Shard(0)]), LEASE).await.unwrap(), []);
}

pub async fn each_shard_goes_to_one_of_two_contenders(database: &Database) {
    let shards = shard_count(database);
    let one = database.migrated(shards).await;
    let two = database.open(shards).await;
    for round in 1..=20 {
        let (a, b) = (owner("a"), owner("b"));
        let (of_one, of_two) = tokio::join!(one.take_shards(&a, None, LEASE), two.take_shards(&b, None, LEASE));
        let (of_one, of_two) = (of_one.unwrap(), of_two.unwrap());
        let mut all: Vec<Shard> = of_one.iter().chain(&of_two).map(|owned| owned.shard).collect();
        all.sort();
        assert_eq!(all, (0..shards).map(Shard).collect::<Vec<_>>(), "round {round}");
        assert!(of_one.iter().chain(&of_two).all(|owned| owned.epoch == Epoch(round)));
        one.release(&a).await.unwrap();
        two.release(&b).await.unwrap();
    }
}
