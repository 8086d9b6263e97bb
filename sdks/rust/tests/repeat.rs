//! What is repeated, against a server that answers as it is told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

use reqwest::Method;
use skald_client::{CallFailed, Options, Skald, StartOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const SAGA: &str = r#"{"id": "01890a5d-ac96-774b-bcce-b302099a8057", "definition": "checkout", "version": 1,
    "mode": "orchestrated", "status": "completed", "state": "DONE", "input": {}, "steps": [], "correlation_id": "c",
    "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:00Z",
    "revision": 1, "something_newer": true}"#;
const PROBLEM: &str = r#"{"type": "t", "title": "t", "status": 503, "detail": "later", "code": "overloaded"}"#;

/// Gives these answers in turn, one per connection: status and `Retry-After`, or none to hang up. In the end, the
/// requests' heads.
async fn serve(answers: Vec<Option<(u16, u32)>>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut connection, _) = listener.accept().await.unwrap();
            asked.push(read(&mut connection).await);
            let Some((status, wait_s)) = answer else { continue };
            let (kind, body) =
                if status < 300 { ("application/json", SAGA) } else { ("application/problem+json", PROBLEM) };
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nRetry-After: {wait_s}\r\n\
                 Connection: close\r\n\r\n{body}",
                body.len()
            );
            connection.write_all(head.as_bytes()).await.unwrap();
        }
        asked
    });
    (url, asked)
}

/// The head of a request whose body comes in one piece with it or after it.
async fn read(connection: &mut TcpStream) -> String {
    let mut text = String::new();
    loop {
        let mut bytes = [0; 4096];
        let count = connection.read(&mut bytes).await.unwrap();
        text += std::str::from_utf8(&bytes[..count]).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            return head.to_owned();
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn client(url: &str) -> Skald {
    Skald::new(url, Options { api_key: Some("k".to_owned()), ..Options::default() }).unwrap()
}

#[tokio::test]
async fn a_start_is_repeated_under_one_key_that_was_made_for_it() {
    let (url, asked) = serve(vec![Some((503, 0)), Some((429, 0)), None, Some((201, 0))]).await;
    let saga = client(&url).start("checkout", &(), StartOptions::default()).await.unwrap();
    assert_eq!(saga.state, "DONE");
    let asked = asked.await.unwrap();
    let key = header(&asked[0], "idempotency-key").expect("one was made");
    assert!(asked.iter().all(|head| header(head, "idempotency-key") == Some(key)));
    assert_eq!(header(&asked[0], "authorization"), Some("Bearer k"));
}

#[tokio::test]
async fn a_key_that_is_there_stays() {
    let (url, asked) = serve(vec![Some((201, 0))]).await;
    let options = StartOptions { idempotency_key: Some("mine".to_owned()), ..StartOptions::default() };
    client(&url).start("checkout", &(), options).await.unwrap();
    assert_eq!(header(&asked.await.unwrap()[0], "idempotency-key"), Some("mine"));
}

#[tokio::test]
async fn what_may_have_been_done_is_not_repeated_without_a_key() {
    let (url, asked) = serve(vec![Some((429, 0)), Some((503, 0))]).await;
    let http = &client(&url).configuration().client.clone();
    let answer = http.request(Method::POST, format!("{url}/groups/g/poll")).body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let asked = asked.await.unwrap();
    assert!(asked.iter().all(|head| header(head, "idempotency-key").is_none()));
}

#[tokio::test]
async fn operators_commands_get_a_key_and_other_calls_do_not() {
    for (path, takes_key) in [
        ("/sagas/checkout", true),
        ("/admin/sagas/1/retry", true),
        ("/sagas/1/steps/2/complete", false),
        ("/events", false),
    ] {
        let (url, asked) = serve(vec![Some((201, 0))]).await;
        let http = &client(&url).configuration().client.clone();
        http.request(Method::POST, format!("{url}{path}")).body("{}").send().await.unwrap();
        assert_eq!(header(&asked.await.unwrap()[0], "idempotency-key").is_some(), takes_key, "{path}");
    }
}

#[tokio::test]
async fn repeating_ends() {
    let (url, asked) = serve(vec![Some((503, 0)), Some((503, 0))]).await;
    let skald = Skald::new(&url, Options { attempts_max: 2, ..Options::default() }).unwrap();
    let refused = skald.start("checkout", &(), StartOptions::default()).await.unwrap_err();
    assert!(matches!(refused, CallFailed::Problem(problem) if problem.code == "overloaded"));
    assert_eq!(asked.await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_wait_that_is_asked_for_is_kept_and_one_that_is_too_long_is_not_begun() {
    let (url, _) = serve(vec![Some((503, 1)), Some((201, 0))]).await;
    let begun = Instant::now();
    client(&url).start("checkout", &(), StartOptions::default()).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let (url, _) = serve(vec![Some((503, 61))]).await;
    client(&url).start("checkout", &(), StartOptions::default()).await.unwrap_err();
}
