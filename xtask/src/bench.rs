//! `cargo xtask bench`: what is measured is built as its users build it.

use std::{env, ffi::OsString};

use anyhow::{Context, Result};

use crate::{
    postgres,
    run::{cargo, check, command},
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
    check(command(program("release")?).args(arguments))
}

/// Whether the bench works, of the build that the tests have made: the figures say nothing.
///
/// # Errors
///
/// As [`run`]; or a report is missing.
pub fn smoke() -> Result<()> {
    postgres::ensure_installed()?;
    check(cargo().args(["build", "--locked", "--workspace", "--bins"]))?;
    check(command(program("debug")?).arg("--smoke"))
}

/// `cargo run` would choose other features than a build of several packages, and build anew.
fn program(profile: &str) -> Result<OsString> {
    let own = env::current_exe().context("this program's own file cannot be found")?;
    let built = own.ancestors().nth(2).context("this program does not lie in a folder of cargo's")?;
    Ok(built.join(profile).join("skald-bench").into_os_string())
}
