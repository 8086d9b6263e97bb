//! Which shards this replica owns, as a state machine without IO: heartbeat, renewal, fair share, handover.
//!
//! The shell feeds it what happened and carries out the [`LeaseEffect`]s. Every `now` is this machine's monotonic time;
//! the store judges leases and heartbeats by its own clock. What holds at every moment:
//!
//! - One request to the store is under way at a time.
//! - A lease counts from before the request that took or renewed it was sent, and ends here a fifth of its length
//!   early: the owner always believes it shorter than the store does.
//! - A shard is given up only after the shell has forgotten it, so that a successor never meets its former owner's calls.
//! - Live replicas share evenly, those that came first having one more if it does not divide: each change of who lives
//!   moves only what is needed.
//!
//! | a shard is | and | becomes | effect |
//! | --- | --- | --- | --- |
//! | another's or free | an answer says it was taken | held | `Taken` |
//! | held | more than the share, or stopping | draining, until drained or the grace ends | `Drain` |
//! | draining | drained, or the grace is over | released by the next request | `Released` |
//! | held, draining | not renewed in time, or the store names another owner or epoch | lost | `Lost` |
//! | held | the writer forgot it, fenced off or in doubt | wanted by the next request | |
//! | draining | the writer forgot it | released by the next request | |
//! | in our name but not held | an answer shows it | wanted, or released if that is more than the share | |

mod words;

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    string::String,
    vec::Vec,
};

pub use self::words::{LeaseEffect, LeaseLimits, LeaseReport, LeaseRequest, LeaseView, Presence, TakenShard};
use super::batch::Fence;
use crate::{
    ids::{Epoch, Shard},
    time::{Millis, Timestamp},
};

/// See the module.
#[derive(Debug)]
pub struct Leases {
    me: String,
    limits: LeaseLimits,
    phase: Phase,
    held: BTreeMap<Shard, Held>,
    /// To be taken by the next request.
    wanted: BTreeSet<Shard>,
    /// To be given up by the next request.
    releasing: BTreeMap<Shard, Epoch>,
    asked: Option<Asked>,
    ask_at: Timestamp,
    /// Something cannot wait for `ask_at`.
    hurry: bool,
    renew_at: Timestamp,
    effects: VecDeque<LeaseEffect>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Stopping,
    Stopped,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    epoch: Epoch,
    /// When this replica stops relying on it.
    until: Timestamp,
    /// While draining: when the grace ends.
    drain_until: Option<Timestamp>,
}

#[derive(Debug)]
struct Asked {
    sent: Timestamp,
    request: LeaseRequest,
}

/// How many of `shards` the replica with this rank among `live` ones may own.
#[must_use]
pub fn fair_share(shards: u16, live: usize, rank: usize) -> usize {
    let (shards, live) = (usize::from(shards), live.max(1));
    shards / live + usize::from(rank < shards % live)
}

impl Leases {
    /// For the replica that the store knows as `me`. Asks at the first [`Leases::tick`].
    #[must_use]
    pub fn new(me: String, limits: LeaseLimits, now: Timestamp) -> Self {
        Self {
            me,
            limits,
            phase: Phase::Serving,
            held: BTreeMap::new(),
            wanted: BTreeSet::new(),
            releasing: BTreeMap::new(),
            asked: None,
            ask_at: now,
            hurry: false,
            renew_at: now,
            effects: VecDeque::new(),
        }
    }

    /// The next thing to do, oldest first. Call until None after every input.
    pub fn next_effect(&mut self) -> Option<LeaseEffect> {
        self.effects.pop_front()
    }

