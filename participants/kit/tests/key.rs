//! What shows Skald who asks.

use skald_kit::events::{ApiKey, Client, ClientError, EventQuery};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Answers one request, and gives its head.
async fn answer_one(listener: tokio::net::TcpListener) -> String {
    let (mut connection, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.unwrap());
    }
    let body = r#"{"items":[],"next_cursor":"p"}"#;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    connection.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(head).unwrap().to_lowercase()
}

#[tokio::test]
async fn a_key_goes_with_every_request_and_is_never_shown() {
    for key in [None, Some("skald_0123_secret\n")] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let client = match key {
            Some(key) => client.with_key(ApiKey::new(key).unwrap()),
            None => client,
        };
        assert!(!format!("{client:?}").contains("secret"));
        let query = EventQuery::default();
        let asked = client.events(&query, std::time::Duration::ZERO);
        let (page, head) = tokio::join!(asked, answer_one(listener));
        assert!(page.unwrap().items.is_empty());
        assert_eq!(head.contains("authorization: bearer skald_0123_secret\r\n"), key.is_some(), "{head}");
    }
    assert!(matches!(ApiKey::new("two\nlines"), Err(ClientError::Key)));
}
