//! What goes wrong in a run, and when: made from the seed before anything starts, so that a seed is a run.
//!
//! Two lanes go on side by side: in one the servers die, stop and crash, in the other the network and the participants
//! fail. Within a lane all kinds are mixed, and one fault ends before the next begins.

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::Serialize;

/// How long a replica that does not renew keeps its shards: what ships.
pub const LEASE: Duration = Duration::from_secs(5);
/// A fault of the network or of a participant lasts at most so long, except that a silent database may outlast a lease.
const SPELL_MAX: Duration = Duration::from_secs(3);

/// What is asked for.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Order {
    pub seed: u64,
    pub sagas: usize,
    pub kills: usize,
    pub restarts: usize,
    pub stops: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// SIGKILL of a replica that owns shards.
    Kill,
    /// The same while a commit is on its way to the database, where it arrives after the takeover.
    KillBeforeCommitArrives,
    /// The same when the database has carried out a commit and the answer is on its way.
    KillBeforeCommitIsAnswered,
    /// SIGSTOP of a replica that owns shards for longer than its lease, then SIGCONT.
    Stop,
    StopBeforeCommitArrives,
    StopBeforeCommitIsAnswered,
    /// PostgreSQL stops as by a power failure, and recovers.
    DatabaseRestart,

    /// Every connection between a replica and the database is reset.
    DatabaseReset,
    /// What a replica and the database say to each other is swallowed.
    DatabaseSilent,
    DatabaseSlow,
    /// A commit is lost on its way to the database.
    CommitLost,
    /// A commit is carried out, and its answer is lost.
    CommitReplyLost,
    ParticipantKill,
    ParticipantReset,
    ParticipantSilent,
    ParticipantSlow,
    /// A call is carried out, and its answer is lost.
    ParticipantReplyLost,
    /// A participant answers errors, refuses, works twice, and loses answers after its own commit.
    ParticipantErrors,
}

use Kind::{
    CommitLost, CommitReplyLost, DatabaseReset, DatabaseRestart, DatabaseSilent, DatabaseSlow, Kill,
    KillBeforeCommitArrives, KillBeforeCommitIsAnswered, ParticipantErrors, ParticipantKill, ParticipantReplyLost,
    ParticipantReset, ParticipantSilent, ParticipantSlow, Stop, StopBeforeCommitArrives, StopBeforeCommitIsAnswered,
};

const KILLS: [Kind; 3] = [KillBeforeCommitArrives, Kill, KillBeforeCommitIsAnswered];
const STOPS: [Kind; 3] = [StopBeforeCommitArrives, Stop, StopBeforeCommitIsAnswered];
const SPELLS: [Kind; 11] = [
    DatabaseReset,
    DatabaseSilent,
    DatabaseSlow,
    CommitLost,
    CommitReplyLost,
    ParticipantKill,
    ParticipantReset,
    ParticipantSilent,
    ParticipantSlow,
    ParticipantReplyLost,
    ParticipantErrors,
];
/// So many faults of the first lane bring one of each kind in the second, which then takes about as long.
const SERVERS_PER_SPELL: usize = 4;

/// One fault to be made.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// It is made when so many starts have been acknowledged.
    pub after: usize,
    /// Whom it hits, among those there are then.
    pub target: u64,
    /// How long it lasts, or how long what was killed stays down.
    pub pause: Duration,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub order: Order,
    pub servers: Vec<Fault>,
    pub spells: Vec<Fault>,
}

impl Plan {
    pub fn make(order: Order) -> Self {
        let mut random = StdRng::seed_from_u64(order.seed);
        let mut servers: Vec<Kind> = KILLS.into_iter().cycle().take(order.kills).collect();
        servers.extend(STOPS.into_iter().cycle().take(order.stops));
        servers.extend(std::iter::repeat_n(DatabaseRestart, order.restarts));
        let rounds = servers.len().div_ceil(SERVERS_PER_SPELL);
        let mut spells: Vec<Kind> = std::iter::repeat_n(SPELLS, rounds).flatten().collect();
        servers.shuffle(&mut random);
        spells.shuffle(&mut random);
        Self {
            order,
            servers: laid_out(servers, order.sagas, &mut random),
            spells: laid_out(spells, order.sagas, &mut random),
        }
    }

    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.servers.iter().chain(&self.spells)
    }

    pub fn per_kind(&self) -> BTreeMap<Kind, usize> {
        let mut kinds = BTreeMap::new();
        for fault in self.faults() {
            *kinds.entry(fault.kind).or_default() += 1;
        }
        kinds
    }

    /// About how long the faults take; the starts are spread over it.
    pub fn duration(&self) -> Duration {
        let lane = |faults: &[Fault]| faults.iter().map(Fault::duration).sum::<Duration>();
        lane(&self.servers).max(lane(&self.spells))
    }
}

impl Fault {
    fn duration(&self) -> Duration {
        match self.kind {
            Kill | KillBeforeCommitArrives | KillBeforeCommitIsAnswered => {
                LEASE.max(self.pause) + Duration::from_secs(2)
            }
            Stop | StopBeforeCommitArrives | StopBeforeCommitIsAnswered => LEASE + Duration::from_secs(3),
            DatabaseRestart => Duration::from_secs(2),
            CommitLost | CommitReplyLost | ParticipantReplyLost | DatabaseReset | ParticipantReset => {
                Duration::from_millis(300)
            }
            DatabaseSilent | DatabaseSlow | ParticipantKill | ParticipantSilent | ParticipantSlow
            | ParticipantErrors => self.pause,
        }
    }
}

/// Spreads faults over the run, each at a moment of its own in its part of it.
fn laid_out(kinds: Vec<Kind>, sagas: usize, random: &mut StdRng) -> Vec<Fault> {
    let count = kinds.len() + 1;
    let at = |part: usize, random: &mut StdRng| (sagas * (100 * part + random.random_range(20..80))) / (100 * count);
    let lasts = |kind: Kind, random: &mut StdRng| match kind {
        DatabaseSilent => random.random_range(500..8_000),
        Kill | KillBeforeCommitArrives | KillBeforeCommitIsAnswered => random.random_range(0..7_000),
        _ => random.random_range(300..SPELL_MAX.as_millis() as u64),
    };
    let fault = |(part, kind): (usize, Kind)| Fault {
        kind,
        after: at(part, random),
        target: random.random(),
        pause: Duration::from_millis(lasts(kind, random)),
    };
    kinds.into_iter().enumerate().map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: Order = Order { seed: 7, sagas: 2_000, kills: 10, restarts: 3, stops: 3 };

    #[test]
    fn a_seed_is_a_plan_of_what_was_asked_for() {
        let plan = Plan::make(ORDER);
        assert_eq!(format!("{plan:?}"), format!("{:?}", Plan::make(ORDER)));
        assert_ne!(format!("{plan:?}"), format!("{:?}", Plan::make(Order { seed: 8, ..ORDER })));
        let kinds = plan.per_kind();
        let count = |of: &[Kind]| of.iter().filter_map(|kind| kinds.get(kind)).sum::<usize>();
        assert_eq!((count(&KILLS), count(&STOPS), count(&[DatabaseRestart])), (10, 3, 3));
        assert!(SPELLS.iter().all(|kind| kinds[kind] == 4), "{kinds:?}");
        for lane in [&plan.servers, &plan.spells] {
            assert!(lane.is_sorted_by_key(|fault| fault.after) && lane.iter().all(|fault| fault.after < 2_000));
        }
    }
}
