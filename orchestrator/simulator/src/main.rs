//! The simulator's command line; `cargo xtask simulate` runs it.

use std::{process::ExitCode, thread, time::Duration};

use clap::Parser;
use skald_simulator::{
    campaign::{self, Campaign},
    catalog::Catalog,
    exhaustive::{self, Case},
    faults::Modes,
    mutants::{self, Mutant},
    world::{Outcome, Seed},
};

/// Within how many seeds a mutant must be noticed.
const MUTANT_SEEDS: u64 = 1000;

#[derive(Debug, Parser)]
#[command(name = "simulate", about = "Runs the engine in virtual time under every fault and checks its invariants")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run every single fault at every point of definitions with up to this many steps.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=5))]
    steps: Option<u8>,
    /// As `--steps`, with 3 steps if it does not say how many.
    #[arg(long)]
    exhaustive: bool,
    /// Show one seed, happening by happening.
    #[arg(long, conflicts_with_all = ["seeds", "steps", "exhaustive", "mutants"])]
    replay: Option<u64>,
    /// Show one history of the enumeration, by the name that its failure gave.
    #[arg(long, conflicts_with_all = ["seeds", "steps", "exhaustive", "mutants", "replay"])]
    case: Option<Case>,
    /// Take away in turn what the invariants depend on, and see that it is noticed.
    #[arg(long)]
    mutants: bool,
    /// Run or replay seeds with this mutant.
    #[arg(long)]
    mutant: Option<Mutant>,
    /// Only sagas of this mode: orchestrated, choreographed, or both.
    #[arg(long, default_value = "both")]
    mode: Modes,
    /// Threads; one per core if it does not say.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(why) = mutants::set_engine(arguments.mutant) {
        eprintln!("simulate: {why}");
        return ExitCode::FAILURE;
    }
    let good = match (arguments.replay, &arguments.case) {
        (Some(seed), _) => {
            let catalog = Catalog::default();
            let number = Seed { number: seed, modes: arguments.mode, mutant: arguments.mutant };
            show(&format!("seed {seed}"), |readable| campaign::run_seed(number, &catalog, readable))
        }
        (None, Some(case)) => show_case(case),
        (None, None) => run_all(&arguments),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_all(arguments: &Arguments) -> bool {
    let threads = arguments.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let steps = arguments.steps.or(arguments.exhaustive.then_some(3));
    let seeds = arguments.seeds.or((steps.is_none() && !arguments.mutants).then_some(2000));
    let mut good = true;
    if let Some(steps) = steps {
        good &= run_exhaustive(steps.into(), arguments.mode, threads);
    }
    if let Some(seeds) = seeds {
        good &= run_seeds(arguments, seeds, threads);
    }
    if arguments.mutants {
        good &= run_mutants(threads);
    }
    good
}

fn run_seeds(arguments: &Arguments, seeds: u64, threads: usize) -> bool {
    let campaign = Campaign {
        first: arguments.first,
        seeds,
        threads,
        modes: arguments.mode,
        mutant: arguments.mutant,
        twice_every: 100,
        progress_every: Some(Duration::from_secs(10)),
    };
    let totals = campaign::run(campaign);
    totals.print();
    let complaints = totals.complaints(campaign);
    for complaint in &complaints {
        println!("\nFAILED {complaint}");
    }
    complaints.is_empty()
}

fn run_exhaustive(steps: usize, modes: Modes, threads: usize) -> bool {
    let counts = exhaustive::run(steps, modes, threads);
    println!(
        "enumeration up to {steps} steps: {} definitions, {} paths, {} points, {} histories, {} happenings in {:.1} s",
        counts.definitions,
        counts.paths,
        counts.points,
        counts.histories,
        counts.happenings,
        counts.took.as_secs_f64()
    );
    for (case, violation) in counts.failures.iter().take(5) {
        println!("\nFAILED {case}: {violation}\n  see it again: cargo xtask simulate --case {case}");
    }
    counts.failures.is_empty()
}

fn run_mutants(threads: usize) -> bool {
    let mut all_noticed = true;
    for mutant in Mutant::ALL {
        if let Err(why) = mutants::set_engine(Some(mutant)) {
            eprintln!("simulate: {why}");
            return false;
        }
        let campaign = Campaign {
            first: 0,
            seeds: MUTANT_SEEDS,
            threads,
            modes: Modes::Both,
            mutant: Some(mutant),
            twice_every: MUTANT_SEEDS,
            progress_every: None,
        };
        let totals = campaign::run(campaign);
        match totals.failures.first() {
            Some(failure) => {
                println!("without {:<16} noticed at seed {}: {}", mutant.name(), failure.seed, failure.violation);
            }
            None => {
                println!("without {:<16} SURVIVED {} seeds", mutant.name(), totals.seeds);
                all_noticed = false;
            }
        }
    }
    mutants::set_engine(None).is_ok() && all_noticed
}

fn show_case(case: &Case) -> bool {
    if case.run(false).is_none() {
        eprintln!("simulate: there is no definition `{}` with up to 5 steps", case.definition);
        return false;
    }
    show(&case.to_string(), |readable| case.run(readable).expect("its definition was found"))
}

/// Shows a run, happening by happening, and checks that it happens the same way twice.
fn show(name: &str, run: impl Fn(bool) -> Outcome) -> bool {
    let outcome = run(true);
    for line in &outcome.lines {
        println!("{line}");
    }
    let again = run(false);
    println!("\n{name}: {} happenings, hash {:016x}, again {:016x}", outcome.happenings, outcome.hash, again.hash);
    match &outcome.violation {
        Some(violation) => println!("FAILED {violation}"),
        None => println!("every invariant held"),
    }
    outcome.violation.is_none() && outcome.hash == again.hash
}
