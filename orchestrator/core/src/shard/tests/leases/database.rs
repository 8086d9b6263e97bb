//! The rows that leases are made of, and one clock.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use super::fleet::{LEASE, SHARDS};
use crate::{
    ids::{Epoch, Shard},
    shard::{
        batch::Fence,
        leases::{LeaseReport, LeaseRequest, LeaseView, Presence, TakenShard},
    },
    time::Timestamp,
};

#[derive(Clone, Debug, Default)]
pub struct Row {
    pub epoch: Epoch,
    pub owner: Option<String>,
    pub lease_until: Timestamp,
    pub freed_at: Option<Timestamp>,
}

#[derive(Debug)]
pub struct Database {
    pub shards: BTreeMap<Shard, Row>,
    /// By when they started.
    replicas: BTreeMap<(Timestamp, String), Timestamp>,
}

impl Database {
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|shard| (Shard(shard), Row::default())).collect(), replicas: BTreeMap::new() }
    }

    pub fn keep(&mut self, me: &str, started_at: Timestamp, request: &LeaseRequest, now: Timestamp) -> LeaseReport {
        let key = (started_at, me.into());
        match request.presence {
            Presence::Unchanged => {}
            Presence::Heartbeat => {
                self.replicas.insert(key, now.plus(LEASE));
            }
            Presence::Leaving | Presence::Gone => {
                self.replicas.remove(&key);
            }
        }
        let renewed = self.renew(me, &request.renew, now);
        self.release(me, request, now);
        let taken = request.take.iter().filter_map(|shard| self.take(me, *shard, now)).collect();
        LeaseReport { renewed, taken, view: self.view(me, now) }
    }

    fn held<'a>(&'a mut self, me: &str, fence: &Fence) -> Option<&'a mut Row> {
        let row = self.shards.get_mut(&fence.shard)?;
        (row.owner.as_deref() == Some(me) && row.epoch == fence.epoch).then_some(row)
    }

    fn renew(&mut self, me: &str, fences: &[Fence], now: Timestamp) -> Vec<Shard> {
        let mut renewed = Vec::new();
        for fence in fences {
            if let Some(row) = self.held(me, fence) {
                row.lease_until = now.plus(LEASE);
                renewed.push(fence.shard);
            }
        }
        renewed
    }

    fn release(&mut self, me: &str, request: &LeaseRequest, now: Timestamp) {
        let all = self.view(me, now).mine;
        let fences = if request.presence == Presence::Gone { &all } else { &request.release };
        for fence in fences {
            if let Some(row) = self.held(me, fence) {
                *row = Row { epoch: row.epoch, freed_at: Some(now), ..Row::default() };
            }
        }
    }

    fn take(&mut self, me: &str, shard: Shard, now: Timestamp) -> Option<TakenShard> {
        let row = self.shards.get_mut(&shard)?;
        let mine = row.owner.as_deref() == Some(me);
        if !mine && row.owner.is_some() && row.lease_until > now {
            return None;
        }
        let died = row.owner.is_some() && !mine;
        let epoch = Epoch(row.epoch.0 + 1);
        *row = Row { epoch, owner: Some(me.into()), lease_until: now.plus(LEASE), freed_at: row.freed_at };
        Some(TakenShard { shard, epoch, died })
    }

    fn view(&self, me: &str, now: Timestamp) -> LeaseView {
        let live = self.replicas.iter().filter(|(_, until)| **until > now);
        let mut view = LeaseView { replicas: live.map(|((_, id), _)| id.clone()).collect(), ..LeaseView::default() };
        for (shard, row) in &self.shards {
            if row.owner.as_deref() == Some(me) {
                view.mine.push(Fence { shard: *shard, epoch: row.epoch });
            } else if row.owner.is_none() || row.lease_until <= now {
                view.free.push(*shard);
            }
        }
        view
    }
}
