//! What commands that measure have in common: times and how they are spread, counters read from a server's metrics, and
//! the look of a report. It does not know what is measured.

pub mod chart;
pub mod exposition;
pub mod page;
mod times;

pub use times::{Point, QUANTILES, Spread, Times};
