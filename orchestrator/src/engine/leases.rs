//! Keeps shards leased: the shell around the lease machine.
//!
//! It sends the machine's requests to the store, tells it the time, and hands what follows to the writer's shell as
//! [`Change`]s, one at a time: the next request leaves only after the shell has dealt with the change before it, so that
//! a shard is free for others only when nothing is done in it here any more. Calls are made under the
//! [`Term`] of their shard, which ends with the lease.
//!
//! It runs inside the shell's own task: a shell that hangs or dies does not renew.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use skald_core::{
    ids::{Epoch, Shard},
    shard::leases::{LeaseEffect, LeaseLimits, LeaseReport, Leases, TakenShard},
    time::{Millis, Timestamp},
};
use tokio::{
    task::{JoinError, JoinHandle, JoinSet},
    time::{Instant, Sleep},
};

use super::{Parts, definitions::Definitions};
use crate::{
    dispatch::{Lease, Term},
    metrics::Metrics,
    storage::{Owner, Store, StoreError, Unfinished},
};

const SCAN_PAGE: u32 = 5_000;
/// How long to wait before unfinished sagas that could not be read are asked for again.
const SCAN_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What happened to the shards of this replica.
#[derive(Debug)]
pub(super) enum Change {
    /// Taken, and known what is unfinished in it.
    Owned(Scanned),
    /// Nothing new may begin in these; say [`Keeper::drained`] when what was begun has ended.
    Drain(Vec<Shard>),
    /// Nothing of these may be kept. Their calls have been ended.
    Gone(Vec<Shard>),
    /// Everything was given up.
    Stopped,
}

#[derive(Debug)]
pub(super) struct Scanned {
    pub taken: TakenShard,
    pub unfinished: Vec<Unfinished>,
}

pub(super) struct Keeper {
    store: Arc<dyn Store>,
    definitions: Arc<Definitions>,
    metrics: Arc<Metrics>,
    owner: Owner,
    lease: Millis,
    machine: Leases,
    /// When the machine's time began.
    origin: Instant,
    /// Nothing is to be done before it fires, unless the machine is told of something.
    timer: Pin<Box<Sleep>>,
    /// The machine was told of something.
    news: bool,
    held: BTreeMap<Shard, Held>,
    asked: Option<JoinHandle<Result<LeaseReport, StoreError>>>,
    scans: JoinSet<Option<Scanned>>,
}

/// A shard that the machine holds.
struct Held {
    epoch: Epoch,
    lease: Lease,
    /// Whether the shell owns it: not while its unfinished sagas are being read.
    handed_over: bool,
}

