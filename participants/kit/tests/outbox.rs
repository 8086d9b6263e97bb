//! The outbox and its relay, on both databases.

use std::{sync::Arc, time::Duration};

use crate::{
    fixture::{
        Backend, Fixture, REFUSED, action, body, code, compensation, do_it, eventually, open, outcome, undo_it, write,
    },
    store::Store,
};
use rstest::rstest;
use serde_json::{json, value::to_raw_value};
use skald_kit::{
    Answer, BarrierOptions, Cancelled, Failure, Tell, Unobserved,
    outbox::{self, KeepRefused, Outgoing, Relay, RelayOptions},
};
use uuid::Uuid;

fn told(saga: Uuid, number: u32) -> Outgoing {
    Outgoing {
        stream: saga.to_string(),
        event_id: format!("{saga}:step:action:{number}"),
        type_name: Some(format!("Told{number}")),
        data: to_raw_value(&json!({"number": number})).unwrap(),
        correlation_id: None,
        causation_id: None,
    }
}

/// Tells of whatever is answered.
fn tell(saga: Uuid) -> impl Fn(&Answer) -> Tell + Send + Sync + 'static {
    move |answer| Tell::Event(told(saga, u32::from(answer.status)))
}

async fn relay(fixture: &Fixture, store: &Store) -> Relay {
    let options = RelayOptions { search_every: Duration::from_millis(50), ..RelayOptions::default() };
    let db = fixture.barrier.db().clone();
    Relay::start(db, store.client(), Arc::new(KeepRefused), Arc::new(Unobserved), options).await.unwrap()
}

async fn waiting(fixture: &Fixture) -> i64 {
    outbox::waiting(fixture.barrier.db()).await.unwrap()
}

#[rstest]
#[tokio::test]
async fn effect_answer_and_event_are_one_and_a_repeated_call_tells_nothing_again(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    let (saga, store) = (Uuid::now_v7(), Store::start().await);
    for _ in 0..2 {
        let answer = fixture.barrier.run_telling(action(saga, "{}"), do_it(saga), tell(saga)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(waiting(&fixture).await, 1);
    }
    let relay = relay(&fixture, &store).await;
    eventually("the event leaves", async || waiting(&fixture).await == 0).await;
    fixture.barrier.run_telling(action(saga, "{}"), do_it(saga), tell(saga)).await;
    assert_eq!(waiting(&fixture).await, 0, "a stored answer tells nothing");
    assert_eq!(store.types(&saga.to_string()), ["Told200"]);
    let undone = fixture.barrier.run_telling(compensation(saga, "{}"), undo_it(saga), |_| Tell::Nothing).await;
    assert_eq!(body(&undone)["undone"], true);
    relay.stop().await;
    assert_eq!(store.types(&saga.to_string()), ["Told200"]);
}

#[rstest]
#[tokio::test]
async fn a_refusal_is_told_without_its_effect_and_a_failure_not_at_all(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    let (saga, other) = (Uuid::now_v7(), Uuid::now_v7());
    let rejected = fixture
        .barrier
        .run_telling(
            action(saga, "{}"),
            move |tx| {
                Box::pin(async move {
                    write(tx, saga, 1, 0).await?;
                    tx.emit(told(saga, 1)).await?;
                    Err(Failure::rejected(REFUSED, "no"))
                })
            },
            tell(saga),
        )
        .await;
    assert_eq!((rejected.status, waiting(&fixture).await), (422, 1), "what the handler emitted went with its effect");
    let failed = fixture
        .barrier
        .run_telling(
            action(other, "{}"),
            move |tx| {
                Box::pin(async move {
                    write(tx, other, 1, 0).await?;
                    Err(Failure::Unavailable { detail: "busy".into(), retry_after: Duration::ZERO })
                })
            },
            tell(other),
        )
        .await;
    assert_eq!((failed.status, waiting(&fixture).await), (503, 1));
    assert_eq!(fixture.counts(saga).await, (0, 0));
}

#[rstest]
#[tokio::test]
async fn an_answer_that_is_no_outcome_leaves_nothing(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let saga = Uuid::now_v7();
    let answer = fixture.barrier.run_telling(action(saga, "{}"), do_it(saga), |_| Tell::NoOutcome).await;
    assert_eq!((answer.status, fixture.counts(saga).await), (200, (0, 0)));
    assert_eq!(fixture.act(saga).await.status, 200);
    assert_eq!(fixture.counts(saga).await, (1, 0), "nothing was stored: the handler ran again");
}

#[rstest]
#[tokio::test]
async fn a_cancelled_action_never_takes_effect_and_its_undo_finds_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    let saga = Uuid::now_v7();
    let cancel = async || fixture.barrier.cancel(action(saga, "{}"), told(saga, 1)).await.unwrap();
    assert_eq!(cancel().await, Cancelled::Now);
    assert_eq!(cancel().await, Cancelled::Before);
    assert_eq!(waiting(&fixture).await, 1);
    let late = fixture.barrier.run_telling(action(saga, "{}"), do_it(saga), tell(saga)).await;
    assert_eq!((late.status, code(&late).as_str(), outcome(&late)), (409, "cancelled", json!("cancelled")));
    assert_eq!(waiting(&fixture).await, 1, "whoever cancelled has told");
    for request in ["{}", "{\"another\":1}"] {
        let undone = fixture.barrier.run(compensation(saga, request), undo_it(saga)).await;
        assert_eq!((undone.status, body(&undone)), (200, json!({"undone": false})));
    }
    assert_eq!(fixture.counts(saga).await, (0, 0), "invariant 5");

    let done = Uuid::now_v7();
    let answer = fixture.barrier.run_telling(action(done, "{}"), do_it(done), tell(done)).await;
    let found = fixture.barrier.cancel(action(done, "{}"), told(done, 1)).await.unwrap();
    let Cancelled::Answered(stored) = found else { panic!("{found:?}") };
    assert_eq!((stored.body, fixture.counts(done).await), (answer.body, (1, 0)));
    assert_eq!(waiting(&fixture).await, 2, "what was told with the answer stands");
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_and_its_cancellation_racing_tell_exactly_one_thing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fixture = Arc::new(Fixture::new(backend).await);
    for _ in 0..40 {
        let saga = Uuid::now_v7();
        let (acting, cancelling) = (fixture.clone(), fixture.clone());
        let act = tokio::spawn(async move {
            acting.barrier.run_telling(action(saga, "{}"), do_it(saga), tell(saga)).await.status
        });
        let cancel = tokio::spawn(async move { cancelling.barrier.cancel(action(saga, "{}"), told(saga, 1)).await });
        let (status, cancelled) = (act.await.unwrap(), cancel.await.unwrap().unwrap());
        let took_effect = fixture.counts(saga).await == (1, 0);
        assert_eq!(took_effect, status == 200);
        assert_eq!(took_effect, matches!(cancelled, Cancelled::Answered(_)), "{cancelled:?}");
    }
    assert_eq!(waiting(&fixture).await, 40);
}

