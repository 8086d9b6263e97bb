//! Keeps shards leased: takes them, reads what is unfinished in them, renews, and gives them back.
//!
//! A lease is counted from before the request that renewed it was sent, so this replica always believes it shorter than
//! the database does. When it cannot be renewed in time, the shards are lost here before they are free there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use skald_core::{ids::Shard, time::Millis};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Parts,
    shell::{LeaseRequest, Ownership},
};
use crate::storage::{OwnedShard, Owner, Store, StoreError, Unfinished};

const SCAN_PAGE: u32 = 5_000;

pub(super) struct Leases {
    store: Arc<dyn Store>,
    owner: Owner,
    lease: Millis,
    shell: mpsc::UnboundedSender<Ownership>,
    requests: mpsc::UnboundedReceiver<LeaseRequest>,
    held: BTreeMap<Shard, OwnedShard>,
    /// Until when the lease of what is held surely lasts.
    safe_until: Instant,
    /// Whether the database kept this replica from taking anything, so that it is logged once.
    waiting: bool,
}

impl Leases {
    pub fn new(
        parts: &Parts,
        shell: mpsc::UnboundedSender<Ownership>,
        requests: mpsc::UnboundedReceiver<LeaseRequest>,
    ) -> Self {
        Self {
            store: Arc::clone(&parts.store),
            owner: parts.owner.clone(),
            lease: parts.lease,
            shell,
            requests,
            held: BTreeMap::new(),
            safe_until: Instant::now(),
            waiting: false,
        }
    }

    pub async fn run(mut self) {
        self.take(None).await;
        loop {
            let pause = Duration::from_millis(if self.held.is_empty() { 500 } else { self.lease.0 / 3 });
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(LeaseRequest::Retake(shards)) => self.retake(&shards).await,
                    Some(LeaseRequest::Release) | None => break,
                },
                () = tokio::time::sleep(pause) => self.keep().await,
            }
        }
        if let Err(error) = self.store.release(&self.owner).await {
            tracing::warn!(%error, "shards not released; their lease will run out");
        }
    }

    async fn retake(&mut self, shards: &[Shard]) {
        for shard in shards {
            self.held.remove(shard);
        }
        self.take(Some(shards)).await;
    }

    /// Renews what is held, and takes what is free.
    async fn keep(&mut self) {
        if !self.held.is_empty() {
            self.renew().await;
        }
        self.take(None).await;
    }

    async fn renew(&mut self) {
        let sent = Instant::now();
        let fences: Vec<OwnedShard> = self.held.values().copied().collect();
        let margin = Duration::from_millis(self.lease.0 / 5);
        let patience = self.safe_until.saturating_duration_since(sent + margin);
        let renewed = tokio::time::timeout(patience, self.store.renew(&self.owner, &fences, self.lease)).await;
        match renewed {
            Ok(Ok(still)) => {
                self.safe_until = sent + Duration::from_millis(self.lease.0);
                let lost: Vec<Shard> = self.held.keys().copied().filter(|shard| !still.contains(shard)).collect();
                self.lose(lost);
            }
            Ok(Err(error)) if Instant::now() + margin < self.safe_until => {
                tracing::warn!(%error, "the lease could not be renewed; trying again");
            }
            Ok(Err(_)) | Err(_) => {
                let lost = self.held.keys().copied().collect();
                self.lose(lost);
            }
        }
    }

    fn lose(&mut self, lost: Vec<Shard>) {
        if lost.is_empty() {
            return;
        }
        for shard in &lost {
            self.held.remove(shard);
        }
        let _ = self.shell.send(Ownership::Lost(lost));
    }

    /// Takes shards that can be had, and hands each over with its unfinished sagas.
    async fn take(&mut self, only: Option<&[Shard]>) {
        let sent = Instant::now();
        let mine: Vec<Shard> = self.held.keys().copied().collect();
        let wanted = match self.store.shards().await {
            Ok(shards) => shards
                .into_iter()
                .map(|row| row.shard)
                .filter(|shard| !mine.contains(shard) && only.is_none_or(|only| only.contains(shard)))
                .collect::<Vec<_>>(),
            Err(error) => return tracing::warn!(%error, "shards cannot be read; trying again"),
        };
        if wanted.is_empty() {
            return;
        }
        match self.store.take_shards(&self.owner, Some(&wanted), self.lease).await {
            Ok(taken) if taken.is_empty() => {
                if !std::mem::replace(&mut self.waiting, true) && self.held.is_empty() {
                    tracing::info!("another replica owns the shards; waiting for its lease to end");
                }
            }
            Ok(taken) => {
                self.waiting = false;
                if self.held.is_empty() {
                    self.safe_until = sent + Duration::from_millis(self.lease.0);
                }
                for owned in taken {
                    self.hand_over(owned).await;
                }
            }
            Err(error) => tracing::warn!(%error, "shards cannot be taken; trying again"),
        }
    }

    async fn hand_over(&mut self, owned: OwnedShard) {
        match self.unfinished(owned.shard).await {
            Ok(unfinished) => {
                self.held.insert(owned.shard, owned);
                let _ = self.shell.send(Ownership::Taken {
                    shard: owned.shard,
                    epoch: owned.epoch,
                    died: false,
                    unfinished,
                });
            }
            Err(error) => tracing::warn!(shard = %owned.shard, %error, "unfinished sagas cannot be read; trying again"),
        }
    }

    async fn unfinished(&self, shard: Shard) -> Result<Vec<Unfinished>, StoreError> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.unfinished(shard, after, SCAN_PAGE).await?;
            let full = page.len() == SCAN_PAGE as usize;
            after = page.last().map(|last| last.id);
            found.extend(page);
            if !full {
                return Ok(found);
            }
        }
    }
}
