//! Doing what is owed: the handler under the operation's key, and the report in the same transaction.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::value::to_raw_value;
use skald_core::{
    choreography::{Duty, report_of},
    classify::Body,
    decide::{ReportedOutcome, Target},
    ids::{Operation, call_key},
    json::{DEPTH_MAX, Limits, parse_strict},
    state::Outcome,
};

use super::{LocalCall, Means, NotNow, Teller, sagas::Saga};
use crate::{
    answer::Answer,
    barrier::{Cancelled, Tell},
    call::{ActionOutcome, CallContext},
    key::{self, Key},
    outbox::Outgoing,
};

/// What the outcome is reported as, on the saga's stream.
#[derive(Serialize)]
struct Report<'a> {
    step: &'a str,
    operation: Operation,
    #[serde(flatten)]
    outcome: &'a ReportedOutcome,
    started_at: String,
    duration_ms: u64,
}

/// One operation of a saga that is to be brought to its end.
#[derive(Clone)]
struct Task {
    saga: Saga,
    step: Arc<str>,
    operation: Operation,
    started_at: DateTime<Utc>,
    since: Instant,
}

/// Fulfils a duty: afterwards its report is in the outbox, or was before.
pub(super) async fn fulfil(means: &Means, saga: &Saga, duty: Duty) -> Result<(), NotNow> {
    let (step, operation) = (duty.step().into(), duty.operation());
    let task = Task { saga: saga.clone(), step, operation, started_at: Utc::now(), since: Instant::now() };
    match duty {
        Duty::Act { target, .. } => task.run(means, target, None).await,
        Duty::Undo { target, outcome, .. } => task.run(means, target, Some(outcome)).await,
        Duty::Skip { .. } => task.tell(means, &ReportedOutcome::Skipped).await,
        Duty::Reject { code, reason, .. } => task.tell(means, &ReportedOutcome::Rejected { code, reason }).await,
        Duty::Cancel { .. } => task.cancel(means).await,
    }
}

/// Undoes an action whose success the stream refuses; nobody is told.
pub(super) async fn undo_unheard(means: &Means, saga: &Saga, step: &str, target: Target) -> Result<(), NotNow> {
    let (step, operation) = (step.into(), Operation::Compensation);
    let task = Task { saga: saga.clone(), step, operation, started_at: Utc::now(), since: Instant::now() };
    let call = task.call(target, Some(Outcome::Succeeded))?;
    let answer = means.operations.carry_out(call, Arc::new(|_| Tell::Nothing)).await;
    if (200..300).contains(&answer.status) { Ok(()) } else { Err(not_now(&answer)) }
}

impl Task {
    /// Has the handler run, and its answer reported.
    async fn run(self, means: &Means, target: Target, undone: Option<Outcome>) -> Result<(), NotNow> {
        let call = self.call(target, undone)?;
        let told = Arc::new(OnceLock::new());
        let tell: Teller = {
            let (task, told) = (self.clone(), told.clone());
            Arc::new(move |answer| match task.outcome_of(answer) {
                Some(outcome) => {
                    // The same call tells at most once; a duplicate of it has the same answer.
                    let _ = told.set(answer.status);
                    Tell::Event(task.report(&outcome))
                }
                None => Tell::NoOutcome,
            })
        };
        let answer = means.operations.carry_out(call, tell);
        let answer = tokio::time::timeout(self.time_limit(), answer)
            .await
            .map_err(|_| NotNow::because("the operation took longer than its timeout"))?;
        if told.get() == Some(&answer.status) {
            return Ok(());
        }
        // Answered before, or cancelled before. Whatever was told then is on its way, unless the store has lost it.
        match self.outcome_of(&answer) {
            Some(outcome) => self.tell(means, &outcome).await,
            None => Err(not_now(&answer)),
        }
    }

    /// Sees to it that the action has no effect from now on.
    async fn cancel(self, means: &Means) -> Result<(), NotNow> {
        let context = self.context("", "", &[], None)?;
        let cancelled = means.barrier.cancel(context, self.report(&ReportedOutcome::Cancelled)).await;
        match cancelled.map_err(NotNow::because)? {
            Cancelled::Now => Ok(()),
            Cancelled::Before => self.tell(means, &ReportedOutcome::Cancelled).await,
            Cancelled::Answered(answer) => match self.outcome_of(&answer) {
                Some(outcome) => self.tell(means, &outcome).await,
                None => Err(not_now(&answer)),
            },
        }
    }

