//! The barrier between an orchestrator's calls and a service's handlers.
//!
//! Each call is one transaction: lock the action key's row, judge ([`crate::record`] has the table),
//! run the handler, store the answer, write the ledger, commit. Whatever interrupts it, a crash
//! included, leaves all of that or nothing, and a repeated call finds out which.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use serde_json::json;

use crate::{
    answer::{Answer, Effect, Failure, Problem, Rejection, Reply, is_lock_timeout, problems},
    call::CallContext,
    db::Db,
    gate::{Gate, Permit},
    key::Operation,
    ledger,
    outbox::{self, Outgoing},
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

/// What becomes of an answer that is about to be stored.
#[derive(Debug, Clone)]
pub enum Tell {
    /// Stored, and this event goes into the outbox with it.
    Event(Outgoing),
    /// Stored, and nobody is told.
    Nothing,
    /// It is no outcome: rolled back, so that the call can be carried out later.
    NoOutcome,
}

/// What [`Barrier::cancel`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// The action has not had an effect and never will: the tombstone is there, and the event is in the outbox.
    Now,
    /// The tombstone was there already.
    Before,
    /// The action has been answered; what was told with that stands.
    Answered(Answer),
}

/// Looks at each answer of a handler before it is stored.
type Teller<'t> = &'t (dyn Fn(&Answer) -> Tell + Send + Sync);

/// Carries out calls exactly once. Cloning gives another handle on the same barrier.
#[derive(Debug, Clone)]
pub struct Barrier {
    db: Db,
    gate: Arc<Gate>,
    options: BarrierOptions,
}

impl Barrier {
    /// Creates the kit's tables (`saga_calls`, `saga_ledger`, `saga_outbox`) when they are missing.
    ///
    /// # Errors
    /// The database's.
    pub async fn open(db: Db, options: BarrierOptions) -> sqlx::Result<Self> {
        record::create_tables(&db).await?;
        outbox::create_tables(&db).await?;
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
        self.run_telling(call, handler, |_| Tell::Nothing).await
    }

