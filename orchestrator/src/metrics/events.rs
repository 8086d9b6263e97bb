//! The event store: what is written to the log and read from it.

use prometheus::{IntCounter, IntCounterVec, Registry};
use skald_core::event::Mode;

use super::{labels::label, register::counters};

/// Stands for the mode of events that belong to no saga.
const NO_MODE: &str = "none";

#[derive(Debug)]
pub struct EventMetrics {
    published: IntCounterVec,
    operations: [[IntCounter; OperationResult::ALL.len()]; StoreOperation::ALL.len()],
}

impl EventMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let help = "Events made durable, where every consumer finds them";
        let published = counters(registry, "events_published_total", help, &["mode"]);
        let help = "Streams that were appended to or read";
        let operations = counters(registry, "event_store_operations_total", help, &["operation", "result"]);
        let operations = StoreOperation::ALL.map(|operation| {
            OperationResult::ALL.map(|result| operations.with_label_values(&[operation.as_str(), result.as_str()]))
        });
        Self { published, operations }
    }

    /// Events are durable now; without a mode, they belong to no saga.
    pub fn published(&self, mode: Option<Mode>, events: usize) {
        self.published.with_label_values(&[mode.map_or(NO_MODE, Mode::as_str)]).inc_by(events as u64);
    }

    /// Streams were handled together.
    pub fn operated(&self, operation: StoreOperation, result: OperationResult, streams: usize) {
        self.operations[operation as usize][result as usize].inc_by(streams as u64);
    }
}

label! {
    /// What is done with a stream.
    StoreOperation {
        /// Events are added at its end.
        Append = "append",
        /// The engine reads it, to carry its saga on.
        Load = "load",
    }
}

label! {
    OperationResult { Done = "done", Failed = "failed" }
}
