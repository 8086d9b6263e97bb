//! Every metric of the service.
//!
//! Labels have few values by construction: definitions, steps and services come from what operators registered or
//! configured, the rest are words of this program. A saga's id is never a label, and no text that a client or a
//! participant sent.
//!
//! | metric | kind | labels | what |
//! | --- | --- | --- | --- |
//! | `saga_started_total` | counter | mode, definition | sagas accepted |
//! | `saga_completed_total` | counter | mode, definition | sagas that ended completed |
//! | `saga_failed_total` | counter | mode, definition, reason, step | sagas that began to fail, by the step that failed |
//! | `saga_execution_duration_seconds` | histogram | mode, definition, status | from start to end, by how it ended |
//! | `saga_step_executions_total` | counter | mode, definition, step, outcome | actions ended |
//! | `saga_compensations_total` | counter | mode, definition, step, outcome | compensations ended |
//! | `active_sagas` | gauge | mode | sagas not ended |
//! | `parked_sagas` | gauge | | sagas that need an operator |
//! | `external_service_call_duration_seconds` | histogram | service, operation, outcome | requests to participants |
//! | `participant_calls_in_flight` | gauge | service | requests being made |
//! | `participant_calls_waiting` | gauge | service | calls waiting in memory for a permit or the rate |
//! | `participant_calls_deferred_total` | counter | service, reason | calls put off |
//! | `circuit_state` | gauge | service | 0 closed, 1 half open, 2 open |
//! | `http_request_duration_seconds` | histogram | method, route, status | requests to this service |
//! | `commit_batch_transitions` | histogram | | transitions and appends in a commit |
//! | `commit_duration_seconds` | histogram | | time a commit took |
//! | `commit_failures_total` | counter | kind | commits that failed |
//! | `commit_queue_length` | gauge | | transitions waiting for the next commit |
//! | `sagas_resident` | gauge | | sagas held in memory |
//! | `timers_waiting` | gauge | | timers that have not fired |
//! | `shards_owned` | gauge | | shards this replica writes |
//! | `shard_takeovers_total` | counter | | shards taken from a replica that had not given them up |
//! | `shards_released_total` | counter | | shards given up in good order |
//! | `shards_lost_total` | counter | | shards lost: not renewed in time, taken by another replica, or in doubt after a commit |
//! | `lease_renewal_failures_total` | counter | | requests to keep leases that failed |
//! | `forwarded_requests_total` | counter | kind, result | requests sent to the owner of a shard |
//!
//! On Linux also the process's own (`process_cpu_seconds_total`, `process_resident_memory_bytes`, ..).

use std::{sync::OnceLock, time::Duration};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};
use skald_core::event::Mode;

/// From half a millisecond to a minute, fine where calls and commits lie.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

