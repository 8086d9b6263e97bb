//! What the engine tells the metrics and the log about each durable transition.

use std::time::Duration;

use skald_core::{
    definition::Definition,
    event::{Event, Mode},
    ids::Operation,
    shard::{
        batch::{Batch, CommitError, Transition},
        writer::Load,
    },
    state::{SagaRow, Status},
};

use super::census::Census;
use crate::{
    dispatch::TraceParent,
    metrics::{Metrics, OperationResult, PublishTarget, StoreOperation},
    storage::StoreError,
};

/// `parent`: the `traceparent` of whoever started the saga.
pub(super) fn committed(metrics: &Metrics, transition: &Transition, definition: &Definition, parent: Option<&str>) {
    let row = &transition.row;
    for event in &transition.events {
        count(metrics, row, &event.event);
    }
    if row.status.is_ended() {
        let took = row.ended_at.map_or(0, |ended| row.created_at.until(ended).0);
        metrics.sagas.ended(row.mode, &definition.name, row.status.as_str(), Duration::from_millis(took));
    }
    log(row, parent);
}

fn count(metrics: &Metrics, row: &SagaRow, event: &Event) {
    let (sagas, mode, definition) = (&metrics.sagas, row.mode, &*row.definition);
    let ended = |step: &str, outcome| sagas.step_ended(mode, definition, step, outcome);
    let undone = |step: &str, outcome| sagas.compensation_ended(mode, definition, step, outcome);
    match event {
        Event::SagaStarted(_) => sagas.started(mode, definition),
        Event::StepSucceeded(event) => ended(&event.step, "succeeded"),
        Event::StepOutputInvalid(event) => ended(&event.step, "succeeded"),
        Event::StepRejected(event) => ended(&event.step, "rejected"),
        Event::StepUnknown(event) => ended(&event.step, "unknown"),
        Event::StepSkipped(event) => ended(&event.step, "skipped"),
        Event::StepCompensated(event) => undone(&event.step, "compensated"),
        Event::CompensationSkipped(event) => undone(&event.step, "skipped"),
        Event::StepParked(event) => match event.operation {
            Operation::Action => ended(&event.step, "parked"),
            Operation::Compensation => undone(&event.step, "parked"),
        },
        Event::SagaFailed(event) => {
            sagas.failed(mode, definition, event.step.as_deref().unwrap_or(""), &event.code);
        }
        Event::SagaTakenOver(_)
        | Event::StepStarted(_)
        | Event::AttemptFailed(_)
        | Event::StepAccepted(_)
        | Event::StepDoubted(_)
        | Event::StepRetried(_)
        | Event::SagaTimedOut(_)
        | Event::SagaCompleted(_)
        | Event::SagaCompensated(_)
        | Event::SagaAbandoned(_)
        | Event::OperatorActed(_) => {}
    }
}

/// Who runs thousands a second learns nothing from a line for each that went well.
fn log(row: &SagaRow, parent: Option<&str>) {
    let (saga_id, definition, correlation_id) = (row.id, &*row.definition, &*row.correlation_id);
    // Made only for a line that is written.
    let trace = || TraceParent::child(parent, row.id, 1);
    match (row.status, &row.failure) {
        (Status::Parked, _) => {
            tracing::warn!(%saga_id, definition, correlation_id, trace_id = trace().trace_id(), revision = row.version, "saga parked: it needs an operator");
        }
        (Status::Compensated | Status::Abandoned, failure) => {
            let failure = failure.as_ref().map_or("", |failure| failure.code.as_str());
            tracing::info!(%saga_id, definition, correlation_id, trace_id = trace().trace_id(), status = row.status.as_str(), failure, "saga ended");
        }
        (Status::Completed | Status::Running | Status::Compensating, _) => {
            tracing::debug!(%saga_id, definition, correlation_id, trace_id = trace().trace_id(), state = row.state, revision = row.version, "saga moved");
        }
    }
}

pub(super) fn commit_ended(metrics: &Metrics, batch: &Batch, took: Duration, result: &Result<(), CommitError>) {
    let streams = batch.transitions.len() + batch.appends.len();
    metrics.engine.commit_duration.observe(took.as_secs_f64());
    let outcome = if result.is_ok() { OperationResult::Done } else { OperationResult::Failed };
    metrics.events.publishing_ended(PublishTarget::Log, took, outcome);
    let kind = match result {
        Ok(()) => {
            metrics.engine.commit_batch.observe(streams as f64);
            metrics.events.operated(StoreOperation::Append, OperationResult::Done, streams);
            return published(metrics, batch);
        }
        Err(CommitError::Fenced(_)) => "fenced",
        Err(CommitError::Refused(_)) => "refused",
        Err(CommitError::NotApplied(_)) => "not_applied",
        Err(CommitError::InDoubt(_)) => "in_doubt",
    };
    metrics.engine.commit_failed(kind);
    metrics.events.operated(StoreOperation::Append, OperationResult::Failed, streams);
}

