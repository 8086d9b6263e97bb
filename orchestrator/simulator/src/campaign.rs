//! Many seeds, over all cores.

use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex, Once,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    catalog::Catalog,
    faults::Modes,
    judgement::{Rule, Violation},
    mutants::Mutant,
    report::Totals,
    world::{self, Outcome, Plan, Seed},
};

/// Seeds that a thread takes at a time.
const PORTION: u64 = 32;
/// Further failures tell little.
const FAILURES_MAX: usize = 3;

#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    pub first: u64,
    pub seeds: u64,
    pub threads: usize,
    pub modes: Modes,
    pub mutant: Option<Mutant>,
    /// Every so many seeds one is run twice, and must happen the same way.
    pub twice_every: u64,
    /// Print how far it is every so often.
    pub progress_every: Option<Duration>,
}

/// A seed that broke a rule.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub violation: Violation,
}

/// Runs all seeds; stops early when enough have failed.
#[must_use]
pub fn run(campaign: Campaign) -> Totals {
    let catalog = Catalog::default();
    let next = AtomicU64::new(0);
    let enough = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..campaign.threads.max(1) {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let from = next.fetch_add(PORTION, Ordering::Relaxed);
                    if from >= campaign.seeds {
                        break;
                    }
                    let portion = run_portion(campaign, from..campaign.seeds.min(from + PORTION), &catalog);
                    let mut all = totals.lock().expect("nothing panics while it holds this lock");
                    all.add(portion);
                    enough.store(all.failures.len() >= FAILURES_MAX, Ordering::Relaxed);
                    all.tell_progress(campaign, begun);
                }
            });
        }
    });
    let mut totals = totals.into_inner().expect("nothing panics while it holds this lock");
    totals.failures.sort_by_key(|failure| failure.seed);
    totals.took = begun.elapsed();
    totals
}

fn run_portion(campaign: Campaign, numbers: core::ops::Range<u64>, catalog: &Catalog) -> Totals {
    let mut totals = Totals::default();
    for number in numbers {
        let seed = campaign.first + number;
        let run = || run_seed(Seed { number: seed, modes: campaign.modes, mutant: campaign.mutant }, catalog, false);
        let outcome = run();
        if number % campaign.twice_every == 0 {
            totals.twice += 1;
            let again = run();
            if again.hash != outcome.hash {
                totals.different.push(seed);
            }
        }
        if let Some(violation) = outcome.violation.clone() {
            totals.failures.push(Failure { seed, violation });
        }
        totals.count(&outcome);
    }
    totals
}

/// Runs one seed. A panic of the engine is a violation like any other.
#[must_use]
pub fn run_seed(seed: Seed, catalog: &Catalog, readable: bool) -> Outcome {
    guarded(Plan::of_seed(seed, catalog, readable))
}

/// Runs a plan; a panic becomes the outcome's violation.
#[must_use]
pub fn guarded(plan: Plan) -> Outcome {
    keep_panics_quiet();
    panic::catch_unwind(AssertUnwindSafe(|| world::run(plan))).unwrap_or_else(|_| {
        let what = LAST_PANIC.with_borrow(Clone::clone);
        Outcome::broken(Violation { rule: Rule::Panic, what })
    })
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The message of a panic is kept for the report instead of being printed in the middle of it.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            LAST_PANIC.set(panic.to_string());
            if thread::current().name().is_some_and(|name| name != "main") {
                before(panic);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(seeds: u64, mutant: Option<Mutant>) -> Campaign {
        let modes = Modes::Both;
        Campaign { first: 0, seeds, threads: 2, modes, mutant, twice_every: 10, progress_every: None }
    }

    fn of_seed(number: u64, mutant: Option<Mutant>, readable: bool) -> Outcome {
        run_seed(Seed { number, modes: Modes::Both, mutant }, &Catalog::default(), readable)
    }

    #[test]
    fn the_invariants_hold_in_every_seed_and_each_replays_exactly() {
        let totals = run(campaign(200, None));
        assert_eq!(totals.complaints(campaign(200, None)), Vec::<String>::new());
        assert_eq!((totals.seeds, totals.twice), (200, 20));
        assert!(totals.ends.completed > 200 && totals.ends.compensated > 100, "{:?}", totals.ends);
    }

    #[test]
    fn different_seeds_happen_differently() {
        let hashes: std::collections::BTreeSet<u64> = (0..20).map(|seed| of_seed(seed, None, false).hash).collect();
        assert_eq!(hashes.len(), 20);
    }

    #[test]
    fn reading_along_changes_nothing() {
        for seed in 0..10 {
            let (read, unread) = (of_seed(seed, None, true), of_seed(seed, None, false));
            assert_eq!(read.hash, unread.hash, "seed {seed}");
            assert!(unread.lines.is_empty() && read.lines.len() as u64 == read.happenings);
        }
    }

    #[test]
    fn what_is_taken_away_is_noticed_and_told_with_the_command_that_shows_it_again() {
        let of_engine = |mutant: &Mutant| {
            matches!(mutant, Mutant::MaybeExecuted | Mutant::Ahead | Mutant::ReverseOrder | Mutant::FirstFailure)
        };
        for mutant in Mutant::ALL.into_iter().filter(|mutant| !of_engine(mutant)) {
            let totals = run(campaign(1000, Some(mutant)));
            let failure = totals.failures.first().unwrap_or_else(|| panic!("nobody misses the {}", mutant.name()));
            let complaint = &totals.complaints(campaign(1000, Some(mutant)))[0];
            let command = format!("cargo xtask simulate --replay {} --mutant {}", failure.seed, mutant.name());
            assert!(complaint.contains(&command), "{complaint}");
            let again = of_seed(failure.seed, Some(mutant), true);
            assert_eq!(again.violation.as_ref(), Some(&failure.violation));
        }
    }
}
