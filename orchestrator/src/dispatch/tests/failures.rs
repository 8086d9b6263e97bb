//! Without a whole answer: was it sent or not?

use std::time::{Duration, Instant};

use super::{server::json, *};

/// Connections to it are never made: its backlog is full, so the handshake is not answered.
async fn unanswering_address() -> (std::net::SocketAddr, Vec<tokio::net::TcpStream>, tokio::net::TcpListener) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await
    {
        filling.push(stream);
    }
    (address, filling, listener)
}

#[tokio::test]
async fn a_refused_connection_was_not_sent() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let report = dispatcher(settings(format!("http://{closed}"))).call(&post("/payments"), &term()).await;
    assert!(not_sent(&report).contains("refused"), "{report:?}");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_was_not_sent() {
    let report = dispatcher(settings("http://no-such-host.invalid")).call(&get("/payments"), &term()).await;
    not_sent(&report);
}

#[tokio::test]
async fn a_connection_that_is_never_made_was_not_sent_whichever_timeout_ends_it() {
    let (address, _filling, _listener) = unanswering_address().await;
    for (connect_timeout, timeout) in [(SHORT, LONG), (LONG, SHORT)] {
        for invoke in [get("/payments"), post("/payments")] {
            let settings = config::Participant { connect_timeout, ..settings(format!("http://{address}")) };
            let report = dispatcher(settings).call(&Invoke { timeout, ..invoke }, &term()).await;
            let error = not_sent(&report);
            assert!(error.contains("no connection within 150 ms") || error.contains("elapsed"), "{error}");
            assert!(report.duration >= SHORT && report.duration < LONG, "{report:?}");
        }
    }
}

#[tokio::test]
async fn a_failed_tls_handshake_was_not_sent() {
    let plain = Server::answering(json(200, "", "{}")).await;
    let mute = Server::start(|mut connection| async move { connection.hang().await }).await;
    for server in [plain, mute] {
        let settings = settings(format!("https://{}", server.address));
        let report = dispatcher(settings).call(&Invoke { timeout: SHORT, ..post("/payments") }, &term()).await;
        not_sent(&report);
    }
}

#[tokio::test]
async fn a_participant_that_takes_the_request_and_hangs_may_have_acted() {
    let server = Server::start(|mut connection| async move { connection.hang().await }).await;
    for invoke in [get("/payments"), post("/payments"), bodyless(post("/payments"))] {
        let began = Instant::now();
        let report = call(&server, &Invoke { timeout: SHORT, ..invoke }).await;
        assert_eq!(maybe_sent(&report), "no answer within 150 ms");
        assert_eq!(report.started_at, NOW);
        assert!(report.duration >= SHORT && report.duration.0 <= began.elapsed().as_millis() as u64 + 1);
    }
}

fn bodyless(invoke: Invoke) -> Invoke {
    Invoke { target: Target { body: None, ..invoke.target }, ..invoke }
}

#[tokio::test]
async fn the_participants_own_timeout_bounds_the_calls() {
    let server = Server::start(|mut connection| async move { connection.hang().await }).await;
    let settings = config::Participant { timeout: SHORT, ..settings(server.url()) };
    maybe_sent(&dispatcher(settings).call(&post("/payments"), &term()).await);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    for bytes in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"a\":",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "\0\0\0\0\0\0\0\0",
    ] {
        let server = Server::answering_once_then_closing(bytes).await;
        maybe_sent(&call(&server, &post("/payments")).await);
    }
}

#[tokio::test]
async fn a_reset_after_the_request_may_have_been_sent() {
    let server = Server::start(|mut connection| async move {
        connection.request().await;
        connection.reset();
    })
    .await;
    maybe_sent(&call(&server, &post("/payments")).await);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_bounded_by_the_timeout() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{",
        "HTTP/1.1 200 OK\r\nX-Slow: ",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        let server = Server::start(move |mut connection| async move {
            connection.request().await;
            connection.send(head.as_bytes()).await;
            connection.hang().await;
        })
        .await;
        maybe_sent(&call(&server, &Invoke { timeout: SHORT, ..post("/payments") }).await);
    }
}

#[tokio::test]
async fn endless_headers_are_cut_off_early() {
    let (sent, seen) = tokio::sync::oneshot::channel();
    let sent = std::sync::Mutex::new(Some(sent));
    let server = Server::start(move |mut connection| {
        let sent = sent.lock().unwrap().take();
        async move {
            connection.request().await;
            connection.send(b"HTTP/1.1 200 OK\r\n").await;
            let mut bytes = 0_usize;
            while connection.send(format!("X-Bomb: {}\r\n", "x".repeat(1000)).as_bytes()).await {
                bytes += 1000;
            }
            let _ = sent.unwrap().send(bytes);
        }
    })
    .await;
    maybe_sent(&call(&server, &post("/payments")).await);
    // What the sockets' buffers swallow counts too.
    assert!(seen.await.unwrap() < 16 << 20);
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_meanwhile_costs_no_attempt() {
    let server = Server::answering_once_then_closing(json(200, "", "{}")).await;
    let dispatcher = dispatcher(settings(server.url()));
    for round in 0..20 {
        let report = dispatcher.call(&post("/payments"), &term()).await;
        // The connection may close just as the next request is on it: then it is in doubt, never "not sent".
        match &report.result {
            CallResult::Answered(answer) => assert_eq!(answer.status, 200),
            CallResult::MaybeSent { .. } => {}
            other => panic!("round {round}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_unknown_participant_a_bad_header_and_a_path_that_leads_up_are_not_sent() {
    let server = Server::answering(json(200, "", "{}")).await;
    let with_header = Target { headers: vec![("X-Name".into(), "line\nbreak".into())], ..post("/").target };
    for (invoke, error) in [
        (Invoke { service: "elsewhere".into(), ..post("/") }, "no participant `elsewhere` is configured"),
        (
            Invoke { target: with_header, ..post("/") },
            "the header `X-Name` holds characters that a header cannot carry",
        ),
        (
            Invoke { correlation_id: "\u{7}".into(), ..post("/") },
            "the header `x-correlation-id` holds characters that a header cannot carry",
        ),
        (post("/../admin"), "the path has a `.` or `..` segment"),
    ] {
        assert_eq!(not_sent(&call(&server, &invoke).await), error);
    }
    assert_eq!(server.connections(), 0);
}

/// What is logged meanwhile.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_failed_attempt_is_one_line_that_can_be_found_by_saga_correlation_and_trace() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    // Of a single subscriber, tracing asks only the thread that comes by first whether a line is wanted, and this one has
    // others beside it.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = Server::answering(json(500, "", "{}")).await;
    call(&server, &post("/payments?card=4111")).await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (field, value) in [
        ("saga_id", SAGA),
        ("step", "pay"),
        ("operation", "action"),
        ("service", "sales"),
        ("correlation_id", "corr-1"),
        ("trace_id", "01890a5dac96774bbcceb302099a8057"),
        ("error", "HTTP 500"),
    ] {
        assert_eq!(line["fields"][field], value, "{text}");
    }
    assert!(!text.contains("4111"), "what a path holds is not logged: {text}");
}