#[rstest]
#[tokio::test]
async fn events_survive_a_crash_and_failing_posts_and_leave_in_order(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    let (saga, store) = (Uuid::now_v7(), Store::start().await);
    let put = async |number: u32| {
        let work =
            fixture.barrier.db().transaction(move |tx| Box::pin(async move { Ok(tx.emit(told(saga, number)).await?) }));
        work.await.unwrap();
    };
    // Committed, and the process ends before anything was posted.
    put(1).await;
    put(2).await;
    fixture.barrier.db().close().await;
    let again = Fixture {
        barrier: open(&fixture.database, BarrierOptions::default()).await,
        database: crate::fixture::TestDatabase::create(Backend::Sqlite).await,
    };
    store.fail_next(2);
    let relay = relay(&again, &store).await;
    eventually("what was left is posted", async || waiting(&again).await == 0).await;
    store.lose_next_answers(1);
    let db = again.barrier.db().clone();
    let put = async |number: u32| {
        db.transaction(move |tx| Box::pin(async move { Ok(tx.emit(told(saga, number)).await?) })).await.unwrap();
    };
    for number in 3..=20 {
        put(number).await;
    }
    eventually("the rest is posted", async || waiting(&again).await == 0).await;
    let expected: Vec<String> = (1..=20).map(|number| format!("Told{number}")).collect();
    assert_eq!(store.types(&saga.to_string()), expected, "each once, in order");
    relay.stop().await;
}

#[rstest]
#[tokio::test]
async fn what_the_store_refuses_stays_with_the_reason_and_holds_nothing_back(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    let (saga, store) = (Uuid::now_v7(), Store::start().await);
    store.data().refused_types.insert("Told1".to_owned());
    let relay = relay(&fixture, &store).await;
    let db = fixture.barrier.db();
    let emit_both = db.transaction(move |tx| {
        Box::pin(async move {
            tx.emit(told(saga, 1)).await?;
            Ok(tx.emit(told(saga, 2)).await?)
        })
    });
    emit_both.await.unwrap();
    eventually("both are through", async || waiting(&fixture).await == 0).await;
    let kept = outbox::refused(db, 10).await.unwrap();
    assert_eq!((kept.len(), kept[0].event.event_id.as_str()), (1, told(saga, 1).event_id.as_str()));
    assert!(kept[0].reason.contains("saga_ended"), "{}", kept[0].reason);
    assert_eq!(store.types(&saga.to_string()), ["Told2"]);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_posted_side_by_side() {
    let fixture = Fixture::new(Backend::Sqlite).await;
    let store = Store::start().await;
    let relay = relay(&fixture, &store).await;
    let db = fixture.barrier.db();
    let sagas: Vec<Uuid> = (0..200).map(|_| Uuid::now_v7()).collect();
    let emits = sagas.iter().map(|saga| {
        let (db, saga) = (db.clone(), *saga);
        tokio::spawn(async move {
            db.transaction(move |tx| Box::pin(async move { Ok(tx.emit(told(saga, 1)).await?) })).await.unwrap();
        })
    });
    for emit in emits.collect::<Vec<_>>() {
        emit.await.unwrap();
    }
    eventually("all are posted", async || waiting(&fixture).await == 0).await;
    assert!(sagas.iter().all(|saga| store.types(&saga.to_string()) == ["Told1"]));
    relay.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_gathered_travels_together_and_each_event_is_answered_on_its_own(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    let store = Store::start().await;
    store.data().refused_types.insert("Told7".to_owned());
    let db = fixture.barrier.db();
    let sagas: Vec<Uuid> = (0..100).map(|_| Uuid::now_v7()).collect();
    let (refused, all) = (sagas[3], sagas.clone());
    let emit_all = db.transaction(move |tx| {
        Box::pin(async move {
            for saga in all {
                tx.emit(told(saga, if saga == refused { 7 } else { 1 })).await?;
            }
            Ok(tx.emit(told(refused, 2)).await?)
        })
    });
    emit_all.await.unwrap();
    let relay = relay(&fixture, &store).await;
    eventually("all are through", async || waiting(&fixture).await == 0).await;
    for saga in sagas {
        assert_eq!(store.types(&saga.to_string()), if saga == refused { ["Told2"] } else { ["Told1"] });
    }
    assert_eq!(outbox::refused(db, 10).await.unwrap().len(), 1);
    let requests = store.inner.requests.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(requests, 2, "one for the first event of every stream, one for what followed on the one");
    relay.stop().await;
}
