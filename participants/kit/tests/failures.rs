//! What the barrier leaves behind when something goes wrong, on both databases.

use std::{sync::Arc, time::Duration};

use crate::fixture::{
    Backend, Fixture, REFUSED, action, body, code, compensation, do_it, open, outcome, undo_it, write,
};
use rstest::rstest;
use serde_json::{Value, json};
use skald_kit::{BarrierOptions, Db, DbOptions, Failure, Reply, params};
use uuid::Uuid;

#[rstest]
#[tokio::test]
async fn a_failure_leaves_nothing_and_the_next_attempt_runs(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("unavailable", "bad statement", "panic")] failure: &'static str,
) {
    let fixture = Fixture::new(backend).await;
    let saga = Uuid::now_v7();
    let failed = fixture
        .barrier
        .run(action(saga, "{}"), move |tx| {
            Box::pin(async move {
                write(tx, saga, 1, 0).await?;
                match failure {
                    "panic" => panic!("the handler panics, as this test wants"),
                    "bad statement" => Err(tx.execute("UPDATE nowhere SET x = 1", params![]).await.unwrap_err().into()),
                    _ => Err(Failure::Unavailable { detail: "busy".into(), retry_after: Duration::from_secs(3) }),
                }
            })
        })
        .await;
    let expected = if failure == "unavailable" { (503, "unavailable") } else { (500, "internal") };
    assert_eq!((failed.status, code(&failed).as_str()), expected);
    assert_eq!(failed.headers.contains(&("Retry-After", "3".to_owned())), failure == "unavailable");
    assert_eq!(fixture.counts(saga).await, (0, 0));
    assert_eq!(fixture.act(saga).await.status, 200);
    assert_eq!(fixture.counts(saga).await, (1, 0));
}

#[tokio::test]
async fn a_connection_lost_in_the_middle_leaves_nothing() {
    let fixture = Fixture::new(Backend::Postgres).await;
    let saga = Uuid::now_v7();
    let lost = fixture
        .barrier
        .run(action(saga, "{}"), move |tx| {
            Box::pin(async move {
                write(tx, saga, 1, 0).await?;
                tx.rows("SELECT pg_terminate_backend(pg_backend_pid())", params![]).await?;
                Ok(Reply::ok(json!({})))
            })
        })
        .await;
    assert_eq!((lost.status, code(&lost).as_str()), (503, "database_unavailable"));
    assert_eq!(fixture.counts(saga).await, (0, 0));
    assert_eq!(fixture.act(saga).await.status, 200);
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_break_nothing(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fixture = Arc::new(Fixture::new(backend).await);
    let sagas: Vec<Uuid> = (0..400).map(|_| Uuid::now_v7()).collect();
    for (number, saga) in sagas.iter().copied().enumerate() {
        let fixture = fixture.clone();
        let call = tokio::spawn(async move { fixture.act(saga).await });
        for _ in 0..number % 7 {
            tokio::task::yield_now().await;
        }
        call.abort();
    }
    for saga in sagas {
        assert_eq!(fixture.act(saga).await.status, 200);
        assert_eq!(fixture.counts(saga).await, (1, 0));
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_share_a_commit_fail_alone(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fixture = Arc::new(Fixture::new(backend).await);
    let calls: Vec<_> = (0..120)
        .map(|number| {
            let (fixture, saga) = (fixture.clone(), Uuid::now_v7());
            let call = tokio::spawn(async move {
                let answer = fixture
                    .barrier
                    .run(action(saga, "{}"), move |tx| {
                        Box::pin(async move {
                            write(tx, saga, 1, 0).await?;
                            match number % 4 {
                                0 => panic!("the handler panics, as this test wants"),
                                1 => Err(Failure::rejected(REFUSED, "no")),
                                2 => Err(tx.execute("UPDATE nowhere SET x = 1", params![]).await.unwrap_err().into()),
                                _ => Ok(Reply::ok(json!({})).effect("done", json!({}))),
                            }
                        })
                    })
                    .await;
                (answer.status, fixture.counts(saga).await)
            });
            (number, call)
        })
        .collect();
    for (number, call) in calls {
        let expected = match number % 4 {
            1 => (422, (0, 0)),
            3 => (200, (1, 0)),
            _ => (500, (0, 0)),
        };
        assert_eq!(call.await.unwrap(), expected, "call {number}");
    }
}

#[rstest]
#[tokio::test]
async fn a_saga_older_than_the_retention_gets_410_and_its_keys_can_go(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    let day = Duration::from_secs(86_400);
    let (old, young) = (saga_of_age(2 * day), saga_of_age(day / 2));
    for saga in [old, young] {
        fixture.act(saga).await;
    }
    assert_eq!(fixture.barrier.purge().await.unwrap(), 0, "kept for ever by default");

    let forgetful = open(&fixture.database, BarrierOptions { retention: Some(day), ..BarrierOptions::default() }).await;
    assert_eq!(forgetful.purge().await.unwrap(), 1);
    for answer in
        [forgetful.run(action(old, "{}"), do_it(old)).await, forgetful.run(compensation(old, "{}"), undo_it(old)).await]
    {
        assert_eq!((answer.status, code(&answer).as_str(), outcome(&answer)), (410, "expired", Value::Null));
    }
    assert_eq!(fixture.counts(old).await, (1, 0), "no silent tombstone, no second effect");
    assert_eq!(body(&forgetful.run(compensation(young, "{}"), undo_it(young)).await)["undone"], true);

    let ageless = forgetful.run(action(Uuid::new_v4(), "{}"), do_it(young)).await;
    assert_eq!((ageless.status, body(&ageless)["header"].as_str()), (400, Some("Idempotency-Key")));
}

fn saga_of_age(age: Duration) -> Uuid {
    let at = std::time::SystemTime::now() - age;
    let since_epoch = at.duration_since(std::time::UNIX_EPOCH).unwrap();
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, since_epoch.as_secs(), since_epoch.subsec_nanos()))
}

#[rstest]
#[tokio::test]
async fn what_was_committed_is_there_after_a_restart(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let saga = Uuid::now_v7();
    let before = fixture.act(saga).await;
    fixture.barrier.db().close().await;
    let again = open(&fixture.database, BarrierOptions::default()).await;
    let after = again.run(action(saga, "{}"), do_it(saga)).await;
    assert_eq!(after.body, before.body);
    assert!(after.headers.contains(&("Idempotent-Replayed", "true".to_owned())));
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let missing = format!("sqlite:{}/missing/x.db", folder.path().display());
    for (url, words) in [
        ("mysql://x", "must begin with sqlite:"),
        ("sqlite:", "names no file"),
        ("sqlite::memory:", "names no file"),
        (missing.as_str(), "unable to open database file"),
        ("postgres://127.0.0.1:1/x", "Connection refused"),
    ] {
        let error = Db::connect(url, &DbOptions::default()).await.unwrap_err().to_string();
        assert!(error.contains(words), "{url}: {error}");
    }
}