fn published(metrics: &Metrics, batch: &Batch) {
    for transition in &batch.transitions {
        metrics.events.published(Some(transition.row.mode), transition.events.len());
    }
    for append in &batch.appends {
        metrics.events.published(None, append.events.len());
    }
}

pub(super) fn loaded<T>(metrics: &Metrics, stream: &Result<T, StoreError>) {
    let result = if stream.is_ok() { OperationResult::Done } else { OperationResult::Failed };
    metrics.events.operated(StoreOperation::Load, result, 1);
}

pub(super) fn load(metrics: &Metrics, load: &Load, census: &Census) {
    let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    for mode in [Mode::Orchestrated, Mode::Choreographed] {
        metrics.sagas.active(mode).set(gauge(census.unfinished(mode)));
        metrics.sagas.parked(mode).set(gauge(census.parked(mode)));
    }
    metrics.engine.sagas_resident.set(gauge(load.resident));
    metrics.engine.timers_waiting.set(gauge(load.timers));
    metrics.engine.commit_queue.set(gauge(load.queued));
    metrics.shards.owned.set(gauge(load.shards));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use skald_core::{
        event::{SagaCompensated, StepStarted},
        ids::{SagaId, Shard},
        shard::batch::{Append, AppendedEvent, NewEvent, Origin},
        time::Timestamp,
    };

    use super::*;

    const AT: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn id(number: u8) -> SagaId {
        SagaId::new(AT, [number; 10], Shard(0), 1)
    }

    fn ended(number: u8, mode: Mode) -> Transition {
        let row = SagaRow {
            id: id(number),
            definition: Arc::from("checkout"),
            definition_version: 1,
            mode,
            status: Status::Compensated,
            state: String::new(),
            version: 7,
            correlation_id: Arc::from(""),
            failure: None,
            created_at: AT,
            updated_at: AT,
            ended_at: Some(AT),
            deadline_at: None,
            wake_at: None,
        };
        let event = |version, event: Event| NewEvent {
            version,
            type_name: Arc::from(event.kind()),
            occurred_at: AT,
            actor: None,
            origin: Origin::default(),
            event,
        };
        let undone = StepStarted { step: "pay".into(), operation: Operation::Compensation, ahead: Vec::new() };
        let events = vec![event(6, undone.into()), event(7, SagaCompensated {}.into())];
        Transition { shard: Shard(0), row, events, start_key: None, sealed_under: None }
    }

    fn append() -> Append {
        let event = AppendedEvent {
            version: 1,
            event_id: Arc::from("e-1"),
            type_name: Arc::from("ItemAdded"),
            schema_version: 1,
            occurred_at: AT,
            actor: None,
            correlation_id: None,
            causation_id: None,
            data: serde_json::value::to_raw_value("").unwrap(),
        };
        let name = Arc::from("cart-1");
        Append { shard: Shard(0), stream: id(9), name, version_before: 0, events: vec![event] }
    }

    #[test]
    fn events_are_counted_by_mode_once_they_are_durable() {
        let metrics = Metrics::new();
        let transitions = vec![ended(1, Mode::Orchestrated), ended(2, Mode::Choreographed)];
        let batch = Batch { fences: Vec::new(), transitions, appends: vec![append()] };
        commit_ended(&metrics, &batch, Duration::ZERO, &Err(CommitError::NotApplied("disk full".to_owned())));
        commit_ended(&metrics, &batch, Duration::ZERO, &Ok(()));
        let text = metrics.render();
        for line in [
            r#"events_published_total{mode="orchestrated"} 2"#,
            r#"events_published_total{mode="choreographed"} 2"#,
            r#"events_published_total{mode="none"} 1"#,
            r#"event_publish_duration_seconds_count{target="log"} 1"#,
            r#"event_publish_errors_total{target="log"} 1"#,
            r#"event_store_operations_total{operation="append",result="done"} 3"#,
            r#"event_store_operations_total{operation="append",result="failed"} 3"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
