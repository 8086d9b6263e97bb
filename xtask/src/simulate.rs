//! `cargo xtask simulate`: the engine in virtual time, built fast and with its assertions.

use anyhow::Result;

use crate::run::{cargo, check};

/// What CI runs: enough seeds for every fault to meet every other, every single fault in small sagas, and the proof that
/// the simulator notices what it is there for.
const IN_CI: [&str; 5] = ["--seeds", "20000", "--steps", "3", "--mutants"];

/// Runs the simulator with these arguments.
///
/// # Errors
///
/// It does not build, or finds something.
pub fn run(arguments: &[String]) -> Result<()> {
    let mut simulate = cargo();
    simulate.args(["run", "--locked", "--quiet", "--profile", "simulation", "--package", "skald-simulator"]);
    if needs_switches(arguments) {
        simulate.args(["--features", "mutants"]);
    }
    check(simulate.arg("--").args(arguments))
}

/// # Errors
///
/// As [`run`].
pub fn run_in_ci() -> Result<()> {
    run(&IN_CI.map(str::to_owned))
}

/// Whether rules of the engine are to be turned off, which takes another build of it.
fn needs_switches(arguments: &[String]) -> bool {
    arguments.iter().any(|argument| argument.starts_with("--mutant"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_built_with_switches_only_where_they_are_turned() {
        for (arguments, expected) in [
            (&["--mutants"][..], true),
            (&["--replay", "7", "--mutant", "fence"], true),
            (&["--seeds", "20000", "--steps", "3"], false),
        ] {
            let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            assert_eq!(needs_switches(&arguments), expected, "{arguments:?}");
        }
    }
}
