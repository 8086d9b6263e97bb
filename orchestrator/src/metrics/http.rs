//! Requests to this service.

use std::time::Duration;

use prometheus::{HistogramVec, Registry};

use super::register::seconds;

#[derive(Debug)]
pub struct HttpMetrics {
    duration: HistogramVec,
}

impl HttpMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            duration: seconds(
                registry,
                "http_request_duration_seconds",
                "Time of a request to this service",
                &["method", "route", "status"],
            ),
        }
    }

    /// `route` is the route's pattern, never the path that was asked for.
    pub fn request(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        let status = StatusText::new(status);
        self.duration.with_label_values(&[method, route, status.as_str()]).observe(took.as_secs_f64());
    }
}

/// Three digits without an allocation.
struct StatusText([u8; 3]);

impl StatusText {
    fn new(status: u16) -> Self {
        let digit = |place: u16| b'0' + u8::try_from(status / place % 10).unwrap_or(0);
        Self([digit(100), digit(10), digit(1)])
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits are ASCII")
    }
}
