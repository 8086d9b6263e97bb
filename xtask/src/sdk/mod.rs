//! `cargo xtask sdk`: from the specification to clients, and whether all of it is up to date and works.
//!
//! `openapi/skald.json` (3.1, written by the service) becomes `openapi/skald-3.0.json`, and both become the generated part
//! of each client in `sdks/`. The rest of a client is written by hand; its tests run here too, and its example against a
//! real server. Every tool is pinned and goes into `target/sdk`.

mod breaking;
mod downgrade;
mod generate;
mod languages;
mod tools;
mod tree;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::{
    run::{check, command, root},
    suite,
};

/// What the service says of itself.
const SPECIFICATION: &str = "openapi/skald.json";
/// The same in the words of 3.0.
const SPECIFICATION_3_0: &str = "openapi/skald-3.0.json";

#[derive(Clone, Copy, Debug, Args)]
pub struct Options {
    /// Change nothing; fail if something would change, or the specification has flaws. Tells what breaks clients
    #[arg(long, conflicts_with = "test")]
    check: bool,
    /// Run each client's tests, and its example against a real server
    #[arg(long)]
    test: bool,
}

/// # Errors
///
/// A tool is missing, or finds something; something is out of date; a test fails.
pub fn run(options: Options) -> Result<()> {
    if options.test {
        return languages::test_all();
    }
    if options.check {
        return check_all();
    }
    suite::write_openapi()?;
    fs::write(root().join(SPECIFICATION_3_0), downgraded()?)?;
    lint()?;
    for tree in generate::all()? {
        tree.write()?;
    }
    Ok(())
}

/// What CI runs: is everything up to date, and does it work?
///
/// # Errors
///
/// As for [`run`].
pub fn run_in_ci() -> Result<()> {
    check_all()?;
    languages::test_all()
}

/// That `openapi/skald.json` is the service's is for a test of the service to say.
fn check_all() -> Result<()> {
    let mut stale: Vec<String> = Vec::new();
    if fs::read_to_string(root().join(SPECIFICATION_3_0)).unwrap_or_default() != downgraded()? {
        stale.push(SPECIFICATION_3_0.to_owned());
    }
    lint()?;
    breaking::report()?;
    for tree in generate::all()? {
        stale.extend(tree.differences()?);
    }
    if !stale.is_empty() {
        bail!("out of date, run `cargo xtask sdk` and commit what it writes:\n  {}", stale.join("\n  "));
    }
    Ok(())
}

fn downgraded() -> Result<String> {
    let document = downgrade::to_3_0(&specification()?).context(SPECIFICATION)?;
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn specification() -> Result<Value> {
    let text = fs::read(root().join(SPECIFICATION)).context(SPECIFICATION)?;
    serde_json::from_slice(&text).context(SPECIFICATION)
}

fn lint() -> Result<()> {
    let mut redocly = command(tools::node_program("redocly")?);
    redocly.args(["lint", "--config", "xtask/sdk/redocly.yaml", SPECIFICATION, SPECIFICATION_3_0]);
    // It would ask its makers for news, and tell them of us.
    check(redocly.env("REDOCLY_TELEMETRY", "off").env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true"))
}

/// Where tools and what they make lie.
fn folder() -> PathBuf {
    root().join("target/sdk")
}
