//! Every metric of the service.
//!
//! Labels have few values by construction: definitions, steps and services come from what operators registered or
//! configured, the rest are words of this program. A saga's id is never a label, and no text that a client or a
//! participant sent, but for the largest categories of streams.
//!
//! | metric | kind | labels | what |
//! | --- | --- | --- | --- |
//! | `saga_started_total` | counter | mode, definition | sagas accepted |
//! | `saga_completed_total` | counter | mode, definition | sagas that ended completed |
//! | `saga_failed_total` | counter | mode, definition, reason, step | sagas that began to fail, by the step that failed |
//! | `saga_execution_duration_seconds` | histogram | mode, definition, status | from start to end, by how it ended |
//! | `saga_step_executions_total` | counter | mode, definition, step, outcome | actions ended |
//! | `saga_compensations_total` | counter | mode, definition, step, outcome | compensations ended |
//! | `saga_choreo_success_total` | counter | definition | choreographed sagas that ended completed |
//! | `saga_choreo_failed_total` | counter | definition | choreographed sagas that ended compensated or abandoned |
//! | `active_sagas` | gauge | mode | sagas not ended |
//! | `parked_sagas` | gauge | mode | sagas that need an operator |
//! | `events_published_total` | counter | mode | events made durable in the log, from which all consumers read; `none`: of no saga |
//! | `event_store_operations_total` | counter | operation, result | streams appended to, or read by the engine |
//! | `event_store_event_count` | gauge | category | events ever written to the log, by all replicas; the largest 20 categories, the others as `_other` |
//! | `events_relayed_total` | counter | | events given to the bus |
//! | `relay_lag_events` | gauge | | durable events of this replica's shards that the bus does not have yet |
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
//! | `retention_runs_total` | counter | result | searches for what is old, by this replica |
//! | `retention_removed_total` | counter | kind | sagas, other streams and events that this replica archived and removed |
//! | `retention_oldest_kept_timestamp_seconds` | gauge | | Unix time at which the oldest stream in the database began, as of this replica's last run; 0 before |
//! | `spans_total` | counter | result | spans given to the collector, or dropped |
//! | `webhook_attempts_total` | counter | outcome | messages that this replica sent to webhooks |
//! | `forwarded_requests_total` | counter | kind, result | requests sent to the owner of a shard |
//!
//! On Linux also the process's own (`process_cpu_seconds_total`, `process_resident_memory_bytes`, ..).

mod calls;
mod engine;
mod events;
mod http;
mod labels;
mod register;
mod retention;
mod sagas;
mod shards;
mod spans;
mod webhooks;

use prometheus::{Registry, TextEncoder};

use self::{
    calls::CallMetrics, engine::EngineMetrics, events::EventMetrics, http::HttpMetrics, retention::RetentionMetrics,
    sagas::SagaMetrics, shards::ShardMetrics, spans::SpanMetrics, webhooks::WebhookMetrics,
};
pub use self::{
    calls::{CallKind, CallOutcome, DeferReason, ServiceMetrics},
    events::{OperationResult, StoreOperation},
    retention::RetentionResult,
    sagas::is_engine_code,
    shards::{ForwardedKind, ForwardedResult},
    webhooks::WebhookOutcome,
};

/// The metrics of one process, in a registry of their own, by topic.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub sagas: SagaMetrics,
    pub events: EventMetrics,
    pub calls: CallMetrics,
    pub http: HttpMetrics,
    pub engine: EngineMetrics,
    pub shards: ShardMetrics,
    pub retention: RetentionMetrics,
    pub webhooks: WebhookMetrics,
    pub spans: SpanMetrics,
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
        Self {
            sagas: SagaMetrics::new(&registry),
            events: EventMetrics::new(&registry),
            calls: CallMetrics::new(&registry),
            http: HttpMetrics::new(&registry),
            engine: EngineMetrics::new(&registry),
            shards: ShardMetrics::new(&registry),
            retention: RetentionMetrics::new(&registry),
            webhooks: WebhookMetrics::new(&registry),
            spans: SpanMetrics::new(&registry),
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
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use prometheus::proto::MetricType;
    use skald_core::event::Mode;

    use super::*;

    /// Name to kind and labels, as the table at the top says.
    fn documented() -> BTreeMap<String, (String, Vec<String>)> {
        include_str!("mod.rs")
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
        let sagas = &metrics.sagas;
        sagas.started(mode, "checkout");
        sagas.ended(mode, "checkout", "completed", Duration::from_millis(7));
        sagas.failed(mode, "checkout", "process_payment", "card_declined");
        sagas.step_ended(mode, "checkout", "process_payment", "rejected");
        sagas.compensation_ended(mode, "checkout", "reserve_stock", "succeeded");
        sagas.active(mode).inc();
        sagas.parked(mode).inc();
        for status in ["completed", "compensated", "abandoned"] {
            sagas.ended(Mode::Choreographed, "checkout", status, Duration::from_millis(9));
        }
        metrics.events.published(Some(Mode::Choreographed), 3);
        metrics.events.published(None, 2);
        metrics.retention.removed(2, 1, 9);
        metrics.events.stored([("saga", 7), ("cart", 2), ("saga", 3)]);
        metrics.engine.commit_failed("shard_lost");
        metrics.http.request("GET", "/sagas/{id}", 200, Duration::from_millis(1));
        metrics.calls.of("sales").called(CallKind::Action, CallOutcome::Status2xx, Duration::from_millis(3));
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
            r#"saga_choreo_success_total{definition="checkout"} 1"#,
            r#"saga_choreo_failed_total{definition="checkout"} 2"#,
            r#"events_published_total{mode="choreographed"} 3"#,
            r#"events_published_total{mode="none"} 2"#,
            r#"retention_removed_total{kind="event"} 9"#,
            r#"event_store_event_count{category="saga"} 10"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(text.contains("process_resident_memory_bytes"), cfg!(target_os = "linux"));
    }
}
