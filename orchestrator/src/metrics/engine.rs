//! The engine at work: commits, and what it holds in memory.

use prometheus::{Histogram, IntCounterVec, IntGauge, Registry};

use super::register::{SECONDS, counters, gauge, histogram};

const BATCH: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

#[derive(Debug)]
pub struct EngineMetrics {
    pub commit_batch: Histogram,
    pub commit_duration: Histogram,
    commit_failures: IntCounterVec,
    pub commit_queue: IntGauge,
    pub sagas_resident: IntGauge,
    pub timers_waiting: IntGauge,
}

impl EngineMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let r = registry;
        Self {
            commit_batch: histogram(r, "commit_batch_transitions", "Transitions and appends in a commit", &BATCH),
            commit_duration: histogram(r, "commit_duration_seconds", "Time a commit took", &SECONDS),
            commit_failures: counters(r, "commit_failures_total", "Commits that failed", &["kind"]),
            commit_queue: gauge(r, "commit_queue_length", "Transitions waiting for the next commit"),
            sagas_resident: gauge(r, "sagas_resident", "Sagas held in memory"),
            timers_waiting: gauge(r, "timers_waiting", "Timers that have not fired"),
        }
    }

    pub fn commit_failed(&self, kind: &'static str) {
        self.commit_failures.with_label_values(&[kind]).inc();
    }
}
