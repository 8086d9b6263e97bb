//! What the end-to-end tests stand on: servers that start on free ports and die with their test, a client, a checker.

pub mod checker;
pub mod client;
pub mod cluster;
pub mod database;
pub mod deployment;
pub mod effects;
pub mod guard;
pub mod log;
pub mod participants;
pub mod postgres;
mod postgres_binaries;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod sample;
pub mod skald;
pub mod small_disk;
pub mod stub;

use std::{
    path::Path,
    time::{Duration, Instant},
};

pub use self::{
    checker::Checker,
    client::{Answer, Client},
    database::Backend::{self, Postgres, Sqlite},
    deployment::{Deployment, Folder},
    skald::{SOON, Skald, order},
    stub::{Reply, Stub},
};

const POLL_FIRST: Duration = Duration::from_millis(5);
const POLL_LAST: Duration = Duration::from_millis(100);

/// Looks until there is what is looked for, and gives it; `look` answers what it saw instead as an error.
///
/// # Panics
///
/// When it is not there within `timeout`; says what was seen last.
pub async fn eventually<T, F>(what: &str, timeout: Duration, mut look: F) -> T
where
    F: AsyncFnMut() -> Result<T, String>,
{
    let begun = Instant::now();
    let mut pause = POLL_FIRST;
    loop {
        let seen = match look().await {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        assert!(begun.elapsed() < timeout, "{what}: not within {timeout:?}; seen last: {seen}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_LAST);
    }
}

/// [`eventually`] for a condition that has nothing to give.
pub fn met(condition: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise()) }
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the service lies in a folder of the workspace")
}
