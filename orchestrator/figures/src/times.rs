//! Times, counted so that quantiles are exact to three digits.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// In microseconds. Longer times count as this long.
const LONGEST_US: u64 = 3_600_000_000;
const DIGITS: u8 = 3;

/// Any number of times.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

/// How times are spread, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub count: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// A share of the times, from 0 to 1, is at most this long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    pub ms: f64,
    pub share: f64,
}

/// What [`Spread::quantiles`] gives, in order.
pub const QUANTILES: [&str; 4] = ["p50", "p95", "p99", "max"];

impl Spread {
    /// In milliseconds.
    pub const fn quantiles(&self) -> [f64; 4] {
        [self.p50_ms, self.p95_ms, self.p99_ms, self.max_ms]
    }
}

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("the bounds are those of a histogram"))
    }
}

impl Times {
    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(LONGEST_US).min(LONGEST_US));
    }

    /// Those of others as well.
    pub fn add(&mut self, others: &Self) {
        self.0.add(&others.0).expect("all have the same bounds");
    }

    /// None when there is no time.
    pub fn spread(&self) -> Option<Spread> {
        let quantile = |quantile| ms(self.0.value_at_quantile(quantile));
        (!self.0.is_empty()).then(|| Spread {
            count: self.0.len(),
            mean_ms: rounded(self.0.mean() / 1000.0),
            p50_ms: quantile(0.5),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
            max_ms: ms(self.0.max()),
        })
    }

    /// For a chart: from the shortest to the longest, in steps of two in a hundred and finer at the end.
    pub fn curve(&self) -> Vec<Point> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let fine = [0.99, 0.995, 0.999, 1.0];
        let shares = (0..50).map(|step| f64::from(step) / 50.0).chain(fine);
        shares.map(|share| Point { ms: ms(self.0.value_at_quantile(share)), share }).collect()
    }
}

fn ms(micros: u64) -> f64 {
    rounded(micros as f64 / 1000.0)
}

/// To microseconds: more digits say nothing.
fn rounded(ms: f64) -> f64 {
    (ms * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(ms: impl IntoIterator<Item = u64>) -> Times {
        let mut times = Times::default();
        ms.into_iter().for_each(|ms| times.record(Duration::from_millis(ms)));
        times
    }

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= expected / 500.0
    }

    #[test]
    fn quantiles_are_those_of_the_times() {
        let spread = times(1..=1000).spread().unwrap();
        assert_eq!(spread.count, 1000);
        for (found, expected) in [
            (spread.mean_ms, 500.5),
            (spread.p50_ms, 500.0),
            (spread.p95_ms, 950.0),
            (spread.p99_ms, 990.0),
            (spread.max_ms, 1000.0),
        ] {
            assert!(close(found, expected), "{found} is not {expected}");
        }
    }

    #[test]
    fn no_time_has_no_spread_and_one_has_all_of_it() {
        assert_eq!(times([]).spread(), None);
        assert!(times([]).curve().is_empty());
        let spread = times([7]).spread().unwrap();
        assert!(close(spread.p50_ms, 7.0) && close(spread.p99_ms, 7.0) && close(spread.max_ms, 7.0));
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let mut times = Times::default();
        times.record(Duration::from_secs(86_400));
        times.record(Duration::ZERO);
        let spread = times.spread().unwrap();
        assert_eq!(spread.count, 2);
        assert!(close(spread.max_ms, 3_600_000.0), "{spread:?}");
    }

    #[test]
    fn the_curve_rises_from_the_shortest_to_the_longest() {
        let curve = times((1..=100).map(|n| n * n)).curve();
        assert!(curve.is_sorted_by(|a, b| a.ms <= b.ms && a.share < b.share));
        assert!(close(curve[0].ms, 1.0) && close(curve.last().unwrap().ms, 10_000.0));
        assert_eq!(curve.last().unwrap().share, 1.0);
    }
}
