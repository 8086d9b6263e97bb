//! Waiting for events to come: of this replica the engine tells, of others the heads of their shards.

use std::sync::Arc;

use tokio::{sync::watch, time::Instant};

use super::super::heads::Seen;
use crate::app::App;

/// Tells when the log may have grown since it was last asked.
#[derive(Debug)]
pub struct Wake {
    commits: watch::Receiver<u64>,
    shards: watch::Receiver<Arc<[Seen]>>,
    closing: watch::Receiver<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// There may be more to read.
    Grown,
    Late,
    /// The server stops.
    Closing,
}

impl Wake {
    /// To be made before the log is read, so that nothing falls between.
    #[must_use]
    pub fn of(app: &App) -> Self {
        Self { commits: app.engine().commits(), shards: app.heads().subscribe(), closing: app.closing() }
    }

    pub async fn wait(&mut self, until: Instant) -> Woken {
        tokio::select! {
            Ok(()) = self.commits.changed() => Woken::Grown,
            Ok(()) = self.shards.changed() => Woken::Grown,
            () = tokio::time::sleep_until(until) => Woken::Late,
            _ = self.closing.wait_for(|closing| *closing) => Woken::Closing,
        }
    }
}
