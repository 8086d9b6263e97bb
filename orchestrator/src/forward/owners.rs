//! Who owns which shard, as the database says: looked at once a second, and again when that turned out to be outdated.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use skald_core::ids::Shard;
use tokio::{runtime::Handle, sync::watch, time::Instant};

use crate::{
    clock::Clock,
    storage::{ShardRow, Store},
};

const INTERVAL: Duration = Duration::from_secs(1);
/// No look is waited for longer.
const LOOK_TIME_MAX: Duration = Duration::from_secs(2);

/// The shards and their owners.
#[derive(Debug)]
pub struct Owners {
    look: Arc<Look>,
    runtime: Handle,
}

/// Who writes a shard now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This replica, says the database; its engine may think otherwise for a moment.
    Here,
    Other(Peer),
    /// Nobody: the lease is over and nobody took the shard yet; or its owner cannot be reached.
    Nobody,
}

/// Another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub id: String,
    pub url: String,
}

#[derive(Debug)]
struct Look {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    own_id: String,
    /// One look at a time; whoever waits for it finds it done.
    looking: tokio::sync::Mutex<()>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    rows: Arc<[ShardRow]>,
    at: Option<Instant>,
    /// When each shard was last seen with an owner.
    owned_at: BTreeMap<Shard, Instant>,
}

impl Owners {
    /// Looks until `closed`. `own_id` is this replica's. To be called on the runtime that the store's connections belong
    /// to.
    #[must_use]
    pub fn follow(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        own_id: String,
        mut closed: watch::Receiver<bool>,
    ) -> Self {
        let (looking, seen) = (tokio::sync::Mutex::default(), Mutex::default());
        let look = Arc::new(Look { store, clock, own_id, looking, seen });
        let following = Arc::clone(&look);
        tokio::spawn(async move {
            following.refresh(INTERVAL).await;
            while tokio::time::timeout(INTERVAL, closed.wait_for(|closed| *closed)).await.is_err() {
                following.refresh(INTERVAL / 2).await;
            }
        });
        Self { look, runtime: Handle::current() }
    }

    /// Who owns the shard, by a look that is at most so old, if the database answers.
    pub async fn of(&self, shard: Shard, age_max: Duration) -> Owner {
        let rows = self.rows(age_max).await;
        rows.iter().find(|row| row.shard == shard).map_or(Owner::Nobody, |row| self.look.owner(row))
    }

    /// All shards, by a look that is at most so old, if the database answers.
    pub async fn rows(&self, age_max: Duration) -> Arc<[ShardRow]> {
        if !self.look.is_fresh(age_max) {
            let look = Arc::clone(&self.look);
            // To its end, even if who asked leaves: the connection is not to be broken off.
            let looked = self.runtime.spawn(async move { look.refresh(age_max).await }).await;
            if let Err(error) = looked {
                tracing::error!(%error, "the look at the shards failed");
            }
        }
        Arc::clone(&self.look.seen().rows)
    }

    /// Who owns this shard.
    #[must_use]
    pub fn owner(&self, row: &ShardRow) -> Owner {
        self.look.owner(row)
    }

    /// For how long the shard has been seen without an owner; None when it never was seen with one.
    #[must_use]
    pub fn ownerless_for(&self, shard: Shard) -> Option<Duration> {
        self.look.seen().owned_at.get(&shard).map(Instant::elapsed)
    }
}

impl Look {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("nothing panics while it holds this lock")
    }

    fn is_fresh(&self, age_max: Duration) -> bool {
        self.seen().at.is_some_and(|at| at.elapsed() <= age_max)
    }

    async fn refresh(&self, age_max: Duration) {
        let _one = self.looking.lock().await;
        if self.is_fresh(age_max) {
            return;
        }
        let at = Instant::now();
        match tokio::time::timeout(LOOK_TIME_MAX, self.store.shards()).await {
            Ok(Ok(rows)) => {
                let owned: Vec<Shard> =
                    rows.iter().filter(|row| self.owner(row) != Owner::Nobody).map(|row| row.shard).collect();
                let mut seen = self.seen();
                seen.rows = rows.into();
                seen.at = Some(at);
                seen.owned_at.extend(owned.into_iter().map(|shard| (shard, at)));
            }
            Ok(Err(error)) => tracing::debug!(%error, "shards cannot be read; trying again"),
            Err(_) => tracing::debug!("shards cannot be read in time; trying again"),
        }
    }

    fn owner(&self, row: &ShardRow) -> Owner {
        match (&row.owner, &row.owner_url) {
            _ if row.lease_until <= self.clock.now() => Owner::Nobody,
            (Some(id), _) if *id == self.own_id => Owner::Here,
            (Some(id), Some(url)) => Owner::Other(Peer { id: id.clone(), url: url.clone() }),
            (Some(_), None) | (None, _) => Owner::Nobody,
        }
    }
}
