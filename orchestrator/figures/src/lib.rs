//! What commands that measure have in common: times and how they are spread, counters read from a server's metrics, and
//! the look of a report. It does not know what is measured.

pub mod chart;
pub mod exposition;
mod times;

pub use times::{Point, QUANTILES, Spread, Times};

/// The style of a page with charts: colours, fonts, tables.
pub const STYLE: &str = include_str!("page.css");
