//! One leg of the comparison: a mode, a round, a closed loop of clients. A client starts its next saga when its last one
//! has ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use indicatif::ProgressBar;
use serde_json::Value;
use skald_core::event::Mode;
use tokio::{task::JoinSet, time::Instant};

use super::{
    server::{NotStarted, Refused, Saga, Server},
    workload::{Outcome, Workload},
};

/// After a request that was not answered.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What to run.
#[derive(Clone, Debug)]
pub struct Leg {
    pub server: Server,
    pub workload: Workload,
    pub mode: Mode,
    /// Number of the first order; both modes get the same ones.
    pub from: u64,
    pub budget: Budget,
    pub clients: u32,
    pub patience: Duration,
    /// Begins the correlation ids, so that the sagas of a run can be found.
    pub run: String,
    pub bar: ProgressBar,
}

/// When no more sagas are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    Sagas(u64),
    Time(Duration),
}

/// What a leg came to.
#[derive(Debug, Default)]
pub struct Run {
    pub samples: Vec<Sample>,
    /// From the first start to the last end.
    pub took: Duration,
}

/// One saga.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The order's number.
    pub order: u64,
    pub planted: Outcome,
    pub end: End,
    /// From the request to knowing of the end, as the client sees it.
    pub took: Duration,
}

#[derive(Clone, Debug)]
pub enum End {
    Ended(Box<Ended>),
    /// It needs an operator.
    Parked,
    /// Patience ran out.
    Unfinished,
    /// Nobody knows whether it exists; why.
    Unanswered(String),
}

/// A saga that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    pub id: String,
    pub status: String,
    pub state: String,
    pub failure: Option<(Option<String>, String)>,
    pub output: Option<Value>,
    /// From its creation to its end, by the server's clock.
    pub by_server: Duration,
    /// From the failure to the end, of a saga that was compensated.
    pub undoing: Option<Duration>,
    pub events: u64,
    /// Attempts that its steps tell of.
    pub attempts: u64,
}

impl Leg {
    /// Runs it to its end. Dropped before, it starts no more sagas; those that were started go on without it.
    ///
    /// # Errors
    ///
    /// When the server refuses to start such sagas at all.
    pub async fn run(self) -> Result<Run, Refused> {
        let begun = Instant::now();
        let (leg, next) = (Arc::new(self), Arc::new(AtomicU64::new(0)));
        let mut clients = JoinSet::new();
        for _ in 0..leg.clients {
            let (leg, next) = (Arc::clone(&leg), Arc::clone(&next));
            clients.spawn(async move { leg.client(begun, &next).await });
        }
        let mut run = Run::default();
        while let Some(samples) = clients.join_next().await {
            run.samples.extend(samples.expect("a client does not panic")?);
        }
        run.took = begun.elapsed();
        run.samples.sort_by_key(|sample| sample.order);
        Ok(run)
    }

    async fn client(&self, begun: Instant, next: &AtomicU64) -> Result<Vec<Sample>, Refused> {
        let mut samples = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let spent = match self.budget {
                Budget::Sagas(count) => index >= count,
                Budget::Time(time) => begun.elapsed() >= time,
            };
            if spent {
                return Ok(samples);
            }
            samples.push(self.saga(self.from + index).await?);
            self.bar.inc(1);
        }
    }

    async fn saga(&self, number: u64) -> Result<Sample, Refused> {
        let order = self.workload.order(number);
        let correlation_id = format!("{}-{}-{number}", self.run, self.mode.as_str());
        let begun = Instant::now();
        let to_the_end = async {
            let mut saga = loop {
                match self.server.start(self.mode, &order, &correlation_id).await {
                    Ok(saga) => break saga,
                    Err(NotStarted::Busy(pause)) => tokio::time::sleep(pause).await,
                    Err(NotStarted::Refused(refused)) => return Err(refused),
                    Err(NotStarted::Unanswered(why)) => {
                        // A server that is gone is not asked as fast as can be.
                        tokio::time::sleep(AGAIN_AFTER).await;
                        return Ok(End::Unanswered(why));
                    }
                }
            };
            loop {
                if let Some(end) = end(&saga) {
                    return Ok(end);
                }
                match self.server.look(&saga.id).await {
                    Ok(seen) => saga = seen,
                    Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
                }
            }
        };
        let end = tokio::time::timeout(self.patience, to_the_end).await.unwrap_or(Ok(End::Unfinished))?;
        Ok(Sample { order: number, planted: order.outcome, end, took: begun.elapsed() })
    }
}