    /// Like [`Barrier::run`], and puts what `tell` makes of the answer into the outbox, in the same transaction. A stored
    /// answer that is given again tells nothing again.
    pub async fn run_telling<H, T>(&self, call: CallContext, handler: H, tell: T) -> Answer
    where
        H: for<'a> FnOnce(&'a mut Tx) -> TxFuture<'a, Reply> + Send + 'static,
        T: Fn(&Answer) -> Tell + Send + Sync + 'static,
    {
        let work = |barrier: Self| async move {
            let locked = barrier.enter(&call).await?;
            Ok(barrier.carry_out(&call, handler, &tell, locked).await?)
        };
        self.in_task(work).await.unwrap_or_else(Answer::from)
    }

    /// Sees to it that an action has no effect from now on, unless it has been answered: plants the tombstone that its
    /// compensation would leave, and puts `event` into the outbox, in one transaction. `call` is the action's or the
    /// compensation's; a compensation that comes later finds nothing to undo, whatever its request.
    ///
    /// # Errors
    /// It cannot be told now.
    pub async fn cancel(&self, call: CallContext, event: Outgoing) -> Result<Cancelled, Problem> {
        self.in_task(|barrier| async move {
            let Locked { mut tx, record, permit: _permit } = barrier.enter(&call).await?;
            let found = match (record.action, record.undo) {
                (Some(stored), _) => Cancelled::Answered(stored.answer),
                (None, Some(_)) => Cancelled::Before,
                (None, None) => {
                    let cancelled = async {
                        record::plant_tombstone(&mut tx, &call, &nothing_to_undo()).await?;
                        tx.emit(event).await
                    };
                    cancelled.await.map_err(Failure::from)?;
                    tx.commit().await.map_err(Failure::from)?;
                    return Ok(Cancelled::Now);
                }
            };
            tx.rollback().await;
            Ok(found)
        })
        .await
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

    /// Runs in a task of its own, which nobody cancels.
    async fn in_task<T, F, W>(&self, work: W) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Problem>> + Send + 'static,
        W: FnOnce(Self) -> F,
    {
        self.db.runtime().spawn(work(self.clone())).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a handler panicked; its transaction is rolled back");
            Err(Problem::new(problems::INTERNAL, "an internal error, see the service's log"))
        })
    }

    /// Waits for a call's turn and locks its row.
    async fn enter(&self, call: &CallContext) -> Result<Locked, Problem> {
        if let Some(problem) = self.too_old(call) {
            return Err(problem);
        }
        let action_key = call.key.of_action().to_string();
        let permit = self.gate.enter(&action_key, self.options.patience).await.ok_or_else(in_flight)?;
        match self.lock(call).await {
            Ok((tx, record)) => Ok(Locked { tx, record, permit }),
            Err(error) if is_lock_timeout(&error) => Err(in_flight()),
            Err(error) => Err(error.into()),
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

    async fn carry_out<H>(
        &self,
        call: &CallContext,
        handler: H,
        tell: Teller<'_>,
        Locked { mut tx, record, permit: _permit }: Locked,
    ) -> Result<Answer, Failure>
    where
        H: for<'a> FnOnce(&'a mut Tx) -> TxFuture<'a, Reply> + Send,
    {
        let verdict = record.judge(call);
        if verdict != Verdict::Run {
            return Ok(settle(tx, call, verdict, tell).await?);
        }
        tx.forget_touches();
        let result = tokio::time::timeout(self.options.handler_timeout, handler(&mut tx)).await.unwrap_or_else(|_| {
            let detail = "the handler took too long and was rolled back".to_owned();
            Err(Failure::Unavailable { detail, retry_after: Duration::from_secs(1) })
        });
        match (result, call.operation()) {
            (Ok(Reply { status, body, effects }), _) => {
                Ok(record_answer(tx, call, Answer::json(status, &body), &effects, tell).await?)
            }
            (Err(Failure::Rejected(rejection)), Operation::Action) => {
                self.record_rejection(tx, call, rejection, tell).await
            }
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
    async fn record_rejection(
        &self,
        mut tx: Tx,
        call: &CallContext,
        rejection: Rejection,
        tell: Teller<'_>,
    ) -> Result<Answer, Failure> {
        if tx.touched() {
            tx.rollback().await;
            let (again, record) = self.lock(call).await?;
            tx = again;
            let verdict = record.judge(call);
            if verdict != Verdict::Run {
                return Ok(settle(tx, call, verdict, tell).await?);
            }
        }
        let answer = Answer::from(Problem::from(Failure::Rejected(rejection)));
        Ok(record_answer(tx, call, answer, &[], tell).await?)
    }
}

/// A call whose turn it is.
struct Locked {
    tx: Tx,
    record: Record,
    permit: Permit,
}

/// Answers a call that doesn't run.
async fn settle(tx: Tx, call: &CallContext, verdict: Verdict, tell: Teller<'_>) -> sqlx::Result<Answer> {
    match verdict {
        Verdict::Replay(answer) => {
            tx.rollback().await;
            Ok(answer.replayed())
        }
        Verdict::KeyReused | Verdict::Run => {
            tx.rollback().await;
            let detail = format!("the key {} was first used with another method, path or body", call.key);
            Ok(Problem::new(problems::KEY_REUSED, detail).with("header", "Idempotency-Key").into())
        }
        Verdict::Cancelled => {
            let detail = "the compensation of this action came first, so the action has no effect";
            let answer = Problem::new(problems::CANCELLED, detail).outcome("cancelled").into();
            // Whoever planted the tombstone told of it.
            record_answer(tx, call, answer, &[], &|_| Tell::Nothing).await
        }
        Verdict::NothingToUndo => record_answer(tx, call, nothing_to_undo(), &[], tell).await,
    }
}

/// Stores an answer with its effects and the event that tells of it, and commits.
async fn record_answer(
    mut tx: Tx,
    call: &CallContext,
    answer: Answer,
    effects: &[Effect],
    tell: Teller<'_>,
) -> sqlx::Result<Answer> {
    let event = match tell(&answer) {
        Tell::Event(event) => Some(event),
        Tell::Nothing => None,
        Tell::NoOutcome => {
            tx.rollback().await;
            return Ok(answer);
        }
    };
    record::store(&mut tx, call, &answer).await?;
    for effect in effects {
        ledger::append_effect(&mut tx, call, effect.name, &effect.detail).await?;
    }
    if let Some(event) = event {
        tx.emit(event).await?;
    }
    tx.commit().await?;
    Ok(answer)
}

fn nothing_to_undo() -> Answer {
    Answer::json(200, &json!({"undone": false}))
}

fn in_flight() -> Problem {
    Problem::new(problems::IN_FLIGHT, "another call with this key is being carried out; repeat this one later")
        .retry_after(Duration::from_secs(1))
}
