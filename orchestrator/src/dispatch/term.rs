//! How long calls may be begun: a lease as those see it who call under it.
//!
//! | the lease | a call that waits | a request that is about to be sent |
//! | --- | --- | --- |
//! | is held | goes on | is sent |
//! | is past its time | goes on | is not sent |
//! | is renewed | goes on | is sent |
//! | was given up or lost | ends | is not sent, for good |
//!
//! Time is this machine's monotonic clock, which goes on while a process is stopped: one that wakes up late finds the
//! time past before anybody could tell it so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// Held by whoever keeps the lease. Dropping it ends every call under it.
#[derive(Debug)]
pub struct Lease {
    term: Term,
    _alive: watch::Sender<()>,
}

/// Held by each call.
#[derive(Clone, Debug)]
pub struct Term {
    origin: Instant,
    /// Microseconds since `origin`.
    until_us: Arc<AtomicU64>,
    /// Closed when the lease has ended for good.
    alive: watch::Receiver<()>,
}

impl Lease {
    #[must_use]
    pub fn until(until: Instant) -> Self {
        let (sender, alive) = watch::channel(());
        let origin = Instant::now();
        let until_us = Arc::new(AtomicU64::new(micros(until.saturating_duration_since(origin))));
        Self { term: Term { origin, until_us, alive }, _alive: sender }
    }

    /// It lasts until then, whatever it did before.
    pub fn extend(&self, until: Instant) {
        self.term.until_us.store(micros(until.saturating_duration_since(self.term.origin)), Ordering::Release);
    }

    #[must_use]
    pub fn term(&self) -> Term {
        self.term.clone()
    }
}

impl Term {
    /// Whether no request may be sent now.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.alive.has_changed().is_err() || micros(self.origin.elapsed()) >= self.until_us.load(Ordering::Acquire)
    }

    /// Returns when the lease has been given up or lost.
    pub async fn ended(&self) {
        // Nothing is ever sent, so the only change is the end.
        let _ = self.alive.clone().changed().await;
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_term_lasts_as_long_as_its_lease_and_can_be_extended() {
        let lease = Lease::until(Instant::now() + LONG);
        let term = lease.term();
        assert!(!term.is_over());
        lease.extend(Instant::now());
        assert!(term.is_over(), "past its time");
        lease.extend(Instant::now() + LONG);
        assert!(!term.is_over());
    }

    #[tokio::test]
    async fn a_lease_that_was_dropped_is_over_for_good() {
        let lease = Lease::until(Instant::now() + LONG);
        let term = lease.term();
        let waiting = tokio::spawn({
            let term = term.clone();
            async move { term.ended().await }
        });
        drop(lease);
        assert!(term.is_over());
        waiting.await.unwrap();
        term.ended().await;
    }
}