/// None while it is on its way.
fn end(saga: &Saga) -> Option<End> {
    let Some(ended_at) = saga.ended_at else { return (saga.status == "parked").then_some(End::Parked) };
    let failed_at = failed_at(saga).filter(|_| saga.status == "compensated");
    Some(End::Ended(Box::new(Ended {
        id: saga.id.clone(),
        status: saga.status.clone(),
        state: saga.state.clone(),
        failure: saga.failure.as_ref().map(|failure| (failure.step.clone(), failure.code.clone())),
        output: saga.output.clone(),
        by_server: between(saga.created_at, ended_at),
        undoing: failed_at.map(|failed_at| between(failed_at, ended_at)),
        events: saga.revision,
        attempts: saga.steps.iter().map(|step| step.attempts.len() as u64).sum(),
    })))
}

/// When the failed step's outcome was known; when no step failed, when the first compensation began.
fn failed_at(saga: &Saga) -> Option<DateTime<Utc>> {
    let failed = saga.failure.as_ref()?.step.as_deref();
    let of_step = saga.steps.iter().find(|step| Some(&*step.id) == failed).and_then(|step| step.ended_at);
    let compensations = saga.steps.iter().filter_map(|step| step.compensation.as_ref());
    of_step.or_else(|| compensations.map(|compensation| compensation.started_at).min())
}

fn between(from: DateTime<Utc>, to: DateTime<Utc>) -> Duration {
    (to - from).to_std().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn saga(changes: Value) -> Saga {
        let mut saga = json!({
            "id": "s", "status": "compensated", "state": "COMPENSATED",
            "failure": {"step": "pay", "code": "payment_declined", "reason": "no"},
            "steps": [
                {"id": "reserve", "ended_at": "2026-01-01T00:00:00.010Z", "attempts": [{}, {}],
                 "compensation": {"status": "compensated", "started_at": "2026-01-01T00:00:00.025Z"}},
                {"id": "pay", "ended_at": "2026-01-01T00:00:00.020Z", "attempts": [{"number": 1}]},
                {"id": "confirm", "attempts": []},
            ],
            "created_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:00.050Z", "revision": 12,
        });
        for (name, value) in changes.as_object().unwrap() {
            saga[name] = value.clone();
        }
        serde_json::from_value(saga).unwrap()
    }

    fn ended(changes: Value) -> Ended {
        match end(&saga(changes)) {
            Some(End::Ended(ended)) => *ended,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_saga_is_undone_from_its_failure_to_its_end() {
        let declined = ended(json!({}));
        assert_eq!(declined.by_server, Duration::from_millis(50));
        assert_eq!(declined.undoing, Some(Duration::from_millis(30)));
        assert_eq!((declined.events, declined.attempts), (12, 3));
        let timed_out = ended(json!({"failure": {"code": "deadline_exceeded", "reason": "late"}}));
        assert_eq!(timed_out.undoing, Some(Duration::from_millis(25)), "no step failed");
        let completed = ended(json!({"status": "completed", "failure": null}));
        assert_eq!((completed.undoing, completed.failure), (None, None));
    }

    #[test]
    fn a_saga_that_goes_on_has_no_end_and_a_parked_one_waits_for_nobody() {
        assert!(end(&saga(json!({"status": "running", "ended_at": null}))).is_none());
        assert!(matches!(end(&saga(json!({"status": "parked", "ended_at": null}))), Some(End::Parked)));
    }
}
