//! Random histories: actions, compensations and duplicates, alone and at once, failing now and then.

use std::{collections::HashMap, time::Duration};

use crate::support::{Backend, TestDatabase};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::json;
use skald_kit::{
    Answer, Barrier, BarrierOptions, CallContext, Db, DbOptions, Failure, ProblemKind, Reply, Tx, TxFuture, ledger,
    params,
};
use tokio::runtime::Runtime;
use uuid::Uuid;

const REFUSED: ProblemKind = ProblemKind::new(422, "refused", "Refused");
const SAGAS: usize = 3;

/// What a handler does if it is run.
#[derive(Debug, Clone, Copy)]
enum Behaviour {
    Succeeds,
    Rejects,
    Fails,
    Panics,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Action,
    Compensation,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    saga: usize,
    operation: Operation,
    behaviour: Behaviour,
}

fn step() -> impl Strategy<Value = Step> {
    let operation = prop_oneof![Just(Operation::Action), Just(Operation::Compensation)];
    let behaviour = prop_oneof![
        6 => Just(Behaviour::Succeeds),
        2 => Just(Behaviour::Rejects),
        2 => Just(Behaviour::Fails),
        1 => Just(Behaviour::Panics),
    ];
    (0..SAGAS, operation, behaviour).prop_map(|(saga, operation, behaviour)| Step { saga, operation, behaviour })
}

/// Steps of one inner list happen at the same time, the lists one after another.
fn history() -> impl Strategy<Value = Vec<Vec<Step>>> {
    prop::collection::vec(prop::collection::vec(step(), 1..5), 1..8)
}

/// One database for all histories, each of which has sagas of its own.
struct World {
    runtime: Runtime,
    barrier: Barrier,
    _database: TestDatabase,
}

impl World {
    fn new(backend: Backend) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (barrier, database) = runtime.block_on(async {
            let database = TestDatabase::create(backend).await;
            let db = Db::connect(&database.url, &DbOptions::default()).await.unwrap();
            db.create(&["CREATE TABLE IF NOT EXISTS steps (saga_id TEXT PRIMARY KEY, done BIGINT, undone BIGINT)"])
                .await
                .unwrap();
            (Barrier::open(db, BarrierOptions::default()).await.unwrap(), database)
        });
        Self { runtime, barrier, _database: database }
    }

    fn check(&self, history: &[Vec<Step>]) -> Result<(), TestCaseError> {
        let sagas: Vec<Uuid> = (0..SAGAS).map(|_| Uuid::now_v7()).collect();
        let mut final_answers: HashMap<(usize, Operation), Answer> = HashMap::new();
        for at_once in history {
            let calls: Vec<_> = at_once
                .iter()
                .map(|step| (*step, self.runtime.spawn(call(self.barrier.clone(), sagas[step.saga], *step))))
                .collect();
            for (step, task) in calls {
                let mut answer = self.runtime.block_on(task).unwrap();
                // A compensation has no stored refusal; failures are to be repeated.
                let refused_undo = answer.status == 422 && step.operation == Operation::Compensation;
                if answer.status >= 500 || refused_undo {
                    continue;
                }
                answer.headers.clear();
                let first = final_answers.entry((step.saga, step.operation)).or_insert_with(|| answer.clone());
                prop_assert_eq!(&*first, &answer, "answers for the same key are identical");
            }
        }
        for (index, saga) in sagas.iter().enumerate() {
            let (done, undone) = self.runtime.block_on(self.counts(*saga));
            let status = |operation| final_answers.get(&(index, operation)).map(|answer| answer.status);
            prop_assert!((0..=1).contains(&done), "an effect happens at most once");
            prop_assert!(undone <= done, "nothing is undone that was not done");
            prop_assert_eq!(done == 1, status(Operation::Action) == Some(200));
            if status(Operation::Compensation) == Some(200) {
                prop_assert_eq!(done, undone, "no effect stands after its compensation");
            } else {
                prop_assert_eq!(undone, 0);
            }
        }
        Ok(())
    }

    async fn counts(&self, saga: Uuid) -> (i64, i64) {
        let sql = "SELECT done, undone FROM steps WHERE saga_id = $1";
        let row = self.barrier.db().row(sql, params![saga.to_string()]).await.unwrap();
        let counts = row.map_or((0, 0), |row| (row.get("done").unwrap(), row.get("undone").unwrap()));
        let query = ledger::Query { saga_id: Some(saga.to_string()), limit: 100, after: 0 };
        let entries = ledger::read(self.barrier.db(), query).await.unwrap();
        assert_eq!(i64::try_from(entries.len()).unwrap(), counts.0 + counts.1, "the ledger tells what happened");
        counts
    }
}

async fn call(barrier: Barrier, saga: Uuid, step: Step) -> Answer {
    barrier.run(context(saga, step.operation), move |tx| handle(tx, saga, step)).await
}

fn context(saga: Uuid, operation: Operation) -> CallContext {
    let action = format!("\"{saga}:s:action\"");
    let key = match operation {
        Operation::Action => action.clone(),
        Operation::Compensation => format!("\"{saga}:s:compensation\""),
    };
    let mut headers = vec![("Idempotency-Key", key.as_str())];
    if operation == Operation::Compensation {
        headers.extend([("Saga-Compensates", action.as_str()), ("Saga-Outcome", "succeeded")]);
    }
    CallContext::parse("POST", "/", headers, b"{}").unwrap()
}

fn handle(tx: &mut Tx, saga: Uuid, step: Step) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        let sql = "INSERT INTO steps (saga_id, done, undone) VALUES ($1, $2, $3)
                   ON CONFLICT (saga_id) DO UPDATE SET done = steps.done + $2, undone = steps.undone + $3";
        let (done, undone) = if step.operation == Operation::Action { (1_i64, 0_i64) } else { (0, 1) };
        tx.execute(sql, params![saga.to_string(), done, undone]).await?;
        match step.behaviour {
            Behaviour::Succeeds => Ok(Reply::ok(json!({"nonce": Uuid::new_v4()})).effect("changed", json!({}))),
            Behaviour::Rejects => Err(Failure::rejected(REFUSED, Uuid::new_v4().to_string())),
            Behaviour::Fails => {
                Err(Failure::Unavailable { detail: "not now".to_owned(), retry_after: Duration::from_secs(1) })
            }
            Behaviour::Panics => std::panic::resume_unwind(Box::new("as this test wants")),
        }
    })
}

fn check_histories(backend: Backend) {
    let world = World::new(backend);
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config).run(&history(), |history| world.check(&history)).unwrap();
}

#[test]
fn any_history_takes_effect_at_most_once_on_sqlite() {
    check_histories(Backend::Sqlite);
}

#[test]
fn any_history_takes_effect_at_most_once_on_postgres() {
    check_histories(Backend::Postgres);
}
