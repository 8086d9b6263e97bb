//! Making metrics: each is registered where it is made, so that none can be forgotten.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

/// From half a millisecond to a minute, fine where calls and commits lie.
pub const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

pub fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("names and labels are constants that a test has tried");
    registry.register(Box::new(metric.clone())).expect("each metric is registered once");
    metric
}

pub fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    add(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

pub fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    add(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

pub fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    add(registry, IntCounter::new(name, help))
}

pub fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    add(registry, IntGauge::new(name, help))
}

pub fn seconds(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    add(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels))
}

pub fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    add(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
}

/// A gauge whose values are all known together, when somebody looks. What has no value any more is not shown.
#[derive(Debug)]
pub struct Levels<const LABELS: usize> {
    gauges: IntGaugeVec,
    shown: Mutex<BTreeSet<[String; LABELS]>>,
}

impl<const LABELS: usize> Levels<LABELS> {
    pub fn new(registry: &Registry, name: &str, help: &str, labels: [&str; LABELS]) -> Self {
        Self { gauges: gauges(registry, name, help, &labels), shown: Mutex::default() }
    }

    /// Each combination of labels at most once.
    pub fn are<'a>(&self, values: impl IntoIterator<Item = ([&'a str; LABELS], u64)>) {
        let mut now = BTreeSet::new();
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (labels, value) in values {
            self.gauges.with_label_values(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
            now.insert(labels.map(str::to_owned));
        }
        // Only afterwards, so that what stays never leaves for a moment.
        for gone in shown.difference(&now) {
            let labels: Vec<&str> = gone.iter().map(String::as_str).collect();
            // It was shown, so it is there.
            let _ = self.gauges.remove_label_values(&labels);
        }
        *shown = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_what_they_were_said_to_be_last() {
        let registry = Registry::new();
        let levels = Levels::new(&registry, "lag", "How far behind", ["group"]);
        levels.are([(["a"], 1), (["b"], 2)]);
        levels.are([(["b"], 3), (["c"], 4)]);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let values: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(values, [r#"lag{group="b"} 3"#, r#"lag{group="c"} 4"#]);
    }
}
