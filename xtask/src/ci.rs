//! What a change must pass before it lands; quick things first.

use anyhow::Result;

use crate::{
    bench, chaos, deny,
    run::{cargo, check},
    schemathesis::{self, Options},
    sdk, simulate,
    stages::{self, Stage},
    suite,
};

const STAGES: &[Stage] = &[
    Stage { name: "format", run: format },
    Stage { name: "dependencies", run: deny::check_all },
    Stage { name: "clippy", run: clippy },
    Stage { name: "documentation", run: documentation },
    Stage { name: "tests", run: || suite::run(&[]) },
    Stage { name: "simulation", run: simulate::run_in_ci },
    Stage { name: "chaos", run: chaos::run_in_ci },
    Stage { name: "bench", run: bench::smoke },
    Stage { name: "schemathesis", run: || schemathesis::run(Options::IN_CI) },
    Stage { name: "sdk", run: sdk::run_in_ci },
];

/// # Errors
///
/// That of the first stage that fails.
pub fn run() -> Result<()> {
    stages::run(STAGES)
}

fn format() -> Result<()> {
    check(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    check(cargo().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn documentation() -> Result<()> {
    check(cargo().args(["doc", "--locked", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}