    /// When [`Leases::tick`] is next needed.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        let lease_ends = self.held.values().map(|held| held.until).min();
        let grace_ends = self.held.values().filter_map(|held| held.drain_until).min();
        let ask_at = (self.asked.is_none() && self.phase != Phase::Stopped).then_some(self.ask_at);
        [lease_ends, grace_ends, ask_at].into_iter().flatten().min()
    }

    /// Until when calls may be begun in a shard that is held, and how long this replica believes that it owns it.
    #[must_use]
    pub fn until(&self, shard: Shard) -> Option<Timestamp> {
        self.held.get(&shard).map(|held| held.until)
    }

    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// Time went on.
    pub fn tick(&mut self, now: Timestamp) {
        self.expire(now);
        self.end_graces(now);
        self.ask_if_due(now);
    }

    /// The request under way was answered; None if it failed: then it was carried out wholly, partly or not at all.
    pub fn answered(&mut self, report: Option<LeaseReport>, now: Timestamp) {
        self.expire(now);
        self.end_graces(now);
        let Some(Asked { sent, request }) = self.asked.take() else { return };
        match report {
            _ if request.presence == Presence::Gone => {
                self.phase = Phase::Stopped;
                self.effects.push_back(LeaseEffect::Stopped);
            }
            None => self.ask_at = now.plus(self.limits.look_every),
            Some(report) => self.take_in(sent, &request, &report, now),
        }
        self.ask_if_due(now);
    }

    /// Nothing that was begun in a draining shard goes on, and all of it is committed.
    pub fn drained(&mut self, shard: Shard, now: Timestamp) {
        if self.held.get(&shard).is_some_and(|held| held.drain_until.is_some()) {
            self.give_up(&[shard]);
            self.ask_if_due(now);
        }
    }

    /// The writer forgot these shards: fenced off, or their last commit is in doubt. Its calls must have been ended.
    pub fn forgotten(&mut self, shards: &[Shard], now: Timestamp) {
        for shard in shards {
            match self.held.remove(shard) {
                Some(Held { epoch, drain_until: Some(_), .. }) => {
                    self.releasing.insert(*shard, epoch);
                }
                Some(Held { drain_until: None, .. }) => {
                    self.wanted.insert(*shard);
                }
                None => continue,
            }
            self.hurry = true;
        }
        self.ask_if_due(now);
    }

    /// Gives up everything, each shard as soon as it is drained, at the latest when `grace` is over; then stops.
    pub fn stop(&mut self, grace: Millis, now: Timestamp) {
        if self.phase != Phase::Serving {
            return;
        }
        self.phase = Phase::Stopping;
        self.wanted.clear();
        let latest = now.plus(grace);
        for until in self.held.values_mut().filter_map(|held| held.drain_until.as_mut()) {
            *until = latest.min(*until);
        }
        self.drain(self.held.len(), latest);
        self.hurry = true;
        self.ask_if_due(now);
    }

    /// Loses what was not renewed in time.
    fn expire(&mut self, now: Timestamp) {
        self.lose(|_, held| held.until <= now);
    }

    fn lose(&mut self, is_lost: impl Fn(Shard, &Held) -> bool) {
        let lost: Vec<Shard> =
            self.held.iter().filter(|(shard, held)| is_lost(**shard, held)).map(|(shard, _)| *shard).collect();
        if !lost.is_empty() {
            self.held.retain(|shard, _| !lost.contains(shard));
            self.effects.push_back(LeaseEffect::Lost(lost));
        }
    }

    fn end_graces(&mut self, now: Timestamp) {
        let over = |held: &Held| held.drain_until.is_some_and(|until| until <= now);
        let over: Vec<Shard> = self.held.iter().filter(|(_, held)| over(held)).map(|(shard, _)| *shard).collect();
        if !over.is_empty() {
            self.give_up(&over);
        }
    }

    fn give_up(&mut self, shards: &[Shard]) {
        for shard in shards {
            if let Some(held) = self.held.remove(shard) {
                self.releasing.insert(*shard, held.epoch);
            }
        }
        self.effects.push_back(LeaseEffect::Released(shards.to_vec()));
        self.hurry = true;
    }

    fn ask_if_due(&mut self, now: Timestamp) {
        let due = self.hurry || self.ask_at <= now;
        if self.asked.is_some() || self.phase == Phase::Stopped || !due {
            return;
        }
        self.hurry = false;
        let renews = self.renew_at <= now;
        let presence = match self.phase {
            Phase::Serving if renews => Presence::Heartbeat,
            Phase::Serving => Presence::Unchanged,
            Phase::Stopping | Phase::Stopped if self.held.is_empty() => Presence::Gone,
            Phase::Stopping | Phase::Stopped => Presence::Leaving,
        };
        let fence = |(shard, epoch): (&Shard, &Epoch)| Fence { shard: *shard, epoch: *epoch };
        let held = self.held.iter().map(|(shard, held)| Fence { shard: *shard, epoch: held.epoch });
        let request = LeaseRequest {
            presence,
            renew: if renews { held.collect() } else { Vec::new() },
            release: self.releasing.iter().map(fence).collect(),
            take: self.wanted.iter().copied().collect(),
        };
        self.effects.push_back(LeaseEffect::Ask(request.clone()));
        self.asked = Some(Asked { sent: now, request });
    }

    fn take_in(&mut self, sent: Timestamp, request: &LeaseRequest, report: &LeaseReport, now: Timestamp) {
        let until = sent.plus(Millis(self.limits.lease.0 - self.limits.lease.0 / 5));
        if request.presence == Presence::Heartbeat || !request.renew.is_empty() {
            self.renew_at = sent.plus(Millis(self.limits.lease.0 / 3));
        }
        for fence in &request.release {
            self.releasing.remove(&fence.shard);
        }
        for shard in &report.renewed {
            if let Some(held) = self.held.get_mut(shard) {
                held.until = held.until.max(until);
            }
        }
        self.match_with(&report.view);
        // What arrived too late to be relied on is in our name and not held: it will be taken again.
        if until > now {
            report.taken.iter().for_each(|taken| self.take(*taken, until));
        }
        self.share_out(&report.view, now);
        let has_news = !self.releasing.is_empty() || !self.wanted.is_empty() && request.take.is_empty();
        let is_over = self.phase == Phase::Stopping && self.held.is_empty();
        self.hurry |= has_news || is_over;
        self.ask_at = now.plus(self.limits.look_every).min(self.renew_at.max(now));
    }

    /// Loses what the store says is another's, or ours under another epoch.
    fn match_with(&mut self, view: &LeaseView) {
        let mine: BTreeMap<Shard, Epoch> = view.mine.iter().map(|fence| (fence.shard, fence.epoch)).collect();
        self.lose(|shard, held| mine.get(&shard) != Some(&held.epoch));
    }

    fn take(&mut self, taken: TakenShard, until: Timestamp) {
        if self.phase == Phase::Serving {
            self.held.insert(taken.shard, Held { epoch: taken.epoch, until, drain_until: None });
            self.effects.push_back(LeaseEffect::Taken(taken));
        } else {
            self.releasing.insert(taken.shard, taken.epoch);
        }
    }

    /// Drains what is more than the share, and wants what is missing from it.
    fn share_out(&mut self, view: &LeaseView, now: Timestamp) {
        let rank = view.replicas.iter().position(|replica| *replica == self.me);
        // Who is not seen, because its heartbeat ran out, will be, as the last one.
        let live = view.replicas.len() + usize::from(rank.is_none());
        let rank = rank.unwrap_or(view.replicas.len());
        let share = match self.phase {
            Phase::Serving => fair_share(self.limits.shards, live, rank),
            Phase::Stopping | Phase::Stopped => 0,
        };
        let active = self.held.values().filter(|held| held.drain_until.is_none()).count();
        self.drain(active.saturating_sub(share), now.plus(self.limits.grace));
        let mut room = share.saturating_sub(active);
        self.wanted.clear();
        for fence in view.mine.iter().filter(|fence| !self.held.contains_key(&fence.shard)) {
            if room > 0 {
                room -= 1;
                self.wanted.insert(fence.shard);
            } else {
                self.releasing.insert(fence.shard, fence.epoch);
            }
        }
        // Each begins at another place, so that those who look at the same moment do not want the same.
        let begin = Shard(u16::try_from(usize::from(self.limits.shards) * rank / live).unwrap_or(0));
        let (before, after): (Vec<Shard>, Vec<Shard>) = view.free.iter().partition(|shard| **shard < begin);
        self.wanted.extend(after.into_iter().chain(before).take(room));
    }

    /// Begins to give up so many shards.
    fn drain(&mut self, count: usize, until: Timestamp) {
        let active = self.held.iter_mut().rev().filter(|(_, held)| held.drain_until.is_none()).take(count);
        let drained: Vec<Shard> = active
            .map(|(shard, held)| {
                held.drain_until = Some(until);
                *shard
            })
            .collect();
        if !drained.is_empty() {
            self.effects.push_back(LeaseEffect::Drain(drained));
        }
    }
}
