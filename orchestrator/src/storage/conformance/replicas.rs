//! Several replicas: who lives, what each may take, how shards change hands.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use skald_core::{
    ids::{Epoch, Shard},
    shard::{
        batch::Fence,
        leases::{LeaseEffect, LeaseLimits, LeaseRequest, Leases, Presence, fair_share},
    },
    time::{Millis, Timestamp},
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

async fn live(store: &dyn Store) -> Vec<String> {
    store.lease_view(&owner("nobody")).await.unwrap().replicas
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

pub async fn who_sends_heartbeats_is_live_and_the_oldest_comes_first(database: &Database) {
    let store = database.migrated(shard_count(database)).await;
    assert_eq!(live(&*store).await, [""; 0]);
    for id in ["z", "b", "a", "z"] {
        store.heartbeat(&owner(id), LEASE).await.unwrap();
        // Times are microseconds: two heartbeats within one would be told apart by the ids.
        let begun = store.now().await.unwrap();
        until("time goes on", async || store.now().await.unwrap() > begun).await;
    }
    assert_eq!(live(&*store).await, ["z", "b", "a"]);
    let rows = store.replicas().await.unwrap();
    assert_eq!(rows.iter().map(|row| &*row.id).collect::<Vec<_>>(), ["z", "b", "a"]);
    for row in &rows {
        assert_eq!(row.url, Some(format!("http://{}:8080", row.id)));
        assert_eq!(row.version, env!("CARGO_PKG_VERSION"));
        assert!(row.alive);
        let span = row.started_at.until(row.seen_until);
        assert!(span >= LEASE && span.0 < LEASE.0 + 10_000, "{span}");
    }
    assert!(rows[0].started_at < rows[1].started_at && rows[1].started_at < rows[2].started_at);
}

pub async fn a_heartbeat_that_runs_out_ends_the_life(database: &Database) {
    let store = database.migrated(shard_count(database)).await;
    store.heartbeat(&owner("a"), SHORT).await.unwrap();
    store.heartbeat(&owner("b"), LEASE).await.unwrap();
    until("only b lives", async || live(&*store).await == ["b"]).await;
    let alive: Vec<bool> = store.replicas().await.unwrap().iter().map(|row| row.alive).collect();
    assert_eq!(alive, [false, true]);
    store.heartbeat(&owner("a"), LEASE).await.unwrap();
    assert_eq!(live(&*store).await, ["a", "b"], "it comes back to its place");
}

pub async fn who_leaves_counts_no_longer_but_keeps_its_shards(database: &Database) {
    let store = database.migrated(shard_count(database)).await;
    store.heartbeat(&owner("a"), LEASE).await.unwrap();
    store.heartbeat(&owner("b"), LEASE).await.unwrap();
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let request =
        LeaseRequest { presence: Presence::Leaving, renew: fences(&owned), release: Vec::new(), take: Vec::new() };
    let report = store.keep_leases(&owner("a"), &request, LEASE).await.unwrap();
    assert_eq!(report.renewed.len(), owned.len());
    assert_eq!((report.view.replicas, report.view.mine), (vec!["b".to_owned()], fences(&owned)));
    let gone = LeaseRequest { presence: Presence::Gone, renew: Vec::new(), release: Vec::new(), take: Vec::new() };
    store.keep_leases(&owner("a"), &gone, LEASE).await.unwrap();
    assert_eq!(store.take_shards(&owner("b"), None, LEASE).await.unwrap().len(), owned.len());
    assert_eq!(store.replicas().await.unwrap().len(), 1, "its row went with it");
}

pub async fn the_long_dead_are_forgotten(database: &Database) {
    let store = database.migrated(shard_count(database)).await;
    let now_us = store.now().await.unwrap().as_micros();
    const HOUR_US: i64 = 3_600_000_000;
    for (id, ended_hours_ago) in [("yesterday", 23), ("long-ago", 25)] {
        let until_us = now_us - ended_hours_ago * HOUR_US;
        let sql = format!("INSERT INTO replicas VALUES ('{id}', NULL, '0.0.1', {until_us}, {until_us})");
        database.execute(&sql).await.unwrap();
    }
    store.heartbeat(&owner("a"), LEASE).await.unwrap();
    let kept: Vec<String> = store.replicas().await.unwrap().into_iter().map(|row| row.id).collect();
    assert_eq!(kept, ["yesterday", "a"]);
}

pub async fn one_shard_is_released_and_the_others_stay(database: &Database) {
    let store = database.migrated(shard_count(database)).await;
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let stale = [Fence { shard: Shard(0), epoch: Epoch(0) }];
    store.release_shards(&owner("a"), &stale).await.unwrap();
    store.release_shards(&owner("b"), &fences(&owned)).await.unwrap();
    store.release_shards(&owner("a"), &[]).await.unwrap();
    assert_eq!(store.take_shards(&owner("b"), None, LEASE).await.unwrap(), [], "nothing was b's, or of that epoch");
    store.release_shards(&owner("a"), &fences(&owned[..1])).await.unwrap();
    let taken = store.take_shards(&owner("b"), None, LEASE).await.unwrap();
    assert_eq!(taken, [OwnedShard { shard: Shard(0), epoch: Epoch(2), head: 0, died: false }]);
    let still = store.renew(&owner("a"), &fences(&owned), LEASE).await.unwrap();
    assert_eq!(still.len(), owned.len() - 1);
}

pub async fn only_what_was_taken_from_the_dead_counts_as_died(database: &Database) {
    let store = database.migrated(shard_count(database)).await;
    let died = |taken: Vec<OwnedShard>| taken.iter().map(|owned| owned.died).collect::<Vec<_>>();
    let all = usize::from(shard_count(database));
    assert_eq!(died(store.take_shards(&owner("a"), None, LEASE).await.unwrap()), vec![false; all], "new");
    assert_eq!(died(store.take_shards(&owner("a"), None, SHORT).await.unwrap()), vec![false; all], "its own");
    // A lease ends shard by shard, and who asks again is given his own once more.
    let mut first_taken = BTreeMap::new();
    until("the lease ends", async || {
        for taken in store.take_shards(&owner("b"), None, LEASE).await.unwrap() {
            first_taken.entry(taken.shard).or_insert(taken.died);
        }
        first_taken.len() == all
    })
    .await;
    assert!(first_taken.values().all(|died| *died), "a never gave them up");
    store.release(&owner("b")).await.unwrap();
    assert_eq!(died(store.take_shards(&owner("a"), None, LEASE).await.unwrap()), vec![false; all], "given up");
    store.bury("a").await.unwrap();
    assert_eq!(died(store.take_shards(&owner("b"), None, LEASE).await.unwrap()), vec![true; all], "known to have died");
}

pub async fn a_view_shows_what_is_free_and_what_is_mine(database: &Database) {
    let shards = shard_count(database);
    let store = database.migrated(shards).await;
    let all: Vec<Shard> = (0..shards).map(Shard).collect();
    let view = store.lease_view(&owner("a")).await.unwrap();
    assert_eq!((&view.free, &view.mine), (&all, &Vec::new()));
    let owned = store.take_shards(&owner("a"), Some(&[Shard(0)]), LEASE).await.unwrap();
    let view = store.lease_view(&owner("a")).await.unwrap();
    assert_eq!((&view.free[..], &view.mine), (&all[1..], &fences(&owned)));
    assert_eq!(store.lease_view(&owner("b")).await.unwrap().free, all[1..], "a's is neither b's nor free");
    store.take_shards(&owner("a"), Some(&[Shard(0)]), SHORT).await.unwrap();
    until("its lease ends", async || store.lease_view(&owner("b")).await.unwrap().free == all).await;
    assert_eq!(store.lease_view(&owner("a")).await.unwrap().mine.len(), 1, "while nobody took it");
}

/// The machine of one replica on a real store, with this process's clock.
struct Sharing {
    owner: Owner,
    leases: Leases,
    owned: Vec<Shard>,
    begun: Instant,
}

impl Sharing {
    fn new(id: &str, shards: u16) -> Self {
        let owner = owner(id);
        let limits = LeaseLimits { look_every: Millis(5), ..LeaseLimits::new(shards, LEASE, Millis(1000)) };
        let leases = Leases::new(owner.id.clone(), limits, Timestamp::default());
        Self { owner, leases, owned: Vec::new(), begun: Instant::now() }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(i64::try_from(self.begun.elapsed().as_micros()).unwrap())
    }

    /// One look at the clock, and whatever follows from it.
    async fn turn(&mut self, store: &dyn Store) {
        self.leases.tick(self.now());
        while let Some(effect) = self.leases.next_effect() {
            match effect {
                LeaseEffect::Ask(request) => {
                    let report = store.keep_leases(&self.owner, &request, LEASE).await.unwrap();
                    self.leases.answered(Some(report), self.now());
                }
                LeaseEffect::Taken(taken) => self.owned.push(taken.shard),
                LeaseEffect::Drain(shards) => {
                    shards.into_iter().for_each(|shard| self.leases.drained(shard, self.now()));
                }
                LeaseEffect::Released(gone) | LeaseEffect::Lost(gone) => {
                    self.owned.retain(|shard| !gone.contains(shard));
                }
                LeaseEffect::Stopped => {}
            }
        }
    }
}

pub async fn two_machines_share_the_shards_fairly(database: &Database) {
    let shards = shard_count(database);
    let one = database.migrated(shards).await;
    let two = database.open(shards).await;
    let (mut a, mut b) = (Sharing::new("a", shards), Sharing::new("b", shards));
    until("the first one has all", async || {
        a.turn(&*one).await;
        a.owned.len() == usize::from(shards)
    })
    .await;
    until("both have their share", async || {
        a.turn(&*one).await;
        b.turn(&*two).await;
        a.owned.len() == fair_share(shards, 2, 0) && b.owned.len() == fair_share(shards, 2, 1)
    })
    .await;
    a.leases.stop(Millis(1000), a.now());
    until("the second one has all", async || {
        a.turn(&*one).await;
        b.turn(&*two).await;
        b.owned.len() == usize::from(shards)
    })
    .await;
    assert!(a.leases.is_stopped() && a.owned.is_empty());
    assert!(one.shards().await.unwrap().iter().all(|row| row.owner.as_deref() == Some("b")));
}
