//! What came of a run: for a machine as JSON, for people as a short text.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use serde::Serialize;

use super::{
    judge::Judged,
    plan::{Kind, Order, Plan},
};

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
    /// Sagas that were parked when the faults had ended, and then retried.
    pub parked: usize,
    pub takeovers: Vec<Takeover>,
    /// Commits of replicas that had lost their shards, which the database refused.
    pub late_commits_fenced: usize,
    /// How often a replica ended instead of listening, e.g. because it found no database.
    pub failed_starts: usize,
    #[serde(flatten)]
    pub judged: Judged,
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

    /// The report on a run that was judged so.
    pub fn report(&self, plan: &Plan, mut judged: Judged, parked: usize, took: Duration) -> Report {
        let found = self.found().clone();
        judged.violations.extend(found.violations);
        let faults = plan.per_kind().into_iter().map(|(kind, planned)| {
            let injected = found.injected.get(&kind).copied().unwrap_or(0);
            (kind, Count { planned, injected })
        });
        Report {
            order: plan.order,
            rerun: plan.order.command(),
            seconds: took.as_secs_f64(),
            faults: faults.collect(),
            missed: found.missed,
            parked,
            takeovers: found.takeovers,
            late_commits_fenced: found.fenced,
            failed_starts: found.failed_starts,
            judged,
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
        let shown = self.judged.violations.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join("\n");
        let count = self.judged.violations.len();
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
        let Judged { starts_acknowledged, starts_unknown, answers, .. } = &self.judged;
        writeln!(
            f,
            "  starts       {starts_acknowledged} acknowledged, {starts_unknown} unknown; answers {answers:?}"
        )?;
        let (compensated, parked) = (self.judged.operators_compensated, self.parked);
        writeln!(f, "  operators    {compensated} sagas compensated, {parked} parked ones retried")?;
        writeln!(f, "  ends         {:?} of {:?}", self.judged.sagas_per_end, self.judged.sagas_per_mode)?;
        let mut takeovers: Vec<u64> = self.takeovers.iter().map(|takeover| takeover.ms).collect();
        takeovers.sort_unstable();
        if let (Some(fastest), Some(slowest)) = (takeovers.first(), takeovers.last()) {
            let (count, median) = (takeovers.len(), takeovers[takeovers.len() / 2]);
            writeln!(f, "  takeovers    {count}: {fastest} ms at best, {median} ms median, {slowest} ms at worst")?;
        }
        writeln!(f, "  late commits {} fenced off", self.late_commits_fenced)?;
        writeln!(
            f,
            "  silence      {} ms in which clients waited and none was answered, at worst",
            self.judged.longest_silence_ms
        )?;
        writeln!(f, "  log          {} events followed as they came", self.judged.events_followed)?;
        if self.failed_starts > 0 {
            writeln!(f, "  restarts     {} times a replica ended instead of listening", self.failed_starts)?;
        }
        for reason in &self.missed {
            writeln!(f, "  not made     {reason}")?;
        }
        writeln!(f, "  violations   {}", self.judged.violations.len())?;
        write!(f, "  again with   {}", self.rerun)
    }
}
