//! One orchestrator process: the real writer and the real lease machine, behind clocks that are a little off.
//!
//! | a message comes | while the process | and |
//! | --- | --- | --- |
//! | for this run of it | runs | is processed at once |
//! | for this run of it | is stopped (SIGSTOP) | waits, and is processed with all others when it goes on |
//! | for an earlier run, or none runs | | is lost |

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use skald_core::{
    classify::CallResult,
    decide::Input,
    event::Recorded,
    ids::{Epoch, SagaId, Shard},
    shard::{
        batch::CommitError,
        leases::{LeaseLimits, LeaseReport, Leases, TakenShard},
        writer::{Limits, Refusal, StartRequest, Writer},
    },
    state::SagaRow,
    time::{Millis, Timestamp},
};

use crate::{chance::Chance, store::Process, trace::BEGINNING};

/// How long a lease lasts; long enough that a few looks may fail.
pub const LEASE: Millis = Millis(4000);
const LOOK_EVERY: Millis = Millis(650);
pub const GRACE: Millis = Millis(600);

/// What a client or a participant asks of a replica.
#[derive(Clone, Debug)]
pub enum Ask {
    Start(Box<StartRequest>),
    Input { saga: SagaId, input: Box<Input> },
}

pub type Answered = Result<SagaRow, Refusal>;

/// What reaches a process.
#[derive(Debug)]
pub enum Message {
    CommitEnded(Result<(), CommitError>),
    CallEnded {
        saga: SagaId,
        step: Arc<str>,
        call: u64,
        started_at: Timestamp,
        result: CallResult,
    },
    /// The streams, or None for each that could not be read.
    Read {
        read: u64,
        streams: Vec<(SagaId, Option<Vec<Recorded>>)>,
    },
    Leases(Option<LeaseReport>),
    /// The unfinished sagas of a shard that was taken.
    Unfinished {
        taken: TakenShard,
        found: Option<Vec<(SagaId, Option<Timestamp>)>>,
    },
    Asked {
        request: u64,
        ask: Ask,
        forwarded: bool,
    },
}

#[derive(Debug)]
pub struct Replica {
    pub process: Process,
    pub runs: bool,
    /// Until when it is stopped, and what came meanwhile.
    pub stopped_until: Option<Timestamp>,
    pub held_back: VecDeque<Message>,
    /// Until when nothing of it reaches the database, nor comes back.
    pub cut_off_until: Option<Timestamp>,
    pub writer: Writer<u64>,
    pub leases: Leases,
    /// Told to stop: begins nothing new.
    pub stopping: bool,
    /// Shards that were taken and whose unfinished sagas are still being read.
    pub awaited: BTreeMap<Shard, Epoch>,
    /// The calls whose ends it waits for.
    pub calls: BTreeMap<u64, SagaId>,
    /// When it will next look by itself.
    pub wake_at: Option<Timestamp>,
    clock: Clock,
}

/// What a process believes about time.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// Its idea of the database's clock, against the database's clock.
    skew_us: i64,
    /// How much its monotonic clock runs fast, in parts per million.
    drift_ppm: i64,
    /// What its monotonic clock showed at the beginning.
    origin_us: i64,
}

impl Clock {
    fn draw(chance: &mut Chance, skew_ms_max: u64) -> Self {
        let signed = |value: u64, middle: u64| i64::try_from(value).unwrap_or(0) - i64::try_from(middle).unwrap_or(0);
        Self {
            skew_us: signed(chance.below(2 * skew_ms_max + 1), skew_ms_max) * 1000,
            drift_ppm: signed(chance.below(2001), 1000),
            origin_us: signed(chance.below(1 << 40), 0),
        }
    }

    fn monotonic(self, now: Timestamp) -> Timestamp {
        let elapsed = now.as_micros() - BEGINNING.as_micros();
        Timestamp::from_micros(self.origin_us + elapsed + elapsed * self.drift_ppm / 1_000_000)
    }

    /// When the monotonic clock will show `at`, rounded up.
    fn when(self, at: Timestamp) -> Timestamp {
        let shown = at.as_micros() - self.origin_us;
        let elapsed = shown - shown * self.drift_ppm / (1_000_000 + self.drift_ppm);
        Timestamp::from_micros(BEGINNING.as_micros() + elapsed + 1)
    }

    fn estimate(self, now: Timestamp) -> Timestamp {
        Timestamp::from_micros(now.as_micros() + self.skew_us)
    }
}

impl Replica {
    #[must_use]
    pub fn new(process: Process, limits: Limits, chance: &mut Chance, skew_ms_max: u64, now: Timestamp) -> Self {
        let clock = Clock::draw(chance, skew_ms_max);
        let lease_limits = LeaseLimits { shards: limits.shards, lease: LEASE, look_every: LOOK_EVERY, grace: GRACE };
        Self {
            process,
            runs: true,
            stopped_until: None,
            held_back: VecDeque::new(),
            cut_off_until: None,
            writer: Writer::new(limits),
            leases: Leases::new(process.to_string(), lease_limits, clock.monotonic(now)),
            stopping: false,
            awaited: BTreeMap::new(),
            calls: BTreeMap::new(),
            wake_at: None,
            clock,
        }
    }

    #[must_use]
    pub fn is_up(&self) -> bool {
        self.runs && self.stopped_until.is_none()
    }

    #[must_use]
    pub fn is_cut_off(&self, now: Timestamp) -> bool {
        self.cut_off_until.is_some_and(|until| until > now)
    }

    /// The database's time, as this process believes it to be.
    #[must_use]
    pub fn estimate(&self, now: Timestamp) -> Timestamp {
        self.clock.estimate(now)
    }

    #[must_use]
    pub fn monotonic(&self, now: Timestamp) -> Timestamp {
        self.clock.monotonic(now)
    }

    #[must_use]
    pub fn skew_ms(&self) -> u64 {
        self.clock.skew_us.unsigned_abs() / 1000
    }

    /// Whether its lease surely lasts, by its own clock.
    #[must_use]
    pub fn may_call(&self, shard: Shard, now: Timestamp) -> bool {
        self.leases.until(shard).is_some_and(|until| self.clock.monotonic(now) < until)
    }

    /// When it must look by itself, in true time and later than now.
    #[must_use]
    pub fn next_wake(&self, now: Timestamp) -> Option<Timestamp> {
        let writer = self.writer.next_wake().map(|at| Timestamp::from_micros(at.as_micros() - self.clock.skew_us));
        let leases = self.leases.next_wake().map(|at| self.clock.when(at));
        let soonest = Timestamp::from_micros(now.as_micros() + 100);
        [writer, leases].into_iter().flatten().min().map(|at| at.max(soonest))
    }
}
