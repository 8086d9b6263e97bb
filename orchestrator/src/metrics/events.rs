//! The event store: what is written to the log and read from it.

use std::{collections::BTreeMap, time::Duration};

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, Registry};
use skald_core::event::Mode;

use super::{
    labels::label,
    register::{Levels, counter, counters, gauge, seconds},
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
    publish_duration: [Histogram; PublishTarget::ALL.len()],
    publish_errors: [IntCounter; PublishTarget::ALL.len()],
    stored: Levels<1>,
    /// What the log takes in the database.
    pub stored_bytes: IntGauge,
    /// Events that each consumer group has to look at.
    pub group_lag: Levels<1>,
    /// Events that each consumer group could not handle.
    pub dead_letters: Levels<1>,
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
        let help = "Time until events were durable in the log, or given to the bus: of a commit, of a page";
        let publish_duration = seconds(registry, "event_publish_duration_seconds", help, &["target"]);
        let help = "Commits that failed, and pages that the bus did not take";
        let publish_errors = counters(registry, "event_publish_errors_total", help, &["target"]);
        let stored = Levels::new(registry, "event_store_event_count", "Events ever written to the log", ["category"]);
        let stored_bytes = gauge(registry, "event_store_size_bytes", "What the log takes in the database");
        let help = "Events that a consumer group has not looked at";
        let group_lag = Levels::new(registry, "consumer_group_lag_events", help, ["group"]);
        let help = "Events that a consumer group could not handle, parked for a person";
        let dead_letters = Levels::new(registry, "dead_letters", help, ["group"]);
        let relayed = counter(registry, "events_relayed_total", "Events given to the bus");
        let relay_lag =
            gauge(registry, "relay_lag_events", "Durable events of owned shards that the bus does not have");
        Self {
            published,
            operations,
            publish_duration: PublishTarget::ALL.map(|to| publish_duration.with_label_values(&[to.as_str()])),
            publish_errors: PublishTarget::ALL.map(|to| publish_errors.with_label_values(&[to.as_str()])),
            stored,
            stored_bytes,
            group_lag,
            dead_letters,
            relayed,
            relay_lag,
        }
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
        self.stored.are(categories.into_iter().map(|(category, events)| ([category], events)));
    }

    /// Events are durable now; without a mode, they belong to no saga.
    pub fn published(&self, mode: Option<Mode>, events: usize) {
        self.published.with_label_values(&[mode.map_or(NO_MODE, Mode::as_str)]).inc_by(events as u64);
    }

    /// Trying to publish some events came to an end.
    pub fn publishing_ended(&self, target: PublishTarget, took: Duration, result: OperationResult) {
        match result {
            OperationResult::Done => self.publish_duration[target as usize].observe(took.as_secs_f64()),
            OperationResult::Failed => self.publish_errors[target as usize].inc(),
        }
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
    /// Where events go.
    PublishTarget {
        Log = "log",
        Bus = "bus",
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
        let registry = Registry::new();
        let metrics = EventMetrics::new(&registry);
        let many: Vec<(String, u64)> = (0..30).map(|number| (format!("c{number}"), 100 + number)).collect();
        let counts = |extra: u64| many.iter().map(|(name, events)| (&**name, *events)).chain([("c0", extra)]);
        metrics.stored(counts(1000));
        let shown = || -> BTreeMap<String, f64> {
            let families = registry.gather();
            let family = families.iter().find(|family| family.name() == "event_store_event_count").unwrap();
            let metrics = family.get_metric().iter();
            metrics.map(|metric| (metric.get_label()[0].value().to_owned(), metric.get_gauge().get_value())).collect()
        };
        let value = |category: &str| shown()[category];
        assert_eq!((value("c0"), value("c29"), value("c11")), (1100.0, 129.0, 111.0));
        assert_eq!(value(OTHER_CATEGORIES), (1..=10).map(|number| 100.0 + f64::from(number)).sum::<f64>());
        metrics.stored(counts(0));
        let left = shown();
        assert_eq!((left.len(), left.contains_key("c0"), left.contains_key("c10")), (21, false, true), "{left:?}");
    }
}
