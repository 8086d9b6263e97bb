//! Replicas that are nothing but lease machines, on one database, in steps of ten milliseconds.

use alloc::{collections::BTreeMap, format, string::String, vec::Vec};

use super::database::Database;
use crate::{
    decide::tests::T0,
    ids::{Epoch, Shard},
    shard::leases::{LeaseEffect, LeaseLimits, LeaseReport, LeaseRequest, Leases, fair_share},
    time::{Millis, Timestamp},
};

pub const SHARDS: u16 = 16;
pub const LEASE: Millis = Millis(5000);
pub const LOOK: Millis = Millis(400);
pub const GRACE: Millis = Millis(3000);
const STEP: Millis = Millis(10);
/// How long a request takes at most, there and back each.
const TRIP_MS_MAX: u64 = 60;

struct Replica {
    id: String,
    started_at: Timestamp,
    leases: Leases,
    /// What its shell believes: what is owned, and what is being drained, until when.
    owned: BTreeMap<Shard, Epoch>,
    draining: BTreeMap<Shard, Timestamp>,
    on_its_way: Option<(Timestamp, LeaseRequest)>,
    coming_back: Option<(Timestamp, Option<LeaseReport>)>,
    /// Whether the next request, that fails, is done all the same.
    fault: Option<bool>,
    frozen_until: Timestamp,
    stopping: bool,
}

pub struct Fleet {
    database: Database,
    replicas: Vec<Replica>,
    now: Timestamp,
    joined: u32,
    random: u64,
    /// Shards that came into new hands.
    pub moves: usize,
    /// Of those, from the dead.
    pub unclean: usize,
    /// The longest time between a release and the next owner, where somebody could take it.
    pub longest_gap: Millis,
}

impl Fleet {
    pub fn new(seed: u64) -> Self {
        Self {
            database: Database::new(),
            replicas: Vec::new(),
            now: T0,
            joined: 0,
            random: seed,
            moves: 0,
            unclean: 0,
            longest_gap: Millis(0),
        }
    }

