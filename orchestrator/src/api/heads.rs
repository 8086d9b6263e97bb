//! How far the logs of other replicas' shards are, as seen in the database: how a replica hears of commits that it does
//! not make itself.
//!
//! Asked ten times a second for all who follow a saga or the log, and only while somebody does. Nobody is woken by what happens here:
//! of that the engine tells.

use std::{sync::Arc, time::Duration};

use skald_core::ids::Shard;
use tokio::sync::watch;

use crate::storage::{ShardRow, Store};

const INTERVAL: Duration = Duration::from_millis(100);

/// The shards as last seen.
#[derive(Debug)]
pub struct Heads {
    seen: watch::Receiver<Arc<[Seen]>>,
}

/// A shard, as far as followers need to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    shard: Shard,
    /// None when the shard is this replica's.
    head: Option<i64>,
}

impl Heads {
    /// Looks until `closed`. `owner_id` is this replica's.
    #[must_use]
    pub fn follow(store: Arc<dyn Store>, owner_id: String, mut closed: watch::Receiver<bool>) -> Self {
        let (sender, seen) = watch::channel(Arc::from([]));
        tokio::spawn(async move {
            while tokio::time::timeout(INTERVAL, closed.wait_for(|closed| *closed)).await.is_err() {
                // One receiver is kept to subscribe by.
                if sender.receiver_count() <= 1 {
                    continue;
                }
                match store.shards().await {
                    Ok(shards) => {
                        let now: Arc<[Seen]> = shards.iter().map(|row| Seen::of(row, &owner_id)).collect();
                        sender.send_if_modified(|seen| {
                            let changed = *seen != now;
                            *seen = now;
                            changed
                        });
                    }
                    Err(error) => tracing::debug!(%error, "shards cannot be read; trying again"),
                }
            }
        });
        Self { seen }
    }

    /// Tells when a shard of another replica moved on, or changed hands.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<[Seen]>> {
        self.seen.clone()
    }
}

impl Seen {
    fn of(row: &ShardRow, owner_id: &str) -> Self {
        let here = row.owner.as_deref() == Some(owner_id);
        Self { shard: row.shard, head: (!here).then_some(row.head) }
    }
}

/// The head of the shard, if it is another replica's.
#[must_use]
pub fn of(shards: &[Seen], shard: Shard) -> Option<i64> {
    shards.iter().find(|seen| seen.shard == shard)?.head
}
