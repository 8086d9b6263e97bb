//! `cargo xtask monitoring`: Prometheus' and Alertmanager's own tools over what is in `monitoring/`.
//!
//! Whether the expressions find data, a test says (`tests/monitoring`), with a Prometheus that it starts.

use anyhow::{Result, ensure};

use crate::{
    postgres::{apt_install, may_install},
    run::{check, command, skipped, succeeds},
};

const CONFIG: &str = "monitoring/prometheus/prometheus.yml";
const RULES: [&str; 2] = ["monitoring/prometheus/rules/recording.yml", "monitoring/prometheus/rules/alerts.yml"];
const TESTS: &str = "monitoring/prometheus/tests/alerts.yml";
const ALERTMANAGER: &str = "monitoring/alertmanager/alertmanager.yml";

/// # Errors
///
/// A file is malformed, or an alert does not do what its test says.
pub fn run() -> Result<()> {
    ensure_installed()?;
    // The files that it names are where Prometheus runs.
    check(command("promtool").args(["check", "config", "--syntax-only", CONFIG]))?;
    check(command("promtool").args(["check", "rules"]).args(RULES))?;
    check(command("promtool").args(["test", "rules", TESTS]))?;
    if !is_installed("amtool") && may_install() {
        apt_install(&["prometheus-alertmanager"])?;
    }
    if !is_installed("amtool") {
        skipped("the check of Alertmanager's configuration", "there is no amtool in PATH");
        return Ok(());
    }
    check(command("amtool").args(["check-config", ALERTMANAGER]))
}

/// Installs Prometheus where we may, else says what is missing.
///
/// # Errors
///
/// There is none and it cannot be installed.
pub fn ensure_installed() -> Result<()> {
    let all = || ["prometheus", "promtool"].into_iter().all(is_installed);
    if !all() && may_install() {
        // The tests start servers of their own: the system's need not run.
        apt_install(&["prometheus"])?;
    }
    ensure!(
        all(),
        "the tests need prometheus and promtool: install them (Debian and Ubuntu: `apt-get install prometheus`, macOS: \
         `brew install prometheus`) and have them in PATH"
    );
    Ok(())
}

fn is_installed(program: &str) -> bool {
    succeeds(command(program).arg("--version"))
}
