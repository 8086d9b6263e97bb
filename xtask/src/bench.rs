//! `cargo xtask bench`: what is measured is built as its users build it.

use anyhow::Result;

use crate::{
    postgres,
    run::{cargo, check},
};

/// Builds Skald and the bench optimised, and runs the bench with these arguments.
///
/// # Errors
///
/// Something is missing or does not build, or an answer is wrong.
pub fn run(arguments: &[String]) -> Result<()> {
    postgres::ensure_installed()?;
    // In one go, so that what both are made of is built once.
    let what = ["--package", "skald", "--bin", "skald", "--package", "skald-bench", "--bin", "skald-bench"];
    check(cargo().args(["build", "--locked", "--release"]).args(what))?;
    let mut bench = cargo();
    bench.args(["run", "--locked", "--quiet", "--release", "--package", "skald-bench", "--"]);
    check(bench.args(arguments))
}
