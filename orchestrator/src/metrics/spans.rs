//! Spans: whether the collector takes them.

use prometheus::{IntCounter, Registry};

use super::register::counters;

#[derive(Debug)]
pub struct SpanMetrics {
    exported: IntCounter,
    dropped: IntCounter,
}

impl SpanMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let spans = counters(registry, "spans_total", "Spans for the collector", &["result"]);
        let of = |result| spans.with_label_values(&[result]);
        Self { exported: of("exported"), dropped: of("dropped") }
    }

    pub fn exported(&self, count: usize) {
        self.exported.inc_by(count as u64);
    }

    /// The collector did not take them, or not soon enough.
    pub fn dropped(&self, count: usize) {
        self.dropped.inc_by(count as u64);
    }
}
