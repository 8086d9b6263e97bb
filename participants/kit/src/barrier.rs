//! The barrier between an orchestrator's calls and a service's handlers.
//!
//! Each call is one transaction: lock the action key's row, judge ([`crate::record`] has the table),
//! run the handler, store the answer, write the ledger, commit. Whatever interrupts it, a crash
//! included, leaves all of that or nothing, and a repeated call finds out which.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use serde_json::json;

use crate::{
    answer::{Answer, Failure, Problem, Rejection, Reply, is_lock_timeout, problems},
    call::CallContext,
    db::Db,
    gate::Gate,
    key::Operation,
    ledger,
    record::{self, Record, Verdict},
    tx::{Tx, TxFuture},
};

/// Keys are removed a little later than they are refused, so that clocks may differ by this much.
const PURGE_MARGIN: Duration = Duration::from_secs(600);

/// What a [`Barrier`] keeps and how long it waits.
#[derive(Debug, Clone)]
pub struct BarrierOptions {
    /// How long keys are kept, counted from the saga's creation; `None` keeps them for ever. Calls of
    /// older sagas are answered 410 `expired`, actions too: without the key nobody can tell whether
    /// the call, or its compensation, has been carried out before.
    pub retention: Option<Duration>,
    /// How long a call waits for another one with the same key before it is answered 409 `in_flight`.
    pub patience: Duration,
    /// How long a handler may take before it is rolled back and answered 503.
    pub handler_timeout: Duration,
}

impl Default for BarrierOptions {
    fn default() -> Self {
        Self { retention: None, patience: Duration::from_secs(1), handler_timeout: Duration::from_secs(10) }
    }
}

/// Carries out calls exactly once. Cloning gives another handle on the same barrier.
#[derive(Debug, Clone)]
pub struct Barrier {
    db: Db,
    gate: Arc<Gate>,
    options: BarrierOptions,
}

impl Barrier {
    /// Creates the kit's tables (`saga_calls`, `saga_ledger`) when they are missing.
    ///
    /// # Errors
    /// The database's.
    pub async fn open(db: Db, options: BarrierOptions) -> sqlx::Result<Self> {
        record::create_tables(&db).await?;
        Ok(Self { db, gate: Arc::default(), options })
    }

