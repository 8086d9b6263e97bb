//! Makes sure that the tests find a PostgreSQL to start. They start it themselves; here it is only installed.

use std::{env, path::Path};

use anyhow::{Context, Result, bail};

use crate::{
    postgres_binaries::{self, URL_VARIABLE, VERSION_MIN},
    run::{check, command, succeeds},
};

/// Installs PostgreSQL where we may, else says what is missing.
///
/// # Errors
///
/// There is none and it cannot be installed.
pub fn ensure_installed() -> Result<()> {
    if env::var_os(URL_VARIABLE).is_some() || postgres_binaries::find().is_some() {
        return Ok(());
    }
    if !may_install() {
        bail!(
            "the tests need the server programs of PostgreSQL {VERSION_MIN} or newer (initdb, postgres, pg_ctl): install \
             them (Debian and Ubuntu: `apt-get install postgresql`, Fedora: `dnf install postgresql-server`, macOS: \
             `brew install postgresql@17`), put them in PATH if they are in an unusual place, or name a running \
             server with {URL_VARIABLE}=postgres://USER:PASSWORD@HOST/postgres"
        );
    }
    apt_install(&["postgresql"])?;
    postgres_binaries::find().map(drop).with_context(|| {
        format!(
            "the system's package of PostgreSQL is older than {VERSION_MIN}; name a newer server with {URL_VARIABLE}"
        )
    })
}

/// Installs packages of Debian.
///
/// # Errors
///
/// They cannot be had.
pub fn apt_install(packages: &[&str]) -> Result<()> {
    let apt_get = || {
        let mut apt_get = command("apt-get");
        apt_get.env("DEBIAN_FRONTEND", "noninteractive");
        apt_get
    };
    check(apt_get().arg("update"))?;
    check(apt_get().args(["install", "-y", "--no-install-recommends"]).args(packages))
}

/// Whether this is Debian and we are root.
pub fn may_install() -> bool {
    Path::new("/etc/debian_version").exists() && postgres_binaries::is_root() && succeeds(command("apt-get").arg("-v"))
}