const BATCH: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// The metrics of one process, in a registry of their own. Fields without labels are ready handles.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    saga_started: IntCounterVec,
    saga_completed: IntCounterVec,
    saga_failed: IntCounterVec,
    saga_duration: HistogramVec,
    step_executions: IntCounterVec,
    compensations: IntCounterVec,
    active_sagas: IntGaugeVec,
    pub parked_sagas: IntGauge,
    call_duration: HistogramVec,
    calls_in_flight: IntGaugeVec,
    calls_waiting: IntGaugeVec,
    calls_deferred: IntCounterVec,
    circuit_state: IntGaugeVec,
    http_duration: HistogramVec,
    pub commit_batch: Histogram,
    pub commit_duration: Histogram,
    commit_failures: IntCounterVec,
    pub commit_queue: IntGauge,
    pub sagas_resident: IntGauge,
    pub timers_waiting: IntGauge,
    pub shards_owned: IntGauge,
    pub shard_takeovers: IntCounter,
    pub shards_released: IntCounter,
    pub shards_lost: IntCounter,
    pub lease_renewal_failures: IntCounter,
    forwarded: [[IntCounter; ForwardedResult::ALL.len()]; ForwardedKind::ALL.len()],
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("the registry is empty");
        let r = &registry;
        Self {
            saga_started: counters(r, "saga_started_total", "Sagas accepted", &["mode", "definition"]),
            saga_completed: counters(r, "saga_completed_total", "Sagas that completed", &["mode", "definition"]),
            saga_failed: counters(
                r,
                "saga_failed_total",
                "Sagas that began to fail, by the step that failed",
                &["mode", "definition", "reason", "step"],
            ),
            saga_duration: seconds(
                r,
                "saga_execution_duration_seconds",
                "Time from a saga's start to its end",
                &["mode", "definition", "status"],
            ),
            step_executions: counters(
                r,
                "saga_step_executions_total",
                "Actions ended",
                &["mode", "definition", "step", "outcome"],
            ),
            compensations: counters(
                r,
                "saga_compensations_total",
                "Compensations ended",
                &["mode", "definition", "step", "outcome"],
            ),
            active_sagas: gauges(r, "active_sagas", "Sagas not ended", &["mode"]),
            parked_sagas: gauge(r, "parked_sagas", "Sagas that need an operator"),
            call_duration: seconds(
                r,
                "external_service_call_duration_seconds",
                "Time of a request to a participant",
                &["service", "operation", "outcome"],
            ),
            calls_in_flight: gauges(r, "participant_calls_in_flight", "Requests being made", &["service"]),
            calls_waiting: gauges(
                r,
                "participant_calls_waiting",
                "Calls waiting in memory for a permit or the rate",
                &["service"],
            ),
            calls_deferred: counters(r, "participant_calls_deferred_total", "Calls put off", &["service", "reason"]),
            circuit_state: gauges(r, "circuit_state", "0 closed, 1 half open, 2 open", &["service"]),
            http_duration: seconds(
                r,
                "http_request_duration_seconds",
                "Time of a request to this service",
                &["method", "route", "status"],
            ),
            commit_batch: histogram(r, "commit_batch_transitions", "Transitions and appends in a commit", &BATCH),
            commit_duration: histogram(r, "commit_duration_seconds", "Time a commit took", &SECONDS),
            commit_failures: counters(r, "commit_failures_total", "Commits that failed", &["kind"]),
            commit_queue: gauge(r, "commit_queue_length", "Transitions waiting for the next commit"),
            sagas_resident: gauge(r, "sagas_resident", "Sagas held in memory"),
            timers_waiting: gauge(r, "timers_waiting", "Timers that have not fired"),
            shards_owned: gauge(r, "shards_owned", "Shards this replica writes"),
            shard_takeovers: counter(
                r,
                "shard_takeovers_total",
                "Shards taken from a replica that had not given them up",
            ),
            shards_released: counter(r, "shards_released_total", "Shards given up in good order"),
            shards_lost: counter(
                r,
                "shards_lost_total",
                "Shards lost: not renewed in time, taken by another replica, or in doubt after a commit",
            ),
            lease_renewal_failures: counter(r, "lease_renewal_failures_total", "Requests to keep leases that failed"),
            forwarded: forwarded(r),
            registry,
        }
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "the metrics cannot be written as text");
            String::new()
        })
    }

    pub fn saga_started(&self, mode: Mode, definition: &str) {
        self.saga_started.with_label_values(&[mode.as_str(), definition]).inc();
    }

    /// `status` is the saga's final status.
    pub fn saga_ended(&self, mode: Mode, definition: &str, status: &'static str, took: Duration) {
        if status == "completed" {
            self.saga_completed.with_label_values(&[mode.as_str(), definition]).inc();
        }
        self.saga_duration.with_label_values(&[mode.as_str(), definition, status]).observe(took.as_secs_f64());
    }

    /// `code` is the failure's code as the saga carries it; a participant's own codes are counted as one.
    pub fn saga_failed(&self, mode: Mode, definition: &str, step: &str, code: &str) {
        self.saga_failed.with_label_values(&[mode.as_str(), definition, failure_reason(code), step]).inc();
    }

    pub fn step_ended(&self, mode: Mode, definition: &str, step: &str, outcome: &'static str) {
        self.step_executions.with_label_values(&[mode.as_str(), definition, step, outcome]).inc();
    }

    pub fn compensation_ended(&self, mode: Mode, definition: &str, step: &str, outcome: &'static str) {
        self.compensations.with_label_values(&[mode.as_str(), definition, step, outcome]).inc();
    }

    #[must_use]
    pub fn active_sagas(&self, mode: Mode) -> IntGauge {
        self.active_sagas.with_label_values(&[mode.as_str()])
    }

    pub fn commit_failed(&self, kind: &'static str) {
        self.commit_failures.with_label_values(&[kind]).inc();
    }

    /// `route` is the route's pattern, never the path that was asked for.
    pub fn http_request(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        let status = StatusText::new(status);
        self.http_duration.with_label_values(&[method, route, status.as_str()]).observe(took.as_secs_f64());
    }

    pub fn forwarded(&self, kind: ForwardedKind, result: ForwardedResult) {
        self.forwarded[kind as usize][result as usize].inc();
    }

    /// The handles of one participant.
    #[must_use]
    pub fn service(&self, service: &str) -> ServiceMetrics {
        ServiceMetrics {
            service: service.to_owned(),
            in_flight: self.calls_in_flight.with_label_values(&[service]),
            waiting: self.calls_waiting.with_label_values(&[service]),
            circuit: self.circuit_state.with_label_values(&[service]),
            durations: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
            call_duration: self.call_duration.clone(),
            deferred: DeferReason::ALL.map(|reason| self.calls_deferred.with_label_values(&[service, reason.as_str()])),
        }
    }
}

