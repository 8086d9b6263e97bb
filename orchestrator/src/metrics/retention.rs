//! Retention: what left the database for the archive, and how far back what stays reaches.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};
use skald_core::time::Timestamp;

use super::{
    labels::label,
    register::{counters, gauge},
};

#[derive(Debug)]
pub struct RetentionMetrics {
    runs: [IntCounter; RetentionResult::ALL.len()],
    removed: IntCounterVec,
    oldest: IntGauge,
}

impl RetentionMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let runs = counters(registry, "retention_runs_total", "Searches for what is old", &["result"]);
        let help = "What was archived and then removed";
        let removed = counters(registry, "retention_removed_total", help, &["kind"]);
        let help = "When the oldest stream began that the database holds, as of the last run";
        let oldest = gauge(registry, "retention_oldest_kept_timestamp_seconds", help);
        Self { runs: RetentionResult::ALL.map(|result| runs.with_label_values(&[result.as_str()])), removed, oldest }
    }

    pub fn ran(&self, result: RetentionResult) {
        self.runs[result as usize].inc();
    }

    /// So much of each is in the archive, and no more in the database.
    pub fn removed(&self, sagas: u64, streams: u64, events: u64) {
        for (kind, count) in [("saga", sagas), ("stream", streams), ("event", events)] {
            self.removed.with_label_values(&[kind]).inc_by(count);
        }
    }

    /// When the oldest stream began that is there; None when there is none.
    pub fn oldest(&self, began_at: Option<Timestamp>) {
        self.oldest.set(began_at.map_or(0, |at| at.as_micros() / 1_000_000));
    }
}

label! {
    /// How a run ended.
    RetentionResult { Done = "done", Failed = "failed" }
}
