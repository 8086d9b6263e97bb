//! What came of a run: for a machine as JSON, for people as a short text.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use serde::Serialize;

use super::plan::{Kind, Order, Plan};

/// A run that made fewer of its faults proves too little, and fails.
const INJECTED_MIN: f64 = 0.8;
const SHOWN_MAX: usize = 20;

/// What is found while a run goes on.
#[derive(Debug, Default)]
pub struct Findings(Mutex<Found>);

#[derive(Clone, Debug, Default)]
struct Found {
    injected: BTreeMap<Kind, usize>,
    missed: Vec<String>,
    takeovers: Vec<Takeover>,
    fenced: usize,
    failed_starts: usize,
    violations: Vec<String>,
}

/// From the end of an owner until others had all of its shards.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Takeover {
    pub after: Kind,
    pub ms: u64,
}

/// Everything that is worth telling.
#[derive(Debug, Serialize)]
pub struct Report {
    pub order: Order,
    pub rerun: String,
    pub seconds: f64,
    pub faults: BTreeMap<Kind, Count>,
    /// Why planned faults do not count.
    pub missed: Vec<String>,
    pub sagas_per_end: BTreeMap<String, usize>,
    pub starts_acknowledged: usize,
    /// Starts without a key that nobody can know about.
    pub starts_unknown: usize,
    pub answers: BTreeMap<String, usize>,
    pub operators_compensated: usize,
    /// Sagas that were parked when the faults had ended, and then retried.
    pub parked: usize,
    pub takeovers: Vec<Takeover>,
    /// Commits of replicas that had lost their shards, which the database refused.
    pub late_commits_fenced: usize,
    pub longest_silence_ms: u64,
    pub failed_starts: usize,
    pub events_followed: usize,
    pub violations: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Count {
    pub planned: usize,
    pub injected: usize,
}

impl Findings {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }

    pub fn made(&self, kind: Kind, result: Result<(), String>) {
        match result {
            Ok(()) => *self.found().injected.entry(kind).or_default() += 1,
            Err(reason) => {
                println!("not counted: {kind:?}: {reason}");
                self.found().missed.push(format!("{kind:?}: {reason}"));
            }
        }
    }

    pub fn taken_over(&self, after: Kind, within: Duration) {
        let ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        self.found().takeovers.push(Takeover { after, ms });
    }

    pub fn fenced(&self) {
        self.found().fenced += 1;
    }

    pub fn failed_starts(&self, count: usize) {
        self.found().failed_starts += count;
    }

    pub fn violation(&self, text: String) {
        println!("VIOLATION: {text}");
        self.found().violations.push(text);
    }

    /// The report on a run as far as this knows it.
    pub fn report(&self, plan: &Plan) -> Report {
        let found = self.found().clone();
        let faults = plan.per_kind().into_iter().map(|(kind, planned)| {
            let injected = found.injected.get(&kind).copied().unwrap_or(0);
            (kind, Count { planned, injected })
        });
        Report {
            order: plan.order,
            rerun: plan.order.command(),
            seconds: 0.0,
            faults: faults.collect(),
            missed: found.missed,
            sagas_per_end: BTreeMap::new(),
            starts_acknowledged: 0,
            starts_unknown: 0,
            answers: BTreeMap::new(),
            operators_compensated: 0,
            parked: 0,
            takeovers: found.takeovers,
            late_commits_fenced: found.fenced,
            longest_silence_ms: 0,
            failed_starts: found.failed_starts,
            events_followed: 0,
            violations: found.violations,
        }
    }
}

impl Order {
    /// The command that makes the same plan again.
    pub fn command(&self) -> String {
        let Self { seed, sagas, kills, restarts, stops } = self;
        format!("cargo xtask chaos --sagas {sagas} --kills {kills} --restarts {restarts} --stops {stops} --seed {seed}")
    }
}

impl Report {
    fn total(&self) -> Count {
        let add = |sum: Count, count: &Count| Count {
            planned: sum.planned + count.planned,
            injected: sum.injected + count.injected,
        };
        self.faults.values().fold(Count::default(), add)
    }

    /// # Panics
    ///
    /// When an invariant is violated, or too few of the planned faults were made.
    #[track_caller]
    pub fn check(&self) {
        let shown = self.violations.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join("\n");
        let count = self.violations.len();
        assert!(count == 0, "{count} violations; to run it again: {}\n{shown}", self.rerun);
        let Count { planned, injected } = self.total();
        let enough = (planned as f64 * INJECTED_MIN).ceil() as usize;
        assert!(injected >= enough, "only {injected} of {planned} faults were made: {:#?}", self.missed);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { planned, injected } = self.total();
        writeln!(f, "chaos with seed {}: {:.0} s", self.order.seed, self.seconds)?;
        writeln!(f, "  faults       {injected} of {planned} made")?;
        for (kind, Count { planned, injected }) in &self.faults {
            writeln!(f, "    {:<28} {injected} of {planned}", format!("{kind:?}"))?;
        }
        let (acknowledged, unknown) = (self.starts_acknowledged, self.starts_unknown);
        writeln!(f, "  starts       {acknowledged} acknowledged, {unknown} unknown; answers {:?}", self.answers)?;
        writeln!(
            f,
            "  operators    {} sagas compensated, {} parked ones retried",
            self.operators_compensated, self.parked
        )?;
        writeln!(f, "  ends         {:?}", self.sagas_per_end)?;
        let mut takeovers: Vec<u64> = self.takeovers.iter().map(|takeover| takeover.ms).collect();
        takeovers.sort_unstable();
        if let (Some(fastest), Some(slowest)) = (takeovers.first(), takeovers.last()) {
            let (count, median) = (takeovers.len(), takeovers[takeovers.len() / 2]);
            writeln!(f, "  takeovers    {count}: {fastest} ms at best, {median} ms median, {slowest} ms at worst")?;
        }
        writeln!(f, "  late commits {} fenced off", self.late_commits_fenced)?;
        writeln!(f, "  silence      {} ms without an acknowledgement, at worst", self.longest_silence_ms)?;
        writeln!(f, "  log          {} events followed as they came", self.events_followed)?;
        if self.failed_starts > 0 {
            writeln!(f, "  restarts     {} times a replica ended instead of listening", self.failed_starts)?;
        }
        for reason in &self.missed {
            writeln!(f, "  not made     {reason}")?;
        }
        writeln!(f, "  violations   {}", self.violations.len())?;
        write!(f, "  again with   {}", self.rerun)
    }
}
