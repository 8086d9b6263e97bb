//! The event store: what is written to the log and read from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use skald_core::event::Mode;

use super::{
    labels::label,
    register::{counter, counters, gauge, gauges},
};

/// Stands for the mode of events that belong to no saga.
const NO_MODE: &str = "none";
/// Whoever appends makes categories: the largest have a label each, all others this one, which no category can have.
const OTHER_CATEGORIES: &str = "_other";
const CATEGORIES_MAX: usize = 20;

#[derive(Debug)]
pub struct EventMetrics {
    published: IntCounterVec,
    operations: [[IntCounter; OperationResult::ALL.len()]; StoreOperation::ALL.len()],
    stored: IntGaugeVec,
    /// The categories that `stored` has.
    shown: Mutex<BTreeSet<String>>,
    /// Given to the bus by this replica.
    pub relayed: IntCounter,
    /// Of this replica's shards, what the bus has not been given yet.
    pub relay_lag: IntGauge,
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
        let stored = gauges(registry, "event_store_event_count", "Events ever written to the log", &["category"]);
        let relayed = counter(registry, "events_relayed_total", "Events given to the bus");
        let relay_lag =
            gauge(registry, "relay_lag_events", "Durable events of owned shards that the bus does not have");
        Self { published, operations, stored, shown: Mutex::default(), relayed, relay_lag }
    }

    /// How many events there are of each category.
    pub fn stored<'a>(&self, counts: impl IntoIterator<Item = (&'a str, u64)>) {
        let mut categories: BTreeMap<&str, u64> = BTreeMap::new();
        for (category, events) in counts {
            *categories.entry(category).or_default() += events;
        }
        let mut categories: Vec<(&str, u64)> = categories.into_iter().collect();
        categories.sort_by_key(|(_, events)| std::cmp::Reverse(*events));
        let others = categories.split_off(categories.len().min(CATEGORIES_MAX));
        if !others.is_empty() {
            categories.push((OTHER_CATEGORIES, others.iter().map(|(_, events)| events).sum()));
        }
        for (category, events) in &categories {
            self.stored.with_label_values(&[category]).set(i64::try_from(*events).unwrap_or(i64::MAX));
        }
        // One that is not among the largest any more must not stay as it was; the others never leave for a moment.
        let now = categories.into_iter().map(|(category, _)| category.to_owned()).collect();
        let mut shown = self.shown.lock().expect("nothing panics while it holds this lock");
        for gone in shown.difference(&now) {
            // It was shown, so it is there.
            let _ = self.stored.remove_label_values(&[gone]);
        }
        *shown = now;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_categories_are_told_apart_and_the_others_together() {
        let metrics = EventMetrics::new(&Registry::new());
        let many: Vec<(String, u64)> = (0..30).map(|number| (format!("c{number}"), 100 + number)).collect();
        let counts = |extra: u64| many.iter().map(|(name, events)| (&**name, *events)).chain([("c0", extra)]);
        metrics.stored(counts(1000));
        let value = |category: &str| metrics.stored.with_label_values(&[category]).get();
        assert_eq!((value("c0"), value("c29"), value("c11")), (1100, 129, 111));
        assert_eq!(value(OTHER_CATEGORIES), (1..=10).map(|number| 100 + number).sum::<i64>());
        metrics.stored(counts(0));
        let left = prometheus::core::Collector::collect(&metrics.stored);
        let left: Vec<&str> = left[0].get_metric().iter().map(|metric| metric.get_label()[0].value()).collect();
        assert_eq!((left.len(), left.contains(&"c0"), left.contains(&"c10")), (21, false, true), "{left:?}");
    }
}
