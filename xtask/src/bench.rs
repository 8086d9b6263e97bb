//! `cargo xtask bench`: what is measured is built as it is deployed.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    dist, postgres,
    run::{cargo, check, command},
};

/// Builds Skald as it is deployed and the bench optimised, and runs the bench with these arguments.
///
/// # Errors
///
/// Something is missing or does not build, or an answer is wrong.
pub fn run(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| argument.starts_with("--skald")) {
        postgres::ensure_installed()?;
        return check(optimised()?.args(arguments));
    }
    load(&dist::build()?, arguments)
}

/// Runs the bench with this Skald.
///
/// # Errors
///
/// The bench does not build, or an answer is wrong.
pub fn load(skald: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<()> {
    check(optimised()?.args(arguments).arg("--skald").arg(skald))
}

fn optimised() -> Result<Command> {
    check(cargo().args(["build", "--locked", "--release", "--package", "skald-bench"]))?;
    Ok(command(program("release", "skald-bench")?))
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
