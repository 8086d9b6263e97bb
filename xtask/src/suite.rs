//! `cargo xtask test`: every test there is, with what they need.

use anyhow::{Result, ensure};

use crate::{
    postgres::{self, apt_install, may_install},
    redis,
    run::{cargo, check, command, succeeds, watch},
};

/// Counts over all test binaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Builds everything once and runs the tests whose name holds `filter`; all of them without one.
///
/// # Errors
///
/// Something is missing or does not build, a test fails, or none ran.
pub fn run(filter: &[String]) -> Result<()> {
    postgres::ensure_installed()?;
    redis::ensure_installed()?;
    ensure_tutorial_runs()?;
    // The end-to-end tests start the real programs, which `cargo test` alone would not all build.
    check(cargo().args(["build", "--locked", "--workspace", "--bins"]))?;
    let mut tally = Tally::default();
    let mut test = cargo();
    test.args(["test", "--locked", "--workspace", "--no-fail-fast", "--"]).args(filter);
    let passed = watch(&mut test, |line| tally.add(line))?;
    println!("\n{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.ignored);
    ensure!(passed && tally.failed == 0, "the tests failed");
    ensure!(tally.passed > 0, "no test ran");
    Ok(())
}

/// What the tutorial in docs/EVENTS.md asks its readers to have, and a test runs it.
fn ensure_tutorial_runs() -> Result<()> {
    for program in ["bash", "curl", "python3"] {
        let is_installed = || succeeds(command(program).arg("--version"));
        if !is_installed() && may_install() {
            apt_install(&[program])?;
        }
        ensure!(is_installed(), "the tests need {program}: install it and have it in PATH");
    }
    Ok(())
}

/// Runs the tests that measure, one after the other, and prints what they measured.
///
/// # Errors
///
/// Something is missing or does not build, or one cannot measure.
pub fn figures(release: bool) -> Result<()> {
    postgres::ensure_installed()?;
    let profile: &[&str] = if release { &["--release"] } else { &[] };
    check(cargo().args(["build", "--locked", "--workspace", "--bins"]).args(profile))?;
    let mut test = cargo();
    test.args(["test", "--locked", "--package", "skald", "--test", "e2e"]).args(profile);
    test.args(["--", "figures::", "--ignored", "--nocapture", "--test-threads", "1"]);
    let mut figures = Vec::new();
    let measured = watch(&mut test, |line| figures.extend(line.split_once("figure: ").map(|(_, row)| row.to_owned())))?;
    ensure!(measured, "the measurements failed");
    println!("\n{}", figures.concat());
    Ok(())
}

/// Has the test that guards the committed specification write it instead.
///
/// # Errors
///
/// It does not build, or the test fails all the same.
pub fn write_openapi() -> Result<()> {
    check(cargo().args(["test", "--package", "skald", "--bin", "skald", "openapi"]).env("UPDATE_OPENAPI", "1"))
}

impl Tally {
    /// Takes in one line of a test binary's output.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        for part in result.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let Some(count) = words.next().and_then(|word| word.parse::<u64>().ok()) else { continue };
            match words.next() {
                Some("passed") => self.passed += count,
                Some("failed") => self.failed += count,
                Some("ignored") => self.ignored += count,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tally_adds_up_the_closing_lines_only() {
        let mut tally = Tally::default();
        for line in [
            "test storage::a_commit_is_fenced ... ok\n",
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 1 filtered out; finished in 0.10s\n",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 7.00s\n",
        ] {
            tally.add(line);
        }
        assert_eq!(tally, Tally { passed: 13, failed: 2, ignored: 3 });
    }
}
