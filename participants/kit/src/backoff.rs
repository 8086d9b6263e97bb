//! Waiting: pauses between attempts, doubling with an upper end, and for the end.

use std::time::Duration;

use tokio::sync::watch;

/// Returns when told to stop, or when nobody can tell any more.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error: who would tell is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(initial: Duration, max: Duration) -> Self {
        Self { next: initial, max }
    }

    /// How long to wait now.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause
    }
}
