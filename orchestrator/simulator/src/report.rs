//! Sums over many runs, and how they are told.

use std::time::{Duration, Instant};

use crate::{
    campaign::{Campaign, Failure},
    faults::{Fault, Tally},
    watch::Violation,
    world::{Commits, Ends, Outcome},
};

/// Below this many seeds it may be chance that a fault never happened.
pub const COVERAGE_FROM: u64 = 1000;

#[derive(Debug, Default)]
pub struct Totals {
    pub seeds: u64,
    pub happenings: u64,
    pub checks: u64,
    pub twice: u64,
    pub faults: Tally,
    pub ends: Ends,
    pub commits: Commits,
    pub failures: Vec<Failure>,
    /// Seeds that did not happen the same way twice.
    pub different: Vec<u64>,
    pub took: Duration,
    told: u64,
}

impl Totals {
    pub fn count(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.happenings += outcome.happenings;
        self.checks += outcome.checks;
        self.faults.add(&outcome.faults);
        self.ends.add(outcome.ends);
        self.commits.add(outcome.commits);
    }

    pub fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.happenings += other.happenings;
        self.checks += other.checks;
        self.twice += other.twice;
        self.faults.add(&other.faults);
        self.ends.add(other.ends);
        self.commits.add(other.commits);
        self.failures.extend(other.failures);
        self.different.extend(other.different);
    }

    /// Faults that never happened, once there were seeds enough.
    #[must_use]
    pub fn missed(&self) -> Vec<Fault> {
        if self.seeds < COVERAGE_FROM { Vec::new() } else { self.faults.never().collect() }
    }

    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failures.is_empty() && self.different.is_empty() && self.missed().is_empty()
    }

    pub fn tell_progress(&mut self, campaign: Campaign, begun: Instant) {
        let Some(every) = campaign.progress_every else { return };
        let turns = begun.elapsed().as_secs() / every.as_secs().max(1);
        if turns > self.told {
            self.told = turns;
            let rate = self.seeds as f64 / begun.elapsed().as_secs_f64();
            eprintln!("{} of {} seeds, {rate:.0} seeds/s, {} failed", self.seeds, campaign.seeds, self.failures.len());
        }
    }

    pub fn print(&self) {
        let rate = self.seeds as f64 / self.took.as_secs_f64().max(1e-9);
        println!("seeds       {} in {:.1} s ({rate:.0} seeds/s), {} run twice", self.seeds, self.took.as_secs_f64(), self.twice);
        println!("happenings  {} ({} a seed)", self.happenings, self.happenings / self.seeds.max(1));
        println!("judgements  {}", self.checks);
        let Ends { completed, compensated, abandoned, parked } = self.ends;
        println!("sagas       {completed} completed, {compensated} compensated, {abandoned} abandoned, {parked} parked");
        let Commits { applied, fenced, refused, not_applied, in_doubt } = self.commits;
        println!(
            "commits     {applied} applied, {fenced} fenced, {refused} refused, {not_applied} not applied, {in_doubt} in doubt"
        );
        println!("faults");
        for fault in Fault::ALL {
            println!("  {:>9}  {}", self.faults.of(*fault), fault.name());
        }
    }

    /// What is wrong, and how to see it again.
    pub fn print_failures(&self, extra: &str) {
        for Failure { seed, violation } in &self.failures {
            println!("\nFAILED seed {seed}: {}", told(violation));
            println!("  see it again: cargo xtask simulate --replay {seed}{extra}");
        }
        for seed in &self.different {
            println!("\nFAILED seed {seed}: it did not happen the same way twice");
        }
        for fault in self.missed() {
            println!("\nFAILED coverage: `{}` never happened", fault.name());
        }
    }
}

#[must_use]
pub fn told(violation: &Violation) -> String {
    format!("{}: {}", violation.rule, violation.what)
}

impl Ends {
    pub fn add(&mut self, other: Self) {
        self.completed += other.completed;
        self.compensated += other.compensated;
        self.abandoned += other.abandoned;
        self.parked += other.parked;
    }
}

impl Commits {
    pub fn add(&mut self, other: Self) {
        self.applied += other.applied;
        self.fenced += other.fenced;
        self.refused += other.refused;
        self.not_applied += other.not_applied;
        self.in_doubt += other.in_doubt;
    }
}

impl Outcome {
    /// Of a run that could not be ended.
    #[must_use]
    pub fn broken(violation: Violation) -> Self {
        Self {
            hash: 0,
            violation: Some(violation),
            happenings: 0,
            checks: 0,
            faults: Tally::default(),
            ends: Ends::default(),
            commits: Commits::default(),
            points: Vec::new(),
            lines: Vec::new(),
        }
    }
}
