//! Dependencies: their licences, which are banned, where they come from, known vulnerabilities (`deny.toml`).

use anyhow::{Context, Result};

use crate::run::{cargo, check, skipped, succeeds};

/// Pinned, so that a new release cannot break CI on its own.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// # Errors
///
/// cargo-deny cannot be installed, or finds something.
pub fn check_all() -> Result<()> {
    install()?;
    let what = ["licenses", "bans", "sources"];
    check(cargo().args(["deny", "--locked", "check", "--hide-inclusion-graph"]).args(what))?;
    check_advisories()
}

fn install() -> Result<()> {
    if succeeds(cargo().args(["deny", "--version"])) {
        return Ok(());
    }
    let version = ["--version", CARGO_DENY_VERSION];
    check(cargo().args(["install", "cargo-deny", "--locked"]).args(version)).context("cargo-deny is missing")
}

/// The database of advisories lies in a Git repository that not every machine reaches.
fn check_advisories() -> Result<()> {
    if succeeds(cargo().args(["deny", "--locked", "fetch", "db"])) {
        return check(cargo().args(["deny", "--locked", "check", "--disable-fetch", "advisories"]));
    }
    skipped(
        "security advisories",
        "The advisory database cannot be fetched from here; run `cargo deny check advisories` where it can",
    );
    Ok(())
}
