//! Skald through any of its replicas.

use serde_json::json;
use skald_kit::events::{Client, ClientError};

use crate::store::Store;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_answer_is_not_asked_next() {
    let (one, other) = (Store::start().await, Store::start().await);
    one.append("note-1", "Written", json!({}));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::new(&format!("http://{nobody}, {}/,{}", one.url, other.url)).unwrap();
    let read = async || client.stream("note-1", 0).await.map(|events| events.len());
    assert!(matches!(read().await, Err(ClientError::Unavailable { .. })));
    assert_eq!((read().await.unwrap(), read().await.unwrap()), (1, 1), "the one that answers goes on being asked");
    one.fail_next(1);
    assert!(matches!(read().await, Err(ClientError::Unavailable { .. })));
    assert_eq!(read().await.unwrap(), 0, "the other one has no such stream");
}

#[test]
fn each_of_several_urls_must_be_one() {
    let error = Client::new("http://127.0.0.1:1,ftp://127.0.0.1").unwrap_err();
    assert!(matches!(error, ClientError::Url(url) if url == "ftp://127.0.0.1"));
}