    /// SplitMix64.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    pub fn join(&mut self) {
        self.joined += 1;
        // As wide as any: of those that started together, the order of the names counts.
        let id = format!("r{:03}", self.joined);
        let limits = LeaseLimits { shards: SHARDS, lease: LEASE, look_every: LOOK, grace: GRACE };
        self.replicas.push(Replica {
            leases: Leases::new(id.clone(), limits, self.now),
            id,
            started_at: self.now,
            owned: BTreeMap::new(),
            draining: BTreeMap::new(),
            on_its_way: None,
            coming_back: None,
            fault: None,
            frozen_until: self.now,
            stopping: false,
        });
    }

    /// Those that live and are not stopping, by when they joined.
    pub fn living(&self) -> Vec<&str> {
        self.replicas.iter().filter(|replica| !replica.stopping).map(|replica| &*replica.id).collect()
    }

    pub fn shares(&self) -> Vec<usize> {
        self.replicas.iter().filter(|replica| !replica.stopping).map(|replica| replica.owned.len()).collect()
    }

    pub fn shares_awake(&self) -> Vec<usize> {
        let awake = self.replicas.iter().filter(|replica| replica.frozen_until <= self.now);
        awake.map(|replica| replica.owned.len()).collect()
    }

    pub fn fair_shares(&self) -> Vec<usize> {
        let live = self.living().len();
        (0..live).map(|rank| fair_share(SHARDS, live, rank)).collect()
    }

    /// Those whose process runs.
    pub fn running(&self) -> usize {
        self.replicas.len()
    }

    fn one(&mut self, which: usize) -> Option<&mut Replica> {
        let count = self.replicas.len();
        self.replicas.get_mut(which % count.max(1))
    }

    pub fn die(&mut self, which: usize) {
        if !self.replicas.is_empty() {
            self.replicas.remove(which % self.replicas.len());
        }
    }

    pub fn stop(&mut self, which: usize) {
        let now = self.now;
        if let Some(replica) = self.one(which) {
            replica.stopping = true;
            replica.leases.stop(GRACE, now);
            self.carry_out(which % self.replicas.len());
        }
    }

    pub fn freeze(&mut self, which: usize, span: Millis) {
        let until = self.now.plus(span);
        if let Some(replica) = self.one(which) {
            replica.frozen_until = until;
        }
    }

    pub fn fault(&mut self, which: usize, done: bool) {
        if let Some(replica) = self.one(which) {
            replica.fault = Some(done);
        }
    }

    pub fn doubt(&mut self, which: usize, shard: Shard) {
        let now = self.now;
        if let Some(replica) = self.one(which)
            && replica.owned.remove(&shard).is_some()
        {
            replica.draining.remove(&shard);
            replica.leases.forgotten(&[shard], now);
            self.carry_out(which % self.replicas.len());
        }
    }

    /// How long it takes until the condition holds.
    pub fn until(&mut self, what: &str, at_most: Millis, holds: impl Fn(&Self) -> bool) -> Millis {
        let begun = self.now;
        while !holds(self) {
            assert!(begun.until(self.now) < at_most, "{what}: not within {at_most}; shares {:?}", self.shares());
            self.step();
        }
        begun.until(self.now)
    }

    pub fn pass(&mut self, span: Millis) {
        let end = self.now.plus(span);
        while self.now < end {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now = self.now.plus(STEP);
        for index in 0..self.replicas.len() {
            self.travel(index);
            if self.replicas[index].frozen_until <= self.now {
                self.act(index);
            }
        }
        self.replicas.retain(|replica| !replica.leases.is_stopped());
        self.check();
    }

    /// Requests and answers travel also while a replica is frozen.
    fn travel(&mut self, index: usize) {
        let back = self.now.plus(Millis(self.below(TRIP_MS_MAX)));
        let replica = &mut self.replicas[index];
        if let Some((_, request)) = replica.on_its_way.take_if(|(arrives, _)| *arrives <= self.now) {
            let fault = replica.fault.take();
            let report =
                (fault != Some(false)).then(|| self.database.keep(&replica.id, replica.started_at, &request, self.now));
            if let Some(report) = &report {
                self.moves += report.taken.len();
                self.unclean += report.taken.iter().filter(|taken| taken.died).count();
                let freed = |shard: &Shard| self.database.shards[shard].freed_at;
                let gaps = report.taken.iter().filter_map(|taken| freed(&taken.shard)).map(|at| at.until(self.now));
                self.longest_gap = gaps.fold(self.longest_gap, Millis::max);
                for taken in &report.taken {
                    self.database.shards.get_mut(&taken.shard).expect("it was taken").freed_at = None;
                }
            }
            replica.coming_back = Some((back, report.filter(|_| fault.is_none())));
        }
    }

    fn act(&mut self, index: usize) {
        let now = self.now;
        let replica = &mut self.replicas[index];
        replica.leases.tick(now);
        self.carry_out(index);
        let replica = &mut self.replicas[index];
        if let Some((_, report)) = replica.coming_back.take_if(|(arrives, _)| *arrives <= now) {
            replica.leases.answered(report, now);
        }
        let drained: Vec<Shard> =
            replica.draining.iter().filter(|(_, until)| **until <= now).map(|(shard, _)| *shard).collect();
        for shard in drained {
            replica.leases.drained(shard, now);
        }
        self.carry_out(index);
        let wake = self.replicas[index].leases.next_wake();
        assert!(wake.is_none_or(|at| at > now), "what is due now was done now");
    }

    fn carry_out(&mut self, index: usize) {
        while let Some(effect) = self.replicas[index].leases.next_effect() {
            let arrives = self.now.plus(Millis(self.below(TRIP_MS_MAX)));
            let drained = self.now.plus(Millis(self.below(GRACE.0 * 3 / 2)));
            let replica = &mut self.replicas[index];
            match effect {
                LeaseEffect::Ask(request) => {
                    assert!(replica.on_its_way.is_none() && replica.coming_back.is_none(), "one request at a time");
                    replica.on_its_way = Some((arrives, request));
                }
                LeaseEffect::Taken(taken) => {
                    assert_eq!(replica.owned.insert(taken.shard, taken.epoch), None, "it was not owned before");
                }
                LeaseEffect::Drain(shards) => {
                    for shard in shards {
                        assert!(replica.owned.contains_key(&shard));
                        assert_eq!(replica.draining.insert(shard, drained), None);
                    }
                }
                LeaseEffect::Released(shards) | LeaseEffect::Lost(shards) => {
                    for shard in shards {
                        assert!(replica.owned.remove(&shard).is_some(), "it was owned");
                        replica.draining.remove(&shard);
                    }
                }
                LeaseEffect::Stopped => assert!(replica.owned.is_empty(), "it gave up everything"),
            }
        }
    }

    /// Whoever is awake and relies on a shard owns it, by the database's rows and clock.
    fn check(&self) {
        for replica in self.replicas.iter().filter(|replica| replica.frozen_until <= self.now) {
            for (shard, epoch) in &replica.owned {
                let until = replica.leases.until(*shard).expect("what the shell owns, the machine holds");
                let row = &self.database.shards[shard];
                assert!(until > self.now, "{} relies on {shard} past its time", replica.id);
                assert_eq!(row.owner.as_ref(), Some(&replica.id), "{shard}");
                assert_eq!(row.epoch, *epoch, "{shard}");
                assert!(row.lease_until > until, "the database thinks it longer");
            }
        }
    }
}
