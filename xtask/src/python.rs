//! Programs from PyPI, in virtual environments of their own, pinned with all they need.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    postgres::{apt_install, may_install},
    run::{check, command, succeeds},
};

/// The environment in this folder with what the file of requirements says, made anew when that has changed.
///
/// # Errors
///
/// There is no Python, or something cannot be installed.
pub fn environment(folder: &Path, requirements: &Path) -> Result<PathBuf> {
    // A copy of what was installed, written last: an installation that was cut short has none.
    let installed = folder.join("installed.txt");
    let wanted = fs::read(requirements).with_context(|| requirements.display().to_string())?;
    if fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Ok(folder.to_owned());
    }
    ensure_python()?;
    check(command("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
    let pip = folder.join("bin/pip");
    check(command(pip).args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(requirements))
        .context("it is installed from PyPI")?;
    fs::write(installed, wanted)?;
    Ok(folder.to_owned())
}

/// Python with the modules that make virtual environments; Debian packs those by themselves.
fn ensure_python() -> Result<()> {
    let complete = || succeeds(command("python3").args(["-c", "import venv, ensurepip"]));
    if !complete() && may_install() {
        apt_install(&["python3", "python3-venv"])?;
    }
    if !complete() {
        bail!("Python 3 with `venv` is needed (Debian and Ubuntu: `apt-get install python3-venv`)");
    }
    Ok(())
}
