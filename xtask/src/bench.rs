//! `cargo xtask bench`: what is measured is built as it is deployed.

use std::{env, ffi::OsString};

use anyhow::{Context, Result};

use crate::{
    postgres,
    run::{cargo, check, command},
};

/// The profile that the images are built with.
const DEPLOYED: &str = "dist";

/// Builds Skald as it is deployed and the bench optimised, and runs the bench with these arguments.
///
/// # Errors
///
/// Something is missing or does not build, or an answer is wrong.
pub fn run(arguments: &[String]) -> Result<()> {
    postgres::ensure_installed()?;
    let build = |profile: &str, program: &str| {
        check(cargo().args(["build", "--locked", "--profile", profile, "--package", program, "--bin", program]))
    };
    build("release", "skald-bench")?;
    let mut bench = command(program("release", "skald-bench")?);
    bench.args(arguments);
    if !arguments.iter().any(|argument| argument.starts_with("--skald")) {
        build(DEPLOYED, "skald")?;
        bench.arg("--skald").arg(program(DEPLOYED, "skald")?);
    }
    check(&mut bench)
}

/// Whether the bench works, of the build that the tests have made: the figures say nothing.
///
/// # Errors
///
/// As [`run`]; or a report is missing.
pub fn smoke() -> Result<()> {
    postgres::ensure_installed()?;
    check(cargo().args(["build", "--locked", "--workspace", "--bins"]))?;
    check(command(program("debug", "skald-bench")?).arg("--smoke"))
}

/// `cargo run` would choose other features than a build of several packages, and build anew.
fn program(profile: &str, name: &str) -> Result<OsString> {
    let own = env::current_exe().context("this program's own file cannot be found")?;
    let built = own.ancestors().nth(2).context("this program does not lie in a folder of cargo's")?;
    Ok(built.join(profile).join(name).into_os_string())
}