    /// Puts a report into the outbox, unless it waits there already.
    async fn tell(&self, means: &Means, outcome: &ReportedOutcome) -> Result<(), NotNow> {
        let report = self.report(outcome);
        let emit = means.barrier.db().transaction(move |tx| Box::pin(async move { Ok(tx.emit(report).await?) }));
        emit.await.map_err(NotNow::because)
    }

    fn outcome_of(&self, answer: &Answer) -> Option<ReportedOutcome> {
        let (definition, state) = (self.saga.definition(), self.saga.follower.state()?);
        let body = body_of(answer);
        if self.operation == Operation::Action && answer.status == 409 && is_cancelled(&body) {
            return Some(ReportedOutcome::Cancelled);
        }
        report_of(definition, state, &self.step, self.operation, answer.status, body)
    }

    fn report(&self, outcome: &ReportedOutcome) -> Outgoing {
        let data = Report {
            step: &self.step,
            operation: self.operation,
            outcome,
            started_at: self.started_at.to_rfc3339_opts(SecondsFormat::Micros, true),
            duration_ms: u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        Outgoing {
            stream: self.saga.stream.to_string(),
            event_id: self.key(),
            type_name: None,
            data: to_raw_value(&data).expect("a report has string keys and finite numbers only"),
            correlation_id: self.saga.follower.state().map(|state| state.correlation_id.to_string()),
            causation_id: Some(self.saga.last_event.to_string()),
        }
    }

    fn key(&self) -> String {
        let saga = self.saga.follower.state().map(|state| call_key(state.id, &self.step, self.operation));
        saga.unwrap_or_default()
    }

    fn call(&self, target: Target, undone: Option<Outcome>) -> Result<LocalCall, NotNow> {
        let body = target.body.unwrap_or_default().into_bytes();
        let method = target.method.as_str();
        let path = target.path.split('?').next().unwrap_or_default();
        let context = self.context(method, path, &body, undone)?;
        Ok(LocalCall { context, method, path: target.path, body })
    }

    fn context(&self, method: &str, path: &str, body: &[u8], undone: Option<Outcome>) -> Result<CallContext, NotNow> {
        let state = self.saga.state()?;
        let operation = match self.operation {
            Operation::Action => key::Operation::Action,
            Operation::Compensation => key::Operation::Compensation,
        };
        let saga_id = self.saga.stream.parse().map_err(NotNow::because)?;
        let key = Key { saga_id, step: self.step.to_string(), operation };
        Ok(CallContext {
            deadline: state.deadline_at.and_then(|at| DateTime::from_timestamp_micros(at.as_micros())),
            outcome: undone.map(|outcome| match outcome {
                Outcome::Succeeded => ActionOutcome::Succeeded,
                Outcome::Rejected | Outcome::Unknown => ActionOutcome::Unknown,
            }),
            correlation_id: Some(state.correlation_id.to_string()),
            ..CallContext::local(key, method, path, body)
        })
    }

    /// What the definition gives one attempt.
    fn time_limit(&self) -> Duration {
        let step = self.saga.definition().step(&self.step).map(|(_, step)| step);
        let limit = step.map(|step| match (&step.compensation, self.operation) {
            (Some(compensation), Operation::Compensation) => compensation.timeout,
            _ => step.timeout,
        });
        limit.map_or(Duration::from_secs(10), |limit| Duration::from_millis(limit.0))
    }
}

/// Read as strictly as over HTTP: what is reported is stored.
fn body_of(answer: &Answer) -> Body {
    if answer.body.is_empty() {
        return Body::Empty;
    }
    match parse_strict(&answer.body, Limits { bytes_max: usize::MAX, depth_max: DEPTH_MAX }) {
        Ok(value) => Body::Json(value),
        Err(problem) => Body::Unusable(format!("{}: {}", problem.place, problem.reason)),
    }
}

fn is_cancelled(body: &Body) -> bool {
    matches!(body, Body::Json(body) if body.get("outcome").is_some_and(|outcome| outcome == "cancelled"))
}

fn not_now(answer: &Answer) -> NotNow {
    let text = String::from_utf8_lossy(&answer.body).chars().take(300).collect::<String>();
    let after =
        answer.headers.iter().find(|(name, _)| *name == "Retry-After").and_then(|(_, value)| value.parse().ok());
    NotNow { reason: format!("{} {text}", answer.status), after: after.map(Duration::from_secs) }
}
