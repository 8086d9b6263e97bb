//! Where PostgreSQL's server programs are. Used by the tests, which start them, and by `cargo xtask test`, which
//! installs them when there are none.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The oldest major version that is tested.
pub const VERSION_MIN: u32 = 15;

/// Names a running server to test against, instead of one that the tests start: a URL of its `postgres` database, of a
/// role that may create databases.
pub const URL_VARIABLE: &str = "SKALD_TEST_POSTGRES_URL";

/// Where distributions put each major version's programs.
const FOLDERS_OF_VERSIONS: [&str; 4] = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt", "/usr"];

/// The folder with the newest `postgres`, `initdb` and `pg_ctl` that is new enough.
pub fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let of_versions = FOLDERS_OF_VERSIONS.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let folders = env::split_paths(&path).chain(of_versions.filter_map(|entry| Some(entry.ok()?.path().join("bin"))));
    folders
        .filter(|folder| ["postgres", "initdb", "pg_ctl"].iter().all(|program| folder.join(program).is_file()))
        .filter_map(|folder| Some((version(&folder)?, folder)))
        .filter(|(version, _)| *version >= VERSION_MIN)
        .max()
        .map(|(_, folder)| folder)
}

/// The major version: 17 of `postgres (PostgreSQL) 17.2 (Debian 17.2-1)`.
fn version(folder: &Path) -> Option<u32> {
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let number = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Whether this process is root, as which PostgreSQL refuses to run.
pub fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