/// The metrics of calling one participant, looked up once.
#[derive(Debug)]
pub struct ServiceMetrics {
    service: String,
    pub in_flight: IntGauge,
    pub waiting: IntGauge,
    pub circuit: IntGauge,
    // Made at first use, so that combinations that never happen are not exposed.
    durations: [[OnceLock<Histogram>; CallOutcome::ALL.len()]; CallKind::ALL.len()],
    call_duration: HistogramVec,
    deferred: [IntCounter; DeferReason::ALL.len()],
}

impl ServiceMetrics {
    pub fn called(&self, kind: CallKind, outcome: CallOutcome, took: Duration) {
        self.durations[kind as usize][outcome as usize]
            .get_or_init(|| self.call_duration.with_label_values(&[&self.service, kind.as_str(), outcome.as_str()]))
            .observe(took.as_secs_f64());
    }

    pub fn deferred(&self, reason: DeferReason) {
        self.deferred[reason as usize].inc();
    }
}

/// Declares the values of a label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

label! {
    /// What a request to a participant is for.
    CallKind { Action = "action", Compensation = "compensation", Poll = "poll", Status = "status" }
}

label! {
    /// How a request to a participant ended.
    CallOutcome {
        Status1xx = "1xx",
        Status2xx = "2xx",
        Status3xx = "3xx",
        Status4xx = "4xx",
        Status5xx = "5xx",
        /// Nothing left this machine.
        NotSent = "not_sent",
        TimedOut = "timeout",
        /// The connection ended before a whole answer was here.
        Broken = "broken",
    }
}

label! {
    /// Why a call is put off.
    DeferReason {
        Paused = "paused",
        CircuitOpen = "circuit_open",
        QueueFull = "queue_full",
        NoPermit = "no_permit",
        RateSpent = "rate_spent",
    }
}

label! {
    /// What is sent to the owner of a shard.
    ForwardedKind { Start = "start", Operator = "operator", Callback = "callback", Report = "report", Append = "append" }
}

label! {
    /// What the owner said.
    ForwardedResult {
        Accepted = "accepted",
        Refused = "refused",
        /// It does not own the shard, or not any more.
        NotOwner = "not_owner",
        /// It was not carried out.
        Unreached = "unreached",
        /// It may have been carried out.
        Unknown = "unknown",
    }
}

impl CallOutcome {
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        match status {
            ..200 => Self::Status1xx,
            200..300 => Self::Status2xx,
            300..400 => Self::Status3xx,
            400..500 => Self::Status4xx,
            500.. => Self::Status5xx,
        }
    }
}

/// The engine's own failure codes; they are documented and few.
const ENGINE_CODES: [&str; 16] = [
    "attempts_exhausted",
    "cancelled",
    "compensation_exhausted",
    "deadline_exceeded",
    "expression_failed",
    "force_compensated",
    "in_flight",
    "interrupted",
    "misconfigured",
    "no_compensation",
    "outcome_unknown",
    "output_invalid",
    "rejected",
    "resolved_rejected",
    "step_timeout",
    "unreachable",
];

