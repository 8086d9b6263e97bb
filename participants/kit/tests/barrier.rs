//! What the barrier promises when all goes well, on both databases.

use std::{sync::Arc, time::Duration};

use crate::fixture::{
    Backend, Fixture, REFUSED, TestDatabase, action, body, code, compensation, do_it, open, outcome, undo_it, write,
};
use rstest::rstest;
use serde_json::{Value, json};
use skald_kit::{BarrierOptions, Failure, Reply, Tx, TxFuture};
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_duplicates_at_once_take_effect_once_and_get_one_answer(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fixture = Arc::new(Fixture::new(backend).await);
    let saga = Uuid::now_v7();
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let fixture = fixture.clone();
            tokio::spawn(async move { fixture.act(saga).await })
        })
        .collect();
    let mut bodies = Vec::new();
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(answer.status, 200);
        bodies.push(answer.body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1);
    assert_eq!(fixture.counts(saga).await, (1, 0));
}

#[rstest]
#[tokio::test]
async fn a_compensation_that_comes_first_succeeds_and_the_late_action_has_no_effect(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    let saga = Uuid::now_v7();
    let undone = fixture.undo(saga).await;
    assert_eq!((undone.status, body(&undone)), (200, json!({"undone": false})));
    for _ in 0..2 {
        let late = fixture.act(saga).await;
        assert_eq!((late.status, late.content_type.as_str()), (409, "application/problem+json"));
        assert_eq!((code(&late).as_str(), outcome(&late)), ("cancelled", json!("cancelled")));
    }
    assert_eq!(fixture.undo(saga).await.body, undone.body);
    assert_eq!(fixture.counts(saga).await, (0, 0), "invariant 5");
}

#[rstest]
#[tokio::test]
async fn a_compensation_undoes_once_what_succeeded(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let saga = Uuid::now_v7();
    let done = fixture.act(saga).await;
    let undone = fixture.undo(saga).await;
    assert_eq!(body(&undone)["undone"], true);
    assert_eq!(fixture.undo(saga).await.body, undone.body);
    assert_eq!(fixture.act(saga).await.body, done.body, "the action's stored answer stays");
    assert_eq!(fixture.counts(saga).await, (1, 1), "invariant 4");
}

#[rstest]
#[tokio::test]
async fn the_same_key_with_another_body_is_refused(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let saga = Uuid::now_v7();
    fixture.act(saga).await;
    let other = fixture.barrier.run(action(saga, "{\"x\":1}"), do_it(saga)).await;
    assert_eq!((other.status, code(&other).as_str()), (400, "idempotency_key_reused"));
    assert_eq!(outcome(&other), Value::Null, "nothing is said about the first call's effect");
    fixture.undo(saga).await;
    let other = fixture.barrier.run(compensation(saga, "{\"x\":1}"), undo_it(saga)).await;
    assert_eq!((other.status, code(&other).as_str()), (400, "idempotency_key_reused"));
    assert_eq!(fixture.counts(saga).await, (1, 1));
}

#[rstest]
#[tokio::test]
async fn a_rejection_is_stored_without_what_its_handler_wrote(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(true, false)] writes_first: bool,
) {
    let fixture = Fixture::new(backend).await;
    let saga = Uuid::now_v7();
    let rejected = fixture
        .barrier
        .run(action(saga, "{}"), move |tx| {
            Box::pin(async move {
                if writes_first {
                    write(tx, saga, 1, 0).await?;
                }
                Err(Failure::rejected(REFUSED, "no more"))
            })
        })
        .await;
    assert_eq!((rejected.status, code(&rejected).as_str(), outcome(&rejected)), (422, "refused", json!("rejected")));
    let again = fixture.act(saga).await;
    assert_eq!((again.status, again.body), (422, rejected.body), "a repeated call gets the stored refusal");
    assert_eq!(body(&fixture.undo(saga).await), json!({"undone": false}));
    assert_eq!(fixture.counts(saga).await, (0, 0));
}

#[rstest]
#[tokio::test]
async fn a_compensation_that_is_refused_is_not_stored(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let saga = Uuid::now_v7();
    fixture.act(saga).await;
    let refused = fixture
        .barrier
        .run(compensation(saga, "{}"), move |tx| {
            Box::pin(async move {
                write(tx, saga, 0, 1).await?;
                Err(Failure::rejected(REFUSED, "an operator must look"))
            })
        })
        .await;
    assert_eq!(refused.status, 422);
    assert_eq!(fixture.counts(saga).await, (1, 0));
    assert_eq!(body(&fixture.undo(saga).await)["undone"], true);
    assert_eq!(fixture.counts(saga).await, (1, 1));
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_and_its_compensation_racing_never_leave_an_effect(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fixture = Arc::new(Fixture::new(backend).await);
    // A second barrier is what a second process of the service is: it shares no gate.
    let other = Arc::new(Fixture {
        barrier: if backend == Backend::Postgres {
            open(&fixture.database, BarrierOptions::default()).await
        } else {
            fixture.barrier.clone()
        },
        database: TestDatabase::create(Backend::Sqlite).await,
    });
    for _ in 0..60 {
        let saga = Uuid::now_v7();
        let racing = [fixture.clone(), other.clone()].map(|fixture| {
            let undo = tokio::spawn({
                let fixture = fixture.clone();
                async move { fixture.undo(saga).await.status }
            });
            [tokio::spawn(async move { fixture.act(saga).await.status }), undo]
        });
        for call in racing.into_iter().flatten() {
            assert!([200, 409].contains(&call.await.unwrap()));
        }
        let (done, undone) = fixture.counts(saga).await;
        assert_eq!(done, undone, "invariant 5");
    }
}

#[rstest]
#[tokio::test]
async fn a_call_that_takes_long_makes_its_duplicates_wait_and_then_answers_in_flight(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(true, false)] same_process: bool,
) {
    if backend == Backend::Sqlite && !same_process {
        return; // A second process would wait for the file itself, and be answered 503.
    }
    let options = BarrierOptions { patience: Duration::from_millis(50), ..BarrierOptions::default() };
    let fixture = Fixture::with(backend, options.clone()).await;
    let other = if same_process { fixture.barrier.clone() } else { open(&fixture.database, options).await };
    let saga = Uuid::now_v7();
    let (inside, go_on) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let first = tokio::spawn({
        let (barrier, inside, go_on) = (fixture.barrier.clone(), inside.clone(), go_on.clone());
        async move { barrier.run(action(saga, "{}"), move |tx| slow_step(tx, saga, inside, go_on)).await }
    });
    inside.notified().await;
    let duplicate = other.run(action(saga, "{}"), do_it(saga)).await;
    assert_eq!((duplicate.status, code(&duplicate).as_str()), (409, "in_flight"));
    assert_eq!(outcome(&duplicate), Value::Null);
    let undo = other.run(compensation(saga, "{}"), undo_it(saga)).await;
    assert_eq!((undo.status, code(&undo).as_str()), (409, "in_flight"));
    go_on.add_permits(1);
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(fixture.counts(saga).await, (1, 0));
}

fn slow_step(tx: &mut Tx, saga: Uuid, inside: Arc<Notify>, go_on: Arc<Semaphore>) -> TxFuture<'_, Reply> {
    Box::pin(async move {
        write(tx, saga, 1, 0).await?;
        inside.notify_one();
        go_on.acquire().await.unwrap().forget();
        Ok(Reply::ok(json!({})).effect("done", json!({})))
    })
}
