//! `cargo xtask coverage`: which lines the tests run, by part of the workspace.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    monitoring, postgres, redis,
    run::{cargo, check, command, output, root, succeeds},
};

/// Pinned, so that a new release counts no differently on its own.
const CARGO_LLVM_COV_VERSION: &str = "0.9.1";
/// Not what is tested, but what tests: and what was generated.
const LEFT_OUT: &str = r"(^|/)(sdks|xtask|tests|conformance)/|/tests\.rs$|/testing\.rs$";

/// What is stated, and by which folders; the longest prefix counts.
const PARTS: [(&str, &str); 6] = [
    ("orchestrator/core/", "core"),
    ("orchestrator/src/storage/", "storage"),
    ("orchestrator/simulator/", "simulator"),
    ("orchestrator/", "service"),
    ("participants/kit/", "kit"),
    ("participants/", "participants"),
];

/// # Errors
///
/// A tool cannot be installed, or a test fails.
pub fn run() -> Result<()> {
    postgres::ensure_installed()?;
    redis::ensure_installed()?;
    monitoring::ensure_installed()?;
    ensure_installed()?;
    let coverage = |arguments: &[&str]| {
        let mut command = cargo();
        command.arg("llvm-cov").args(arguments);
        command
    };
    check(&mut coverage(&[
        "--no-report",
        "--locked",
        "--workspace",
        "--exclude",
        "xtask",
        "--exclude",
        "skald-bench",
    ]))?;
    let report = output(&mut coverage(&["report", "--json", "--summary-only", "--ignore-filename-regex", LEFT_OUT]))?;
    let report: Value = serde_json::from_str(&report).context("the report of cargo-llvm-cov")?;
    print(&report)
}

fn ensure_installed() -> Result<()> {
    // Where cargo does not come from rustup, the tools of LLVM are expected in PATH: cargo-llvm-cov says so itself.
    let _ = succeeds(command("rustup").args(["component", "add", "llvm-tools"]));
    if succeeds(cargo().args(["llvm-cov", "--version"])) {
        return Ok(());
    }
    let version = ["--version", CARGO_LLVM_COV_VERSION];
    check(cargo().args(["install", "cargo-llvm-cov", "--locked"]).args(version)).context("cargo-llvm-cov is missing")
}

fn print(report: &Value) -> Result<()> {
    let root = format!("{}/", root().display());
    let mut parts = BTreeMap::<&str, (u64, u64)>::new();
    for file in report["data"][0]["files"].as_array().context("the report names no files")? {
        let name = file["filename"].as_str().unwrap_or_default();
        let name = name.strip_prefix(&root).unwrap_or(name);
        let lines = &file["summary"]["lines"];
        let (count, covered) = (lines["count"].as_u64().unwrap_or(0), lines["covered"].as_u64().unwrap_or(0));
        let part = PARTS.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or("other", |(_, part)| part);
        for part in [part, "all"] {
            let sum = parts.entry(part).or_default();
            *sum = (sum.0 + count, sum.1 + covered);
        }
    }
    ensure!(parts.contains_key("all"), "the report names no files");
    println!("\n{:<14} {:>8} {:>8} {:>7}", "part", "lines", "run", "");
    for (part, (count, covered)) in parts {
        println!("{part:<14} {count:>8} {covered:>8} {:>6.1} %", 100.0 * covered as f64 / count.max(1) as f64);
    }
    Ok(())
}
