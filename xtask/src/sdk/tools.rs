//! The programs that generate, lint and compare, each in the version that is pinned in `xtask/sdk/`, in `target/sdk`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::folder;
use crate::{
    python,
    run::{check, command, root, succeeds},
};

/// The newest version whose dependencies all come from where every Go module comes from.
const OASDIFF: &str = "github.com/oasdiff/oasdiff@v1.28.0";

/// One of the programs of `xtask/sdk/package.json`.
///
/// # Errors
///
/// There is no Node.js, or it cannot be installed.
pub fn node_program(name: &str) -> Result<PathBuf> {
    let installed = folder().join("node");
    fs::create_dir_all(&installed)?;
    for file in ["package.json", "package-lock.json"] {
        let wanted = fs::read(root().join("xtask/sdk").join(file))?;
        if fs::read(installed.join(file)).is_ok_and(|found| found == wanted) {
            continue;
        }
        // So that an installation that is cut short is begun again.
        let _ = fs::remove_file(installed.join("node_modules/.installed"));
        fs::write(installed.join(file), wanted)?;
    }
    npm_install(&installed)?;
    Ok(installed.join("node_modules/.bin").join(name))
}

/// Installs what the folder's lock file says, unless that has been done.
///
/// # Errors
///
/// There is no Node.js, or something cannot be installed.
pub fn npm_install(package: &Path) -> Result<()> {
    let marker = package.join("node_modules/.installed");
    let wanted = fs::read(package.join("package-lock.json"))?;
    if fs::read(&marker).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    ensure!(succeeds(command("npm").arg("--version")), "the clients need Node.js 20 or newer with npm: install it");
    let mut npm = command("npm");
    check(npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]).current_dir(package))?;
    fs::write(marker, wanted)?;
    Ok(())
}

/// OpenAPI Generator, which brings the Java that it runs on.
///
/// # Errors
///
/// There is no Python, or it cannot be installed.
pub fn openapi_generator() -> Result<PathBuf> {
    let requirements = root().join("xtask/sdk/requirements.txt");
    Ok(python::environment(&folder().join("venv"), &requirements)?.join("bin/openapi-generator-cli"))
}

/// What compares specifications; none where there is no Go to build it.
///
/// # Errors
///
/// It cannot be installed.
pub fn oasdiff() -> Result<Option<PathBuf>> {
    let version = OASDIFF.rsplit('@').next().expect("rsplit gives something");
    let bin = folder().join(format!("oasdiff-{version}"));
    let program = bin.join("oasdiff");
    if program.exists() {
        return Ok(Some(program));
    }
    if !succeeds(command("go").arg("version")) {
        return Ok(None);
    }
    let mut install = command("go");
    check(install.args(["install", "-ldflags=-s", OASDIFF]).env("GOBIN", &bin))
        .context("it compares specifications")?;
    Ok(Some(program))
}
