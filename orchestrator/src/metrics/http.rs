//! Requests to this service.

use std::time::Duration;

use prometheus::{
    HistogramVec, IntCounterVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::register::{add, seconds};

#[derive(Debug)]
pub struct HttpMetrics {
    duration: HistogramVec,
}

impl HttpMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let duration = seconds(
            registry,
            "http_request_duration_seconds",
            "Time of a request to this service",
            &["method", "route", "status"],
        );
        add(registry, Ok(Counts { duration: duration.clone(), descriptions: described() }));
        Self { duration }
    }

    /// `route` is the route's pattern, never the path that was asked for.
    pub fn request(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        let status = StatusText::new(status);
        self.duration.with_label_values(&[method, route, status.as_str()]).observe(took.as_secs_f64());
    }
}

/// Requests, commands and queries by number: taken from the histogram when somebody looks, so that counting them costs no
/// request anything.
#[derive(Clone, Debug)]
struct Counts {
    duration: HistogramVec,
    descriptions: Vec<Desc>,
}

/// The counters, each without a value.
struct Empty {
    requests: IntCounterVec,
    commands: IntCounterVec,
    queries: IntCounterVec,
}

impl Empty {
    fn new() -> Self {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels)
                .expect("names and labels are constants that a test has tried")
        };
        Self {
            requests: counter("http_requests_total", "Requests to this service", &["method", "route", "status"]),
            commands: counter(
                "command_executions_total",
                "Requests to change something, as clients make them",
                &["command", "result"],
            ),
            queries: counter(
                "query_executions_total",
                "Requests to know something, as clients make them",
                &["query", "result"],
            ),
        }
    }
}

fn described() -> Vec<Desc> {
    let Empty { requests, commands, queries } = Empty::new();
    [requests, commands, queries].iter().flat_map(Collector::desc).cloned().collect()
}

impl Collector for Counts {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Empty { requests, commands, queries } = Empty::new();
        for family in self.duration.collect() {
            for metric in family.get_metric() {
                let label = |name: &str| {
                    let label = metric.get_label().iter().find(|label| label.name() == name);
                    label.map_or("", |label| label.value())
                };
                let (method, route, status) = (label("method"), label("route"), label("status"));
                let count = metric.get_histogram().get_sample_count();
                requests.with_label_values(&[method, route, status]).inc_by(count);
                let kind = match Kind::of(method, route) {
                    Kind::Command => &commands,
                    Kind::Query => &queries,
                    Kind::Neither => continue,
                };
                kind.with_label_values(&[&format!("{method} {route}"), result(status)]).inc_by(count);
            }
        }
        [requests, commands, queries].iter().flat_map(Collector::collect).collect()
    }
}

/// What a request is for.
enum Kind {
    Command,
    Query,
    /// A probe, a page for developers, a request between replicas, which its client made elsewhere, or no route of ours.
    Neither,
}

impl Kind {
    fn of(method: &str, route: &str) -> Self {
        match (method, route) {
            (_, "/" | "/livez" | "/readyz" | "/metrics" | "/openapi.json" | "unmatched") => Self::Neither,
            (_, route) if route.starts_with("/docs") || route.starts_with("/internal/") => Self::Neither,
            ("GET" | "HEAD", _) => Self::Query,
            ("POST" | "PUT" | "DELETE", _) => Self::Command,
            _ => Self::Neither,
        }
    }
}

/// How a command or query ended, by its HTTP status.
fn result(status: &str) -> &'static str {
    match status.as_bytes() {
        [b'4', ..] => "refused",
        [b'5', ..] => "failed",
        _ => "done",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_commands_queries_or_neither() {
        let registry = Registry::new();
        let metrics = HttpMetrics::new(&registry);
        for (method, route, status) in [
            ("POST", "/sagas/{definition}", 201),
            ("POST", "/sagas/{definition}", 202),
            ("POST", "/sagas/{definition}", 422),
            ("GET", "/sagas/{id}", 503),
            ("GET", "/readyz", 200),
            ("POST", "/internal/sagas", 201),
            ("GET", "unmatched", 404),
        ] {
            metrics.request(method, route, status, Duration::from_millis(1));
        }
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let of = |name: &str| text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            of("command_executions_total"),
            [
                r#"command_executions_total{command="POST /sagas/{definition}",result="done"} 2"#,
                r#"command_executions_total{command="POST /sagas/{definition}",result="refused"} 1"#,
            ]
        );
        let queries = [r#"query_executions_total{query="GET /sagas/{id}",result="failed"} 1"#];
        assert_eq!(of("query_executions_total"), queries);
        assert_eq!(of("http_requests_total").len(), 7);
    }
}