    #[must_use]
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Carries out a call: `handler` runs at most once per key with a lasting effect.
    ///
    /// For an action the handler does it; for a compensation it undoes what the action did, and runs
    /// only if the action has succeeded. The handler may run more than once when the first run was
    /// rolled back, so it must act through its transaction only.
    ///
    /// The work happens in a task of its own: dropping the returned future doesn't stop it.
    pub async fn run<H>(&self, call: CallContext, handler: H) -> Answer
    where
        H: for<'a> FnOnce(&'a mut Tx) -> TxFuture<'a, Reply> + Send + 'static,
    {
        let barrier = self.clone();
        let task = self.db.runtime().spawn(async move { barrier.answer(&call, handler).await });
        match task.await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(%error, "a handler panicked; its transaction is rolled back");
                Problem::new(problems::INTERNAL, "an internal error, see the service's log").into()
            }
        }
    }

    /// Removes the keys of sagas older than the retention; gives how many steps were forgotten.
    ///
    /// # Errors
    /// The database's.
    pub async fn purge(&self) -> Result<u64, Failure> {
        let Some(retention) = self.options.retention else { return Ok(0) };
        let now_ms = u64::try_from(Utc::now().timestamp_millis()).unwrap_or(0);
        let kept_ms = u64::try_from((retention + PURGE_MARGIN).as_millis()).unwrap_or(u64::MAX);
        let bound_ms = now_ms.saturating_sub(kept_ms);
        self.db.transaction(move |tx| Box::pin(async move { Ok(record::purge(tx, bound_ms).await?) })).await
    }

    async fn answer<H>(&self, call: &CallContext, handler: H) -> Answer
    where
        H: for<'a> FnOnce(&'a mut Tx) -> TxFuture<'a, Reply> + Send,
    {
        if let Some(problem) = self.too_old(call) {
            return problem.into();
        }
        let action_key = call.key.of_action().to_string();
        let Some(_permit) = self.gate.enter(&action_key, self.options.patience).await else {
            return in_flight().into();
        };
        match self.carry_out(call, handler).await {
            Ok(answer) => answer,
            Err(failure) => Problem::from(failure).into(),
        }
    }

    fn too_old(&self, call: &CallContext) -> Option<Problem> {
        let retention = self.options.retention?;
        let Some(created_at) = call.saga_id().created_at() else {
            let detail = "header Idempotency-Key: keys are kept for a limited time, so the saga id must be a UUIDv7, which tells its age";
            return Some(Problem::new(problems::INVALID_HEADER, detail).with("header", "Idempotency-Key"));
        };
        let age = (Utc::now() - created_at).to_std().unwrap_or_default();
        (age > retention).then(|| {
            let detail =
                format!("saga {} is older than the {} s for which keys are kept", call.saga_id(), retention.as_secs());
            Problem::new(problems::EXPIRED, detail)
        })
    }

    async fn carry_out<H>(&self, call: &CallContext, handler: H) -> Result<Answer, Failure>
    where
        H: for<'a> FnOnce(&'a mut Tx) -> TxFuture<'a, Reply> + Send,
    {
        let (mut tx, record) = match self.lock(call).await {
            Ok(locked) => locked,
            Err(error) if is_lock_timeout(&error) => return Ok(in_flight().into()),
            Err(error) => return Err(error.into()),
        };
        let verdict = record.judge(call);
        if verdict != Verdict::Run {
            return Ok(settle(tx, call, verdict).await?);
        }
        tx.forget_touches();
        let result = tokio::time::timeout(self.options.handler_timeout, handler(&mut tx)).await.unwrap_or_else(|_| {
            let detail = "the handler took too long and was rolled back".to_owned();
            Err(Failure::Unavailable { detail, retry_after: Duration::from_secs(1) })
        });
        match (result, call.operation()) {
            (Ok(reply), _) => Ok(record_reply(tx, call, reply).await?),
            (Err(Failure::Rejected(rejection)), Operation::Action) => self.record_rejection(tx, call, rejection).await,
            (Err(failure), _) => {
                tx.rollback().await;
                Err(failure)
            }
        }
    }

    async fn lock(&self, call: &CallContext) -> sqlx::Result<(Tx, Record)> {
        let mut tx = self.db.begin().await?;
        let record = record::lock(&mut tx, call).await?;
        Ok((tx, record))
    }

    /// Stores a refusal without what the handler wrote before it refused. That takes a second
    /// transaction; a call that comes in between is judged by what it finds, and so is this one.
    async fn record_rejection(&self, mut tx: Tx, call: &CallContext, rejection: Rejection) -> Result<Answer, Failure> {
        if tx.touched() {
            tx.rollback().await;
            let (again, record) = self.lock(call).await?;
            tx = again;
            let verdict = record.judge(call);
            if verdict != Verdict::Run {
                return Ok(settle(tx, call, verdict).await?);
            }
        }
        let answer = Answer::from(Problem::from(Failure::Rejected(rejection)));
        record::store(&mut tx, call, &answer).await?;
        tx.commit().await?;
        Ok(answer)
    }
}

/// Answers a call that doesn't run.
async fn settle(mut tx: Tx, call: &CallContext, verdict: Verdict) -> sqlx::Result<Answer> {
    let answer = match verdict {
        Verdict::Replay(answer) => {
            tx.rollback().await;
            return Ok(answer.replayed());
        }
        Verdict::KeyReused | Verdict::Run => {
            tx.rollback().await;
            let detail = format!("the key {} was first used with another method, path or body", call.key);
            return Ok(Problem::new(problems::KEY_REUSED, detail).with("header", "Idempotency-Key").into());
        }
        Verdict::Cancelled => {
            let detail = "the compensation of this action came first, so the action has no effect";
            Problem::new(problems::CANCELLED, detail).outcome("cancelled").into()
        }
        Verdict::NothingToUndo => Answer::json(200, &json!({"undone": false})),
    };
    record::store(&mut tx, call, &answer).await?;
    tx.commit().await?;
    Ok(answer)
}

async fn record_reply(mut tx: Tx, call: &CallContext, reply: Reply) -> sqlx::Result<Answer> {
    let answer = Answer::json(reply.status, &reply.body);
    record::store(&mut tx, call, &answer).await?;
    for effect in &reply.effects {
        ledger::append_effect(&mut tx, call, effect.name, &effect.detail).await?;
    }
    tx.commit().await?;
    Ok(answer)
}

fn in_flight() -> Problem {
    Problem::new(problems::IN_FLIGHT, "another call with this key is being carried out; repeat this one later")
        .retry_after(Duration::from_secs(1))
}
