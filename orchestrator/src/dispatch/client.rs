//! The dispatcher: finds the participant, passes its gate, makes the call, reports, counts and logs it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use skald_core::{
    classify::{CallReport, CallResult},
    decide::{Invoke, Purpose},
    ids::Operation,
    time::{Millis, Timestamp},
};

use super::{
    Participants, Term,
    breaker::Circuit,
    gate::Held,
    participant::{Call, Context, Exchange, Participant, Unusable},
    trace::TraceParent,
};
use crate::{
    config,
    metrics::{CallKind, Metrics},
    spans::Attempted,
};

/// Calls participants over HTTP, within their limits.
pub struct HttpParticipants {
    participants: HashMap<String, Participant>,
    context: Context,
}

/// How one participant does, for `/readyz` and operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParticipantHealth {
    pub name: String,
    pub circuit: Circuit,
    pub paused: bool,
    pub in_flight: i64,
    pub waiting: i64,
}

impl HttpParticipants {
    /// # Errors
    ///
    /// When the configuration of a participant cannot be used.
    pub fn new(
        participants: &BTreeMap<String, config::Participant>,
        context: Context,
        metrics: &Metrics,
    ) -> Result<Self, Unusable> {
        let participants = participants
            .iter()
            .map(|(name, config)| Ok((name.clone(), Participant::new(name, config, metrics.calls.of(name))?)))
            .collect::<Result<_, _>>()?;
        Ok(Self { participants, context })
    }

    /// Calls of this participant wait from now on; those in flight go on. False: there is none of that name.
    ///
    /// Kept in memory only: whoever persists pauses sets them again after a restart.
    pub fn pause(&self, name: &str) -> bool {
        self.participants.get(name).inspect(|participant| participant.gate.set_paused(true)).is_some()
    }

    /// Undoes [`HttpParticipants::pause`]. Calls put off meanwhile come back within seconds.
    pub fn unpause(&self, name: &str) -> bool {
        self.participants.get(name).inspect(|participant| participant.gate.set_paused(false)).is_some()
    }

    /// All participants, by name.
    #[must_use]
    pub fn health(&self) -> Vec<ParticipantHealth> {
        let mut all: Vec<ParticipantHealth> = self
            .participants
            .iter()
            .map(|(name, Participant { gate, .. })| ParticipantHealth {
                name: name.clone(),
                circuit: gate.circuit(),
                paused: gate.paused(),
                in_flight: gate.metrics.in_flight.get(),
                waiting: gate.metrics.waiting.get(),
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The lease ended under which the call was to be made. Nobody waits for this report, unless the lease was renewed
    /// just now.
    fn too_late(&self, since: Instant) -> CallReport {
        let now = self.context.clock.now();
        let why = "the lease ended before the request was sent".to_owned();
        report(now, since, CallResult::Deferred { until: now.plus(Millis(1)), why })
    }

    fn put_off(&self, invoke: &Invoke, held: Held, since: Instant) -> CallReport {
        let now = self.context.clock.now();
        let until = now.plus(millis(held.wait).max(Millis(1)));
        tracing::debug!(
            saga_id = %invoke.saga,
            step = %invoke.step,
            operation = invoke.operation.as_str(),
            service = %invoke.service,
            correlation_id = %invoke.correlation_id,
            reason = held.reason.as_str(),
            wait_ms = held.wait.as_millis(),
            "call put off"
        );
        report(now, since, CallResult::Deferred { until, why: held.text().to_owned() })
    }

    async fn make(&self, invoke: &Invoke, term: &Term) -> CallReport {
        let asked = Instant::now();
        let Some(participant) = self.participants.get(&invoke.service) else {
            let error = format!("no participant `{}` is configured", invoke.service);
            tracing::warn!(saga_id = %invoke.saga, step = %invoke.step, correlation_id = %invoke.correlation_id, "{error}");
            return report(self.context.clock.now(), asked, CallResult::NotSent { error });
        };
        let gate = &participant.gate;
        let mut pass = match gate.enter(Duration::from_millis(invoke.timeout.0)).await {
            Ok(pass) => pass,
            Err(held) => {
                gate.metrics.deferred(held.reason);
                return self.put_off(invoke, held, asked);
            }
        };
        if term.is_over() {
            return self.too_late(asked);
        }
        let (started_at, started) = (self.context.clock.now(), Instant::now());
        let trace = self.context.spans.of_call(invoke);
        let exchange = participant.exchange(Call { invoke, trace: &trace, term }, &self.context).await;
        if matches!(exchange.result, CallResult::NotSent { .. }) && term.is_over() {
            return self.too_late(asked);
        }
        gate.metrics.called(kind(invoke), exchange.outcome, started.elapsed());
        pass.settle(exchange.health);
        drop(pass);
        log_failure(invoke, &trace, &exchange, started);
        let attempted = Attempted {
            invoke,
            trace: &trace,
            begun: started_at,
            took: started.elapsed(),
            http_status: exchange.http_status(),
            error: exchange.failure().map(|(error, _)| error),
        };
        self.context.spans.attempted(attempted);
        report(started_at, started, exchange.result)
    }
}

impl Participants for HttpParticipants {
    fn call<'a>(&'a self, invoke: &'a Invoke, term: &'a Term) -> BoxFuture<'a, CallReport> {
        Box::pin(self.make(invoke, term))
    }
}

impl fmt::Debug for HttpParticipants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.participants.keys()).finish()
    }
}

fn report(started_at: Timestamp, started: Instant, result: CallResult) -> CallReport {
    CallReport { started_at, duration: millis(started.elapsed()), result }
}

/// Rounded up.
fn millis(span: Duration) -> Millis {
    Millis(u64::try_from(span.as_micros().div_ceil(1000)).unwrap_or(u64::MAX))
}

const fn kind(invoke: &Invoke) -> CallKind {
    match (invoke.purpose, invoke.operation) {
        (Purpose::Attempt, Operation::Action) => CallKind::Action,
        (Purpose::Attempt, Operation::Compensation) => CallKind::Compensation,
        (Purpose::Poll, _) => CallKind::Poll,
        (Purpose::Status, _) => CallKind::Status,
    }
}

/// The one line about a failed attempt.
fn log_failure(invoke: &Invoke, trace: &TraceParent, exchange: &Exchange, started: Instant) {
    // A macro, because a level is part of a call site.
    macro_rules! line {
        ($level:ident, $error:expr) => {
            tracing::$level!(
                saga_id = %invoke.saga,
                step = %invoke.step,
                operation = invoke.operation.as_str(),
                attempt = invoke.attempt,
                service = %invoke.service,
                correlation_id = %invoke.correlation_id,
                trace_id = trace.trace_id(),
                duration_ms = started.elapsed().as_millis(),
                error = $error,
                "attempt failed"
            )
        };
    }
    match exchange.failure() {
        Some((error, true)) => line!(info, error),
        Some((error, false)) => line!(debug, error),
        None => {}
    }
}
