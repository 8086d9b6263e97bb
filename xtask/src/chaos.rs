//! `cargo xtask chaos`: real processes under everything that breaks them, for as long as it is told to.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::{
    postgres, postgres_binaries,
    run::{cargo, check, root},
};

/// What to break, and how often.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// Sagas to start meanwhile.
    #[arg(long, default_value_t = 2_000)]
    pub sagas: u32,
    /// Replicas to kill, a third of them each before and after a commit has reached the database.
    #[arg(long, default_value_t = 10)]
    pub kills: u32,
    /// Crashes of PostgreSQL.
    #[arg(long, default_value_t = 3)]
    pub restarts: u32,
    /// Replicas to stop for longer than their lease.
    #[arg(long, default_value_t = 3)]
    pub stops: u32,
    /// The same seed is the same plan; without one it is drawn.
    #[arg(long)]
    pub seed: Option<u64>,
    /// A file for the report, in JSON.
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// Runs chaos on PostgreSQL as ordered.
///
/// # Errors
///
/// It does not build, an invariant is violated, or too few of the planned faults could be made.
pub fn run(options: &Options) -> Result<()> {
    postgres::ensure_installed()?;
    ensure!(
        postgres_binaries::find().is_some(),
        "chaos crashes a PostgreSQL of its own: it needs the server's programs, and no running server will do"
    );
    build()?;
    let mut test = test("chaos::chaos_as_ordered");
    test.arg("--ignored");
    for (name, value) in
        [("SAGAS", options.sagas), ("KILLS", options.kills), ("RESTARTS", options.restarts), ("STOPS", options.stops)]
    {
        test.env(format!("SKALD_CHAOS_{name}"), value.to_string());
    }
    if let Some(seed) = options.seed {
        test.env("SKALD_CHAOS_SEED", seed.to_string());
    }
    if let Some(report) = &options.report {
        let folder = root().join(report.parent().unwrap_or(report));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        test.env("SKALD_CHAOS_REPORT", root().join(report));
    }
    // Where the logs of a run that fails are kept.
    let kept = root().join("target/chaos");
    fs::create_dir_all(&kept).with_context(|| format!("cannot make {}", kept.display()))?;
    check(test.env("SKALD_CHAOS_KEEP", kept))
}

/// The same on SQLite, which has no replicas to kill and no network to lose, but a disk to fill. Where none can be mounted,
/// which is for root and not in every container, that part is skipped, and the run says so.
///
/// # Errors
///
/// It does not build, or an invariant is violated.
pub fn run_on_sqlite() -> Result<()> {
    build()?;
    check(&mut test("chaos::sqlite::kill_9_and_a_full_disk_lose_nothing_on_sqlite_1_to_13"))
}

/// What CI runs.
///
/// # Errors
///
/// Those of [`run`] and [`run_on_sqlite`].
pub fn run_in_ci() -> Result<()> {
    run(&Options::parse_from(["chaos"]))?;
    run_on_sqlite()
}

fn build() -> Result<()> {
    check(cargo().args(["build", "--locked", "--workspace", "--bins"]))
}

fn test(name: &str) -> std::process::Command {
    let mut test = cargo();
    test.args(["test", "--locked", "--package", "skald", "--test", "e2e", "--", "--exact", name, "--nocapture"]);
    test
}
