//! Appends to streams that are no sagas.

use std::{sync::Arc, time::Duration};

use serde_json::value::RawValue;
use skald_core::shard::{
    appends::{AppendRequest, Appended, ExpectedVersion, ToAppend, shard_of_stream},
    batch::CommitError,
};

use super::{super::Refusal, Running, SHARDS};
use crate::storage::memory::Applied;

fn request(stream: &str, expected: ExpectedVersion, ids: &[&str]) -> AppendRequest {
    let event = |id: &&str| ToAppend {
        event_id: Arc::from(*id),
        type_name: Arc::from("ItemAdded"),
        schema_version: 2,
        actor: Some(Arc::from("jane")),
        correlation_id: Some(Arc::from("corr")),
        causation_id: None,
        data: RawValue::from_string(format!(r#"{{"of": "{id}"}}"#)).unwrap(),
    };
    AppendRequest { stream: Arc::from(stream), expected, events: ids.iter().map(event).collect(), entropy: [7; 10] }
}

fn any(stream: &str, ids: &[&str]) -> AppendRequest {
    request(stream, ExpectedVersion::Any, ids)
}

fn appended(version: u64, replayed: bool) -> Result<Appended, Refusal> {
    Ok(Appended { stream: Arc::from("cart-1"), version, replayed })
}

fn ids(running: &Running, stream: &str) -> Vec<String> {
    running.store.appended(stream).iter().map(|appended| appended.event.event_id.to_string()).collect()
}

#[tokio::test]
async fn what_was_appended_is_there_when_it_is_answered() {
    let running = Running::start().await;
    let first = request("cart-1", ExpectedVersion::Exactly(0), &["a", "b"]);
    assert_eq!(running.engine.append(first.clone()).await, appended(2, false));
    let stored = running.store.appended("cart-1");
    let shard = shard_of_stream("cart-1", SHARDS);
    assert!(stored.iter().all(|appended| appended.shard == shard));
    assert_eq!(stored.iter().map(|appended| appended.position).collect::<Vec<_>>(), [1, 2]);
    let event = &stored[1].event;
    assert_eq!((event.version, &*event.event_id, event.data.get()), (2, "b", r#"{"of": "b"}"#));
    assert_eq!((event.schema_version, event.actor.as_deref()), (2, Some("jane")));
    assert_eq!(running.engine.append(first).await, appended(2, true));
    let conflict = running.engine.append(request("cart-1", ExpectedVersion::Exactly(1), &["c"])).await;
    assert_eq!(conflict, Err(Refusal::WrongVersion { expected: 1, actual: 2 }));
    let taken = running.engine.append(any("cart-1", &["b", "c"])).await;
    assert_eq!(taken, Err(Refusal::EventIdTaken { event_id: Arc::from("b") }));
    assert_eq!(ids(&running, "cart-1"), ["a", "b"]);
}

#[tokio::test]
async fn of_many_clients_each_append_is_written_once_and_in_its_clients_order() {
    let running = Running::start().await;
    let client = |client: usize| {
        let engine = running.engine.clone();
        tokio::spawn(async move {
            for number in 0..20 {
                let id = format!("{client}-{number:02}");
                let stream = format!("cart-{}", client % 3);
                engine.append(any(&stream, &[&id])).await.unwrap();
            }
        })
    };
    let clients: Vec<_> = (0..12).map(client).collect();
    for client in clients {
        client.await.unwrap();
    }
    for stream in 0..3 {
        let stored = ids(&running, &format!("cart-{stream}"));
        assert_eq!(stored.len(), 80);
        for client in (0..12).filter(|client| client % 3 == stream) {
            let prefix = format!("{client}-");
            assert!(stored.iter().filter(|id| id.starts_with(&prefix)).is_sorted());
        }
    }
}

#[tokio::test]
async fn every_commit_of_a_saga_or_a_stream_wakes_who_reads_at_the_end() {
    let mut running = Running::start().await;
    let mut commits = running.engine.commits();
    assert!(!commits.has_changed().unwrap());
    running.engine.append(any("cart-1", &["a"])).await.unwrap();
    assert!(commits.has_changed().unwrap(), "before or with the answer, not after it");
    assert_eq!(*commits.borrow_and_update(), 1);
    running.begin().await.unwrap();
    assert_eq!(*commits.borrow_and_update(), 2);
    running.engine.append(any("cart-1", &["a"])).await.unwrap();
    assert!(!commits.has_changed().unwrap(), "nothing was written");
    let ended = tokio::spawn(async move { commits.changed().await });
    running.engine.stop(Duration::ZERO).await;
    drop(running.engine);
    assert!(ended.await.unwrap().is_err(), "who waits hears of the engine's end");
}

#[tokio::test]
async fn an_append_in_doubt_is_found_when_it_comes_again() {
    for (fate, replayed) in [(Applied::Yes, true), (Applied::No, false)] {
        let running = Running::start().await;
        running.store.fail_commit(CommitError::InDoubt("the connection broke".to_owned()), fate);
        assert_eq!(running.engine.append(any("cart-1", &["a"])).await, Err(Refusal::InDoubt));
        running.until("the shard is back", |running| running.engine.health().load.shards == usize::from(SHARDS)).await;
        assert_eq!(running.engine.append(any("cart-1", &["a"])).await, appended(1, replayed), "{fate:?}");
        assert_eq!(ids(&running, "cart-1"), ["a"]);
    }
}

#[tokio::test]
async fn without_the_database_nothing_is_appended_and_everybody_is_answered() {
    let running = Running::start().await;
    running.store.set_down(true);
    let refused = running.engine.append(any("cart-1", &["a"])).await;
    assert_eq!(refused, Err(Refusal::Overloaded));
    running.until("nothing is owned", |running| running.engine.health().load.shards == 0).await;
    assert_eq!(running.engine.append(any("cart-1", &["a"])).await, Err(Refusal::NotOwner));
    running.store.set_down(false);
    running.until("it owns again", |running| running.engine.health().load.shards == usize::from(SHARDS)).await;
    assert_eq!(running.engine.append(any("cart-1", &["a"])).await, appended(1, false));
}

#[tokio::test]
async fn an_unwritable_append_is_refused_alone() {
    let running = Running::start().await;
    running.store.fail_commit(CommitError::Refused("too large".to_owned()), Applied::No);
    let refused = running.engine.append(any("cart-1", &["a"])).await;
    assert_eq!(refused, Err(Refusal::Unwritable("too large".to_owned())));
    assert_eq!(running.engine.append(any("cart-1", &["a"])).await, appended(1, false));
}

#[tokio::test]
async fn a_stopping_engine_takes_no_append() {
    let running = Running::start().await;
    let engine = running.engine.clone();
    running.engine.stop(Duration::ZERO).await;
    assert!(matches!(engine.append(any("cart-1", &["a"])).await, Err(Refusal::NotOwner | Refusal::Overloaded)));
    assert!(ids(&running, "cart-1").is_empty());
}