impl Keeper {
    pub fn new(parts: &Parts) -> Self {
        let limits = LeaseLimits::new(parts.limits.shards, parts.lease, parts.grace);
        Self {
            store: Arc::clone(&parts.store),
            definitions: Arc::clone(&parts.definitions),
            metrics: Arc::clone(&parts.metrics),
            owner: parts.owner.clone(),
            lease: parts.lease,
            machine: Leases::new(parts.owner.id.clone(), limits, Timestamp::default()),
            origin: Instant::now(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            news: true,
            held: BTreeMap::new(),
            asked: None,
            scans: JoinSet::new(),
        }
    }

    /// The next change; safe to drop and call again. Looks at the clock first: whoever was stopped for a while learns
    /// what was lost meanwhile before anything else.
    pub async fn next(&mut self) -> Change {
        loop {
            if self.news || self.timer.deadline() <= Instant::now() {
                self.machine.tick(self.now());
                if let Some(change) = self.carry_out() {
                    self.news = true;
                    return change;
                }
                let wake = self.machine.next_wake().map(|at| self.instant(at));
                self.timer.as_mut().reset(wake.unwrap_or_else(|| Instant::now() + Duration::from_secs(1)));
                self.news = false;
            }
            tokio::select! {
                answer = answered(&mut self.asked) => {
                    self.asked = None;
                    self.take_in(answer);
                }
                Some(scanned) = self.scans.join_next() => {
                    if let Some(change) = self.scanned(scanned) {
                        return change;
                    }
                }
                () = &mut self.timer => {}
            }
        }
    }

    /// Under which calls in a shard are made; None if it is not this replica's.
    pub fn term(&self, shard: Shard) -> Option<Term> {
        self.held.get(&shard).map(|held| held.lease.term())
    }

    /// What was begun in a draining shard has ended.
    pub fn drained(&mut self, shard: Shard) {
        self.tell(|machine, now| machine.drained(shard, now));
    }

    /// The writer forgot these, fenced off or in doubt. Their calls end; what is still ours is taken again.
    pub fn forgotten(&mut self, shards: &[Shard]) {
        self.metrics.shards.lost.inc_by(shards.len() as u64);
        self.end(shards);
        self.tell(|machine, now| machine.forgotten(shards, now));
    }

    /// Gives everything up, within the grace.
    pub fn stop(&mut self, grace: Duration) {
        let grace = Millis(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        self.tell(|machine, now| machine.stop(grace, now));
    }

    /// Whatever may follow from it is done at the next [`Keeper::next`].
    fn tell(&mut self, what: impl FnOnce(&mut Leases, Timestamp)) {
        let now = self.now();
        what(&mut self.machine, now);
        self.news = true;
    }

    fn now(&self) -> Timestamp {
        let micros = self.origin.elapsed().as_micros();
        Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    fn instant(&self, at: Timestamp) -> Instant {
        self.origin + Duration::from_micros(u64::try_from(at.as_micros()).unwrap_or(0))
    }

    /// Does what the machine asks for, up to what the shell must do first.
    fn carry_out(&mut self) -> Option<Change> {
        while let Some(effect) = self.machine.next_effect() {
            match effect {
                LeaseEffect::Ask(request) => {
                    let (store, owner, lease) = (Arc::clone(&self.store), self.owner.clone(), self.lease);
                    self.asked = Some(tokio::spawn(async move { store.keep_leases(&owner, &request, lease).await }));
                }
                LeaseEffect::Taken(taken) => self.hold(taken),
                LeaseEffect::Drain(shards) => {
                    tracing::info!(?shards, "giving shards up");
                    let (owned, unread): (Vec<Shard>, Vec<Shard>) =
                        shards.into_iter().partition(|shard| self.held.get(shard).is_some_and(|held| held.handed_over));
                    for shard in unread {
                        self.drained(shard);
                    }
                    return Some(Change::Drain(owned));
                }
                LeaseEffect::Released(shards) => {
                    tracing::info!(?shards, "shards given up");
                    self.metrics.shards.released.inc_by(shards.len() as u64);
                    self.end(&shards);
                    return Some(Change::Gone(shards));
                }
                LeaseEffect::Lost(shards) => {
                    tracing::warn!(?shards, "shards lost");
                    self.metrics.shards.lost.inc_by(shards.len() as u64);
                    self.end(&shards);
                    return Some(Change::Gone(shards));
                }
                LeaseEffect::Stopped => return Some(Change::Stopped),
            }
        }
        self.extend();
        None
    }

    /// Calls go on as long as the machine relies on the leases.
    fn extend(&self) {
        for (shard, held) in &self.held {
            if let Some(until) = self.machine.until(*shard) {
                held.lease.extend(self.instant(until).into_std());
            }
        }
    }

    fn end(&mut self, shards: &[Shard]) {
        for shard in shards {
            self.held.remove(shard);
        }
    }

    fn take_in(&mut self, answer: Result<Result<LeaseReport, StoreError>, JoinError>) {
        let report = match answer {
            Ok(Ok(report)) => Some(report),
            Ok(Err(error)) => {
                tracing::warn!(%error, "leases could not be looked after; trying again");
                None
            }
            Err(error) => {
                tracing::error!(%error, "the task that looks after leases failed; trying again");
                None
            }
        };
        if report.is_none() {
            self.metrics.shards.renewal_failures.inc();
        }
        self.tell(|machine, now| machine.answered(report, now));
    }

    fn hold(&mut self, taken: TakenShard) {
        let TakenShard { shard, epoch, died } = taken;
        tracing::info!(%shard, %epoch, died, "shard taken");
        if died {
            self.metrics.shards.takeovers.inc();
        }
        let until = self.machine.until(shard).map_or_else(Instant::now, |until| self.instant(until));
        let lease = Lease::until(until.into_std());
        let (store, definitions, term) = (Arc::clone(&self.store), Arc::clone(&self.definitions), lease.term());
        self.scans.spawn(async move {
            tokio::select! {
                unfinished = scan(&*store, &definitions, shard) => Some(Scanned { taken, unfinished }),
                () = term.ended() => None,
            }
        });
        self.held.insert(shard, Held { epoch, lease, handed_over: false });
    }

    /// What was read for an epoch that is over is of no use.
    fn scanned(&mut self, scanned: Result<Option<Scanned>, JoinError>) -> Option<Change> {
        let scanned = match scanned {
            Ok(scanned) => scanned?,
            Err(error) => {
                tracing::error!(%error, "the task that reads unfinished sagas failed");
                return None;
            }
        };
        let held = self.held.get_mut(&scanned.taken.shard).filter(|held| held.epoch == scanned.taken.epoch)?;
        held.handed_over = true;
        Some(Change::Owned(scanned))
    }
}

/// Waits for the request under way; forever if there is none.
async fn answered(
    asked: &mut Option<JoinHandle<Result<LeaseReport, StoreError>>>,
) -> Result<Result<LeaseReport, StoreError>, JoinError> {
    match asked {
        Some(handle) => handle.await,
        None => std::future::pending().await,
    }
}

/// All that is unfinished in a shard, however often it takes to read it.
///
/// The owner before may have known definitions that were registered with it only: they are read first.
async fn scan(store: &dyn Store, definitions: &Definitions, shard: Shard) -> Vec<Unfinished> {
    loop {
        let read = async {
            match definitions.load().await {
                // Sagas of a definition that cannot be read stay where they are; the others go on.
                Err(error @ StoreError::Unreadable(_)) => tracing::error!(%error, "a definition cannot be read"),
                loaded => loaded?,
            }
            unfinished(store, shard).await
        };
        match read.await {
            Ok(found) => return found,
            Err(error) => tracing::warn!(%shard, %error, "unfinished sagas cannot be read; trying again"),
        }
        tokio::time::sleep(SCAN_AGAIN_AFTER).await;
    }
}

async fn unfinished(store: &dyn Store, shard: Shard) -> Result<Vec<Unfinished>, StoreError> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = store.unfinished(shard, after, SCAN_PAGE).await?;
        let full = page.len() == SCAN_PAGE as usize;
        after = page.last().map(|last| last.id);
        found.extend(page);
        if !full {
            return Ok(found);
        }
    }
}