/// A failure's code as a label: the engine's own as they are, all those of participants as one.
fn failure_reason(code: &str) -> &'static str {
    ENGINE_CODES.into_iter().find(|known| *known == code).unwrap_or("participant")
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

fn forwarded(registry: &Registry) -> [[IntCounter; ForwardedResult::ALL.len()]; ForwardedKind::ALL.len()] {
    let help = "Requests sent to the owner of a shard";
    let counters = counters(registry, "forwarded_requests_total", help, &["kind", "result"]);
    ForwardedKind::ALL
        .map(|kind| ForwardedResult::ALL.map(|result| counters.with_label_values(&[kind.as_str(), result.as_str()])))
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("names and labels are constants that a test has tried");
    registry.register(Box::new(metric.clone())).expect("each metric is registered once");
    metric
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    add(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    add(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    add(registry, IntCounter::new(name, help))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    add(registry, IntGauge::new(name, help))
}

fn seconds(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    add(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    add(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prometheus::proto::MetricType;

    use super::*;

    /// Name to kind and labels, as the table at the top says.
    fn documented() -> BTreeMap<String, (String, Vec<String>)> {
        include_str!("metrics.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `"))
            .map(|row| {
                let cells: Vec<&str> = row.split('|').map(str::trim).collect();
                let mut labels: Vec<String> = cells[2]
                    .split(',')
                    .map(|label| label.trim().to_owned())
                    .filter(|label| !label.is_empty())
                    .collect();
                labels.sort();
                (cells[0].trim_end_matches('`').to_owned(), (cells[1].to_owned(), labels))
            })
            .collect()
    }

    /// The same, as the registry has it, after every metric was used once.
    fn registered(metrics: &Metrics) -> BTreeMap<String, (String, Vec<String>)> {
        metrics
            .registry
            .gather()
            .iter()
            .filter(|family| !family.name().starts_with("process_"))
            .map(|family| {
                let kind = match family.get_field_type() {
                    MetricType::COUNTER => "counter",
                    MetricType::GAUGE => "gauge",
                    MetricType::HISTOGRAM => "histogram",
                    other => panic!("{other:?}"),
                };
                let mut labels: Vec<String> =
                    family.get_metric()[0].get_label().iter().map(|pair| pair.name().to_owned()).collect();
                labels.sort();
                (family.name().to_owned(), (kind.to_owned(), labels))
            })
            .collect()
    }

    fn used() -> Metrics {
        let metrics = Metrics::new();
        let mode = Mode::Orchestrated;
        metrics.saga_started(mode, "checkout");
        metrics.saga_ended(mode, "checkout", "completed", Duration::from_millis(7));
        metrics.saga_failed(mode, "checkout", "process_payment", "card_declined");
        metrics.step_ended(mode, "checkout", "process_payment", "rejected");
        metrics.compensation_ended(mode, "checkout", "reserve_stock", "succeeded");
        metrics.active_sagas(mode).inc();
        metrics.commit_failed("shard_lost");
        metrics.http_request("GET", "/sagas/{id}", 200, Duration::from_millis(1));
        metrics.service("sales").called(CallKind::Action, CallOutcome::Status2xx, Duration::from_millis(3));
        metrics
    }

    #[test]
    fn the_table_lists_exactly_what_is_registered() {
        assert_eq!(documented(), registered(&used()));
    }

    #[test]
    fn the_text_holds_what_was_counted() {
        let text = used().render();
        for line in [
            r#"saga_started_total{definition="checkout",mode="orchestrated"} 1"#,
            r#"saga_failed_total{definition="checkout",mode="orchestrated",reason="participant",step="process_payment"} 1"#,
            r#"http_request_duration_seconds_count{method="GET",route="/sagas/{id}",status="200"} 1"#,
            r#"external_service_call_duration_seconds_bucket{operation="action",outcome="2xx",service="sales",le="0.005"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(text.contains("process_resident_memory_bytes"), cfg!(target_os = "linux"));
    }

    #[test]
    fn a_participants_codes_do_not_become_labels() {
        assert_eq!(failure_reason("unreachable"), "unreachable");
        assert_eq!(failure_reason("card_declined_4711"), "participant");
    }
}
