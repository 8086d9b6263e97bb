//! What the engine tells the metrics and the log about each durable transition.

use std::time::Duration;

use skald_core::{
    definition::Definition,
    event::{Event, Mode},
    ids::Operation,
    shard::{
        batch::{CommitError, Transition},
        writer::Load,
    },
    state::{SagaRow, Status},
};

use crate::metrics::Metrics;

pub(super) fn committed(metrics: &Metrics, transition: &Transition, definition: &Definition) {
    let row = &transition.row;
    for event in &transition.events {
        count(metrics, row, &event.event);
    }
    if row.status.is_ended() {
        let took = row.ended_at.map_or(0, |ended| row.created_at.until(ended).0);
        metrics.saga_ended(row.mode, &definition.name, row.status.as_str(), Duration::from_millis(took));
    }
    log(row);
}

fn count(metrics: &Metrics, row: &SagaRow, event: &Event) {
    let (mode, definition) = (row.mode, &*row.definition);
    let ended = |step: &str, outcome| metrics.step_ended(mode, definition, step, outcome);
    let undone = |step: &str, outcome| metrics.compensation_ended(mode, definition, step, outcome);
    match event {
        Event::SagaStarted(_) => metrics.saga_started(mode, definition),
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
            metrics.saga_failed(mode, definition, event.step.as_deref().unwrap_or(""), &event.code);
        }
        Event::SagaTakenOver(_)
        | Event::StepStarted(_)
        | Event::AttemptFailed(_)
        | Event::StepAccepted(_)
        | Event::StepDoubted(_)
        | Event::StepRetried(_)
        | Event::SagaCompleted(_)
        | Event::SagaCompensated(_)
        | Event::SagaAbandoned(_)
        | Event::OperatorActed(_) => {}
    }
}

fn log(row: &SagaRow) {
    let (saga, definition, correlation_id) = (row.id, &*row.definition, &*row.correlation_id);
    match (row.status, &row.failure) {
        (Status::Parked, _) => {
            tracing::warn!(%saga, definition, correlation_id, revision = row.version, "saga parked: it needs an operator");
        }
        (Status::Completed | Status::Compensated | Status::Abandoned, failure) => {
            let failure = failure.as_ref().map_or("", |failure| failure.code.as_str());
            tracing::info!(%saga, definition, correlation_id, status = row.status.as_str(), failure, "saga ended");
        }
        (Status::Running | Status::Compensating, _) => {
            tracing::debug!(%saga, definition, correlation_id, state = row.state, revision = row.version, "saga moved");
        }
    }
}

pub(super) fn commit_ended(metrics: &Metrics, changes: usize, took: Duration, result: &Result<(), CommitError>) {
    metrics.commit_duration.observe(took.as_secs_f64());
    let kind = match result {
        Ok(()) => return metrics.commit_batch.observe(changes as f64),
        Err(CommitError::Fenced(_)) => "fenced",
        Err(CommitError::Refused(_)) => "refused",
        Err(CommitError::NotApplied(_)) => "not_applied",
        Err(CommitError::InDoubt(_)) => "in_doubt",
    };
    metrics.commit_failed(kind);
}

pub(super) fn load(metrics: &Metrics, load: &Load, parked: usize) {
    let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    metrics.active_sagas(Mode::Orchestrated).set(gauge(load.unfinished));
    metrics.parked_sagas.set(gauge(parked));
    metrics.sagas_resident.set(gauge(load.resident));
    metrics.timers_waiting.set(gauge(load.timers));
    metrics.commit_queue.set(gauge(load.queued));
    metrics.shards_owned.set(gauge(load.shards));
}
