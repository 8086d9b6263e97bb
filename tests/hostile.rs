//! Those who mean it badly, or are broken in ways that look so: participants whose answers are no answers, clients that
//! send half of a request and wait, clients that send what is not HTTP. Each gets what the contract says, and nobody else
//! notices.

use std::time::Duration;

use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use futures_util::{StreamExt, future::join_all, stream};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    Backend, Deployment, Postgres, Reply, SOON, Sqlite, Stub,
    client::Client,
    deployment::Alone,
    eventually, order,
    process::peak_resident_kib,
    raw::{Raw, hang},
    sample::{definition, step},
};

/// Skald reads a body up to 1 MiB and a head of some hundred KiB, for a few calls at once.
const GROWTH_KIB_MAX: u64 = 64 * 1024;
const BOMB_BYTES: usize = 512 << 20;
const SETTLED_MAX: Duration = Duration::from_secs(60);

/// How a step must end whose participant answers so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A 2xx took effect, whatever its body is: undone as succeeded.
    OutputInvalid,
    /// No whole answer: it may have taken effect, and is undone as unknown.
    Unknown,
}

fn ok(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Half a gigabyte in half a megabyte.
fn bomb<W: std::io::Write>(mut encoder: W, finish: impl FnOnce(W) -> std::io::Result<Vec<u8>>) -> Vec<u8> {
    let block = vec![b' '; 1 << 20];
    for _ in 0..BOMB_BYTES / block.len() {
        encoder.write_all(&block).expect("it is written to memory");
    }
    finish(encoder).expect("it is written to memory")
}

/// Sends the bytes again and again for as long as somebody reads them.
async fn endless(mut stream: TcpStream, head: &'static str, piece: String) {
    if stream.write_all(head.as_bytes()).await.is_ok() {
        while stream.write_all(piece.as_bytes()).await.is_ok() {}
    }
}

/// A whole, right answer, one byte a second.
async fn trickle(mut stream: TcpStream) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    for byte in ok("", b"{}") {
        second.tick().await;
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
    }
}

