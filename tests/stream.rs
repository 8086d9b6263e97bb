//! A saga's events as they happen: server-sent events, resumed where a client left off.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{Backend, Client, Deployment, Postgres, Sqlite, order};

const STREAM_MAX: Duration = Duration::from_secs(20);

/// One event as it came.
#[derive(Debug)]
struct Sent {
    id: u64,
    event: String,
    data: Value,
}

/// Reads the stream until it has so many events, or ends.
async fn follow(client: &Client, saga: &str, after: Option<u64>, count: usize) -> Vec<Sent> {
    let mut request = client.request(Method::GET, &format!("/sagas/{saga}/stream")).timeout(STREAM_MAX);
    if let Some(after) = after {
        request = request.header("Last-Event-ID", after.to_string());
    }
    let response = request.send().await.expect("Skald answers");
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-type"].to_str().is_ok_and(|kind| kind.starts_with("text/event-stream")));
    let mut chunks = response.bytes_stream();
    let mut text = String::new();
    let mut sent = Vec::new();
    while sent.len() < count {
        let Some(chunk) = chunks.next().await else { return sent };
        text.push_str(&String::from_utf8_lossy(&chunk.expect("the stream goes on")));
        while let Some((block, rest)) = text.split_once("\n\n") {
            sent.extend(parse(block));
            text = rest.to_owned();
        }
    }
    sent.truncate(count);
    sent
}

/// An event of the stream; comments, which keep the connection alive, are none.
fn parse(block: &str) -> Option<Sent> {
    let field = |name: &str| block.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()));
    let data = serde_json::from_str(field("data")?).expect("the data of an event is JSON");
    let id = field("id")?.parse().expect("the id of an event is its version");
    Some(Sent { id, event: field("event").unwrap_or_default().to_owned(), data })
}

#[rstest]
#[tokio::test]
async fn a_stream_shows_each_event_once_and_resumes_after_the_last_one_seen_7(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = Deployment::start(backend).await;
    world.shop.orders.faults(json!({"orders": {"delay": {"rate": 1.0, "ms": 1000}}})).await;
    let id = world.skald.begun("checkout", &order("c-1")).await;
    // While the saga runs: what has happened, and what happens.
    let begun = follow(&world.skald.client, &id, None, 3).await;
    assert_eq!(begun.iter().map(|sent| sent.id).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((&*begun[0].event, &begun[0].data["type"]), ("CheckoutInitiated", &json!("CheckoutInitiated")));
    let rest = follow(&world.skald.client, &id, Some(3), usize::MAX).await;
    let all = world.skald.events(&id).await;
    let seen: Vec<&Value> = begun.iter().chain(&rest).map(|sent| &sent.data["version"]).collect();
    assert_eq!(seen, all.iter().map(|event| &event["version"]).collect::<Vec<_>>());
    assert_eq!(rest.last().expect("it ended").data["type"], "CheckoutSucceeded");
    // Of an ended saga: all at once.
    assert_eq!(follow(&world.skald.client, &id, None, usize::MAX).await.len(), all.len());
    let missing = world.skald.client.get("/sagas/01890a5d-ac96-774b-bcce-b302099a8057/stream").await;
    assert_eq!(missing.problem(404), "saga_not_found");
}
