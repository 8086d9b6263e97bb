//! Makes sure that the tests find a Redis to start. They start it themselves; here it is only installed.

use anyhow::{Context, Result, bail};

use crate::{
    postgres::{apt_install, may_install},
    run::{command, succeeds},
};

/// Installs Redis where we may, else says what is missing.
///
/// # Errors
///
/// There is none and it cannot be installed.
pub fn ensure_installed() -> Result<()> {
    if is_installed() {
        return Ok(());
    }
    if !may_install() {
        bail!(
            "the tests need redis-server: install it (Debian and Ubuntu: `apt-get install redis-server`, Fedora: \
             `dnf install redis`, macOS: `brew install redis`) and have it in PATH"
        );
    }
    // The tests start servers of their own: the system's need not run.
    apt_install(&["redis-server"])?;
    is_installed().then_some(()).context("the system's package of Redis has no redis-server in PATH")
}

fn is_installed() -> bool {
    succeeds(command("redis-server").arg("--version"))
}
