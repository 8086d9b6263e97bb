//! Open files: every connection is one, and a process may have only so many.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many connections of clients to take at once: at most `wanted`, and at most half of the files that this process may
/// have, so that clients who keep connections for nothing leave enough for the database and the participants.
///
/// Raises the limit as far as it may.
pub fn connections(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // None: there is no limit.
    let Some(allowed) = allowed.map(|files| usize::try_from(files).unwrap_or(usize::MAX)) else { return wanted };
    let connections = wanted.min(allowed / 2).max(1);
    if connections < wanted {
        tracing::info!(
            connections,
            files = allowed,
            "fewer connections are taken than usual: the limit of open files is low"
        );
    }
    connections
}