/// Every kind of bad answer: its name, who gives it, how the step ends.
async fn bad_participants() -> Vec<(&'static str, Raw, End)> {
    use End::{OutputInvalid, Unknown};
    let gzip = bomb(GzEncoder::new(Vec::new(), Compression::fast()), GzEncoder::finish);
    let zlib = bomb(ZlibEncoder::new(Vec::new(), Compression::fast()), ZlibEncoder::finish);
    let chunk = || format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let header = || format!("X-More: {}\r\n", "x".repeat(1000));
    let ten_mib = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\n{{}}", header().repeat((10 << 20) / 1010));
    vec![
        ("invalid-utf8", Raw::answering(ok("", b"{\"a\":\"\xff\xfe\"}")).await, OutputInvalid),
        (
            "utf16",
            Raw::answering(ok("Content-Type: application/json; charset=utf-16\r\n", b"\xff\xfe{\0}\0")).await,
            OutputInvalid,
        ),
        ("not-json", Raw::answering(ok("", b"<html>")).await, OutputInvalid),
        ("too-deep", Raw::answering(ok("", "[".repeat(500_000).as_bytes())).await, OutputInvalid),
        ("nul", Raw::answering(ok("", b"{\"a\":\"\\u0000\"}")).await, OutputInvalid),
        ("bomb-gzip", Raw::answering(ok("Content-Encoding: gzip\r\n", &gzip)).await, OutputInvalid),
        ("bomb-deflate", Raw::answering(ok("Content-Encoding: deflate\r\n", &zlib)).await, OutputInvalid),
        ("bomb-br", Raw::answering(ok("Content-Encoding: br\r\n", &gzip)).await, OutputInvalid),
        ("bomb-unnamed", Raw::answering(ok("", &gzip)).await, OutputInvalid),
        (
            "endless-chunks",
            Raw::start(move |stream| endless(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk()))
                .await,
            OutputInvalid,
        ),
        (
            "endless-body",
            Raw::start(move |stream| endless(stream, "HTTP/1.1 200 OK\r\n\r\n", "x".repeat(0x10000))).await,
            OutputInvalid,
        ),
        (
            "length-too-short",
            Raw::answering(&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{\"paid\":true}"[..]).await,
            OutputInvalid,
        ),
        (
            "length-too-long",
            Raw::answering(&b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"paid\":true}"[..]).await,
            Unknown,
        ),
        ("length-no-number", Raw::answering(&b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}"[..]).await, Unknown),
        (
            "two-lengths",
            Raw::answering(&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"[..]).await,
            Unknown,
        ),
        ("ten-mib-of-headers", Raw::answering(ten_mib).await, Unknown),
        ("endless-headers", Raw::start(move |stream| endless(stream, "HTTP/1.1 200 OK\r\n", header())).await, Unknown),
        ("garbage", Raw::answering(&b"\x16\x03\x01\x02\0 not HTTP at all\r\n\r\n"[..]).await, Unknown),
        ("bad-status", Raw::answering(&b"HTTP/1.1 2xx Fine\r\nContent-Length: 2\r\n\r\n{}"[..]).await, Unknown),
        ("closes", Raw::answering(Vec::new()).await, Unknown),
        ("never-answers", Raw::start(hang).await, Unknown),
        ("a-byte-a-second", Raw::start(trickle).await, Unknown),
    ]
}

/// One step at this participant, with attempts of two seconds.
fn saga_of(name: &str) -> Value {
    let mut step = step("act");
    for call in ["/call", "/compensate/call"] {
        step.pointer_mut(call).expect("a step has calls")["service"] = json!(name);
    }
    step["timeout"] = json!("2s");
    definition(name, [step])
}

#[rstest]
#[tokio::test]
async fn whatever_a_participant_answers_the_saga_ends_as_the_contract_says(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let bad = bad_participants().await;
    let good = Stub::start(|_| Reply::ok());
    let urls: Vec<(&str, String)> = bad.iter().map(|(name, raw, _)| (*name, raw.url())).collect();
    let mut participants: Vec<(&str, &str)> = urls.iter().map(|(name, url)| (*name, url.as_str())).collect();
    participants.push(("good", &good.url));
    let world = Alone::start(backend, &participants).await;
    for name in participants.iter().map(|(name, _)| *name) {
        world.skald.register(&saga_of(name)).await;
    }
    let before_kib = peak_resident_kib(world.skald.process.pid()).expect("it runs");
    let sagas = join_all(participants.iter().map(async |(name, _)| world.skald.begun(name, &json!({})).await)).await;
    world.skald.all_settled(SETTLED_MAX).await;
    let grown_kib = peak_resident_kib(world.skald.process.pid()).expect("it still runs") - before_kib;
    println!("{} bad answers at once took {grown_kib} KiB", bad.len());
    assert!(grown_kib < GROWTH_KIB_MAX, "{grown_kib} KiB");

    for ((name, raw, end), id) in bad.iter().zip(&sagas) {
        let saga = world.skald.saga(id).await;
        let step = &saga["steps"][0];
        assert_eq!(saga["status"], "compensated", "{name}: {saga}");
        let outcome = if *end == End::OutputInvalid { "succeeded" } else { "unknown" };
        assert_eq!(step["outcome"], outcome, "{name}: {saga}");
        assert_eq!(saga["failure"]["code"] == "output_invalid", *end == End::OutputInvalid, "{name}: {saga}");
        let [undo] = &raw.undos()[..] else { panic!("{name}: it was undone {} times", raw.undos().len()) };
        assert!(undo.contains(&format!("saga-outcome: {outcome}")), "{name}: {undo}");
        assert!(undo.contains(&format!("saga-compensates: \"{id}:act:action\"")), "{name}: {undo}");
    }
    assert_eq!(world.skald.saga(sagas.last().expect("the good one")).await["status"], "completed");
}

/// The other participants' permits, connections and turns are their own.
#[rstest]
#[tokio::test]
async fn a_participant_that_never_answers_holds_up_nobody_else(#[values(Sqlite, Postgres)] backend: Backend) {
    let (mute, good) = (Raw::start(hang).await, Stub::start(|_| Reply::ok()));
    let world = Alone::start(backend, &[("mute", &mute.url()), ("good", &good.url)]).await;
    let mut patient = saga_of("mute");
    patient["steps"][0]["timeout"] = json!("10m");
    world.skald.register(&patient).await;
    world.skald.register(&saga_of("good")).await;
    // More than may be called at once, so that some wait for a permit.
    let begin = async |_| world.skald.begun("mute", &json!({})).await;
    let held = stream::iter(0..150).map(begin).buffer_unordered(20);
    let held: Vec<String> = held.collect().await;
    for _ in 0..30 {
        assert_eq!(world.skald.run("good", &json!({})).await["status"], "completed");
    }
    for id in held {
        assert_eq!(world.skald.saga(&id).await["status"], "running", "nothing was given up meanwhile");
    }
}

/// A connection to Skald that has sent this much and no more.
async fn half_sent(client: &Client, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(client.url.trim_start_matches("http://")).await.expect("Skald accepts");
    stream.write_all(bytes.as_bytes()).await.expect("Skald reads");
    stream
}

#[tokio::test]
async fn thousands_of_half_sent_requests_hold_up_nobody_and_are_ended() {
    const HEADS: usize = 2_000;
    const BODIES: usize = 1_000;
    let world = Deployment::start(Sqlite).await;
    let client = &world.skald.client;
    let head = "POST /sagas/checkout HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let body = format!("{head}Content-Length: 1000\r\n\r\n{{\"customer_id\"");
    let heads = stream::iter(0..HEADS).map(|_| half_sent(client, head)).buffer_unordered(100).collect::<Vec<_>>().await;
    let bodies =
        stream::iter(0..BODIES).map(|_| half_sent(client, &body)).buffer_unordered(100).collect::<Vec<_>>().await;
    for number in 0..20 {
        let saga = world.skald.run("checkout", &order(&format!("c-{number}"))).await;
        assert_eq!(saga["status"], "completed", "{saga}");
    }
    // Their time is up, head or body: Skald ends them, some with a word.
    let ended = heads.into_iter().chain(bodies).map(async |mut stream| {
        let mut said = Vec::new();
        let ended = tokio::time::timeout(SETTLED_MAX, stream.read_to_end(&mut said)).await;
        ended.expect("Skald ends it").ok();
        String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned()
    });
    for said in join_all(ended).await {
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    }
    assert_eq!(world.skald.sagas().await.len(), 20, "what was half sent started nothing");
    assert_eq!(world.skald.run("checkout", &order("c-1")).await["status"], "completed");
    world.check().await;
}

/// Calls of participants and sessions of the database need files too.
#[tokio::test]
async fn half_sent_requests_do_not_use_up_the_open_files() {
    const FILES: usize = 160;
    let mut world = Deployment::start(Sqlite).await;
    world.skald.restart_limited(&format!("ulimit -n {FILES}")).await;
    let client = &world.skald.client;
    let saga = world.skald.run("checkout", &order("c-1")).await;
    assert_eq!(saga["status"], "completed", "{saga}");
    let head = "POST /sagas/checkout HTTP/1.1\r\nHost: x\r\n";
    let half =
        stream::iter(0..2 * FILES).map(|_| half_sent(client, head)).buffer_unordered(50).collect::<Vec<_>>().await;
    let saga = eventually("a checkout goes through", SETTLED_MAX, async || {
        let request = client.request(reqwest::Method::POST, "/sagas/checkout").json(&order("c-2"));
        match client.send(request).await {
            Ok(answer) if answer.status == 201 => Ok(answer.body),
            Ok(answer) => Err(answer.text),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    assert_eq!(saga["status"], "completed", "{saga}");
    drop(half);
    assert!(!world.skald.process.log().contains("Too many open files"), "none ran out");
    world.check().await;
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_starts_nothing() {
    let world = Deployment::start(Sqlite).await;
    let start = order("c-1").to_string();
    let length = start.len();
    let json = "Content-Type: application/json\r\n";
    let long = "x".repeat(10 << 20);
    for (what, bytes) in [
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n".to_owned()),
        ("no version", "GET /sagas\r\n\r\n".to_owned()),
        ("HTTP/3", "GET /sagas HTTP/3.0\r\nHost: x\r\n\r\n".to_owned()),
        ("10 MiB of a header", format!("GET /sagas HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n")),
        ("10 MiB of a path", format!("GET /sagas?status={long} HTTP/1.1\r\nHost: x\r\n\r\n")),
        ("many headers", format!("GET /sagas HTTP/1.1\r\n{}\r\n", "X-A: b\r\n".repeat(10_000))),
        ("a header without a name", "GET /sagas HTTP/1.1\r\n: x\r\n\r\n".to_owned()),
        ("NUL in a header", "GET /sagas HTTP/1.1\r\nHost: x\r\nX-A: \0\r\n\r\n".to_owned()),
        (
            "two lengths",
            format!(
                "POST /sagas/checkout HTTP/1.1\r\nHost: x\r\n{json}Content-Length: {length}\r\nContent-Length: 3\r\n\r\n{start}"
            ),
        ),
        (
            "a negative length",
            format!("POST /sagas/checkout HTTP/1.1\r\nHost: x\r\n{json}Content-Length: -{length}\r\n\r\n{start}"),
        ),
        (
            "length and chunks",
            format!(
                "POST /sagas/checkout HTTP/1.1\r\nHost: x\r\n{json}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{start}"
            ),
        ),
        (
            "a chunk that lies",
            format!(
                "POST /sagas/checkout HTTP/1.1\r\nHost: x\r\n{json}Transfer-Encoding: chunked\r\n\r\nzz\r\n{start}\r\n0\r\n\r\n"
            ),
        ),
        (
            "a chunk too large for a number",
            format!(
                "POST /sagas/checkout HTTP/1.1\r\nHost: x\r\n{json}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{start}"
            ),
        ),
        (
            "a body that ends early",
            format!("POST /sagas/checkout HTTP/1.1\r\nHost: x\r\n{json}Content-Length: {}\r\n\r\n{start}", length + 1),
        ),
    ] {
        let address = world.skald.client.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.expect("Skald accepts");
        // It may have had enough before it has read all.
        let _ = stream.write_all(bytes.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut said = Vec::new();
        let ended = tokio::time::timeout(SETTLED_MAX, stream.read_to_end(&mut said)).await;
        assert!(ended.is_ok(), "{what}: the connection goes on");
        let said = String::from_utf8_lossy(&said);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{what}: {said}");
    }
    assert!(world.skald.sagas().await.is_empty());
    assert_eq!(world.skald.run("checkout", &order("c-1")).await["status"], "completed");
    assert!(!world.skald.process.log().contains("ERROR"), "a client's mistake is no error of ours");
}

/// Compressed requests are refused, not unpacked.
#[tokio::test]
async fn a_compressed_bomb_from_a_client_is_not_unpacked() {
    let world = Deployment::start(Sqlite).await;
    let gzip = bomb(GzEncoder::new(Vec::new(), Compression::fast()), GzEncoder::finish);
    let before_kib = peak_resident_kib(world.skald.process.pid()).expect("it runs");
    for encoding in ["gzip", "deflate", "br", "zstd", "gzip, gzip"] {
        let request = world.skald.client.request(reqwest::Method::POST, "/sagas/checkout").body(gzip.clone());
        let request = request.header("content-type", "application/json").header("content-encoding", encoding);
        let answer = world.skald.client.send(request).await.expect("Skald answers");
        assert!(matches!(answer.status, 413 | 415), "{encoding}: {}", answer.text);
        answer.problem(answer.status);
    }
    let grown_kib = peak_resident_kib(world.skald.process.pid()).expect("it runs") - before_kib;
    assert!(grown_kib < GROWTH_KIB_MAX, "{grown_kib} KiB");
}

/// Readers of a saga that waits are idle; sagas go on beside them, and in the end all are told.
#[rstest]
#[tokio::test]
async fn a_thousand_idle_readers_are_told_the_end_and_hold_up_nobody(#[values(Sqlite, Postgres)] backend: Backend) {
    const READERS: usize = 1_000;
    let slow = Stub::start(|call| if call.path == "/act" { Reply::json(202, Value::Null) } else { Reply::ok() });
    let good = Stub::start(|_| Reply::ok());
    let world = Alone::start(backend, &[("slow", &slow.url), ("good", &good.url)]).await;
    world.skald.register(&saga_of("slow")).await;
    world.skald.register(&saga_of("good")).await;
    let id = world.skald.begun("slow", &json!({})).await;
    let path = format!("/sagas/{id}/stream");
    let connect = async |_| {
        let request = world.skald.client.request(reqwest::Method::GET, &path).timeout(Duration::from_secs(300));
        let response = request.send().await.expect("Skald answers");
        assert_eq!(response.status(), 200);
        response
    };
    let readers: Vec<_> = stream::iter(0..READERS).map(connect).buffer_unordered(50).collect().await;
    for _ in 0..20 {
        assert_eq!(world.skald.run("good", &json!({})).await["status"], "completed");
    }
    let call =
        eventually("it is called", SOON, async || slow.calls_to("/act").into_iter().next().ok_or_else(String::new))
            .await;
    let done = json!({"operation": "action", "outcome": "succeeded", "output": {}});
    let request = world.skald.client.request(reqwest::Method::POST, &format!("/sagas/{id}/steps/act/complete"));
    let request = request.header("Saga-Callback-Token", call.header("saga-callback-token")).json(&done);
    let answer = world.skald.client.send(request).await.expect("Skald answers");
    assert!(answer.status < 300, "{}", answer.text);
    for text in join_all(readers.into_iter().map(reqwest::Response::text)).await {
        let text = text.expect("the stream ends by itself");
        assert!(text.contains("event: SagaStarted") && text.contains("event: SagaCompleted"), "{text}");
    }
}
