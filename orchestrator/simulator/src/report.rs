//! Sums over many runs, and how they are told.

use std::time::{Duration, Instant};

use crate::{
    campaign::{Campaign, Failure},
    faults::{Fault, Modes, Tally},
    judgement::{Judgements, Rule, Violation},
    world::{Commits, Ends, Outcome},
};

/// Below this many seeds it may be chance that a fault never happened.
pub const COVERAGE_FROM: u64 = 1000;

#[derive(Debug, Default)]
pub struct Totals {
    pub seeds: u64,
    pub happenings: u64,
    pub judgements: Judgements,
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
        self.judgements.add(&outcome.judgements);
        self.faults.add(&outcome.faults);
        self.ends.add(outcome.ends);
        self.commits.add(outcome.commits);
    }

    pub fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.happenings += other.happenings;
        self.judgements.add(&other.judgements);
        self.twice += other.twice;
        self.faults.add(&other.faults);
        self.ends.add(other.ends);
        self.commits.add(other.commits);
        self.failures.extend(other.failures);
        self.different.extend(other.different);
    }

    /// Faults that never happened, once there were seeds enough.
    #[must_use]
    pub fn missed(&self, modes: Modes) -> Vec<Fault> {
        let never = self.faults.never().filter(|fault| fault.happens_in(modes));
        if self.seeds < COVERAGE_FROM { Vec::new() } else { never.collect() }
    }

    /// Rules that nothing ever put to the test, once there were seeds enough.
    #[must_use]
    pub fn unjudged(&self, modes: Modes) -> Vec<Rule> {
        let never = Rule::JUDGED.into_iter().filter(|rule| self.judgements.of(*rule) == 0 && rule.is_of(modes));
        if self.seeds < COVERAGE_FROM { Vec::new() } else { never.collect() }
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
        println!(
            "seeds       {} in {:.1} s ({rate:.0} seeds/s), {} run twice",
            self.seeds,
            self.took.as_secs_f64(),
            self.twice
        );
        println!("happenings  {} ({} a seed)", self.happenings, self.happenings / self.seeds.max(1));
        let Ends { completed, compensated, abandoned, parked } = self.ends;
        println!(
            "sagas       {completed} completed, {compensated} compensated, {abandoned} abandoned, {parked} parked"
        );
        let Commits { applied, fenced, refused, not_applied, in_doubt } = self.commits;
        println!(
            "commits     {applied} applied, {fenced} fenced, {refused} refused, {not_applied} not applied, {in_doubt} in doubt"
        );
        println!("judged");
        for rule in Rule::JUDGED {
            println!("  {:>9}  {rule}", self.judgements.of(rule));
        }
        println!("faults and what they led to");
        for fault in Fault::ALL {
            println!("  {:>9}  {}", self.faults.of(*fault), fault.name());
        }
    }

    /// What is wrong, and how to see it again.
    #[must_use]
    pub fn complaints(&self, campaign: Campaign) -> Vec<String> {
        let Campaign { modes, mutant, .. } = campaign;
        let with_mode = if modes == Modes::Both { String::new() } else { format!(" --mode {}", modes.name()) };
        let with_mutant = mutant.map_or(String::new(), |mutant| format!(" --mutant {}", mutant.name()));
        let with = with_mode + &with_mutant;
        let failed = self.failures.iter().map(|Failure { seed, violation }| {
            format!("seed {seed}: {violation}\n  see it again: cargo xtask simulate --replay {seed}{with}")
        });
        let different = self.different.iter().map(|seed| format!("seed {seed} did not happen the same way twice"));
        let missed = self.missed(modes).into_iter().map(|fault| format!("coverage: `{}` never happened", fault.name()));
        let rules = self.unjudged(modes).into_iter().map(|rule| format!("coverage: {rule} was never judged"));
        failed.chain(different).chain(missed).chain(rules).collect()
    }
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
            judgements: Judgements::default(),
            faults: Tally::default(),
            ends: Ends::default(),
            commits: Commits::default(),
            points: Vec::new(),
            lines: Vec::new(),
        }
    }
}
