//! Appends through a replica that owns nothing.

use std::sync::Arc;

use serde_json::{json, value::RawValue};
use skald_core::{
    shard::{
        appends::{AppendRequest, Appended, ExpectedVersion, ToAppend},
        batch::CommitError,
        writer::Refusal,
    },
    time::Millis,
};

use super::{TestServer, forwarded, tell};
use crate::{
    forward::message::APPENDS,
    storage::{Owner, Store as _, memory::Applied},
};

fn request(expected: ExpectedVersion, id: &str) -> AppendRequest {
    let event = ToAppend {
        event_id: Arc::from(id),
        type_name: Arc::from("ItemAdded"),
        schema_version: 1,
        actor: None,
        correlation_id: Some(Arc::from("corr")),
        causation_id: None,
        data: RawValue::from_string(r#"{"price": 1.50}"#.to_owned()).unwrap(),
    };
    AppendRequest { stream: Arc::from("cart-1"), expected, events: vec![event], entropy: [3; 10] }
}

fn appended(version: u64, replayed: bool) -> Result<Appended, Refusal> {
    Ok(Appended { stream: Arc::from("cart-1"), version, replayed })
}

#[actix_web::test]
async fn an_append_reaches_the_owner_in_one_hop_as_it_is() {
    let (owner, other) = TestServer::pair().await;
    assert_eq!(other.app.router().append(request(ExpectedVersion::Exactly(0), "a")).await, appended(1, false));
    assert_eq!(owner.app.router().append(request(ExpectedVersion::Any, "b")).await, appended(2, false));
    assert_eq!(other.app.router().append(request(ExpectedVersion::Any, "a")).await, appended(1, true));
    let refused = other.app.router().append(request(ExpectedVersion::Exactly(1), "c")).await;
    assert_eq!(refused, Err(Refusal::WrongVersion { expected: 1, actual: 2 }));
    let stored = owner.store.appended("cart-1");
    assert_eq!(stored.len(), 2);
    assert_eq!(stored[0].event.data.get(), r#"{"price": 1.50}"#);
    assert_eq!(stored[0].event.correlation_id.as_deref(), Some("corr"));
    assert_eq!((forwarded(&other, "append").await, forwarded(&owner, "append").await), (3, 0));
}

#[actix_web::test]
async fn a_forwarded_append_is_not_forwarded_again_and_one_that_comes_twice_has_one_effect() {
    let (owner, other) = TestServer::pair().await;
    let message = serde_json::to_vec(&request(ExpectedVersion::Exactly(0), "a")).unwrap();
    assert_eq!(tell(&other, APPENDS, message.clone()).await.body, json!({"Err": "not_owner"}));
    for replayed in [false, true] {
        let reply = tell(&owner, APPENDS, message.clone()).await;
        assert_eq!(reply.body, json!({"Ok": {"stream": "cart-1", "version": 1, "replayed": replayed}}));
    }
    tell(&owner, APPENDS, b"{}".to_vec()).await.problem(400, "invalid_body");
    owner.send(owner.request(reqwest::Method::POST, APPENDS).body(message)).await.problem(403, "not_a_replica");
}

#[actix_web::test]
async fn an_append_whose_commit_is_in_doubt_is_repeated_and_written_once() {
    for applied in [Applied::Yes, Applied::No] {
        let (owner, other) = TestServer::pair().await;
        owner.store.fail_commit(CommitError::InDoubt("the connection broke".to_owned()), applied);
        let answer = other.app.router().append(request(ExpectedVersion::Exactly(0), "a")).await;
        assert_eq!(answer, appended(1, applied == Applied::Yes), "{applied:?}");
        assert_eq!(owner.store.appended("cart-1").len(), 1, "{applied:?}");
    }
}

#[actix_web::test]
async fn a_successor_appends_what_its_predecessor_refused_and_nobody_without_an_owner() {
    let (owner, other) = TestServer::pair().await;
    owner.stop().await;
    assert_eq!(other.app.router().append(request(ExpectedVersion::Exactly(0), "a")).await, appended(1, false));
    let store = Arc::clone(&owner.store);
    other.stop().await;
    let stranger = Owner { id: "stranger".to_owned(), url: Some("http://127.0.0.1:1".to_owned()) };
    store.take_shards(&stranger, None, Millis(60_000)).await.unwrap();
    let third = TestServer::on(store, 10, 10).await;
    let refused = third.app.router().append(request(ExpectedVersion::Any, "b")).await;
    assert_eq!(refused, Err(Refusal::NotOwner));
    assert_eq!(third.store.appended("cart-1").len(), 1);
}
