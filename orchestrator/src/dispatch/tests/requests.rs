//! The request as the participant gets it.

use std::sync::Mutex;

use skald_core::state::Outcome;

use super::{server::json, *};

/// The request that reaches the participant.
async fn received(settings: impl FnOnce(String) -> config::Participant, invoke: &Invoke) -> String {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&requests);
    let server = Server::start(move |mut connection| {
        let kept = Arc::clone(&kept);
        async move {
            while let Some(request) = connection.request().await {
                kept.lock().unwrap().push(request);
                connection.send(json(200, "", "{}").as_bytes()).await;
            }
        }
    })
    .await;
    let report = dispatcher(settings(server.url())).call(invoke, &term()).await;
    assert!(matches!(report.result, CallResult::Answered(_)), "{report:?}");
    let mut requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 1);
    requests.remove(0).replace(&server.address.to_string(), "HOST")
}

/// With what differs from call to call made the same.
fn plain(request: &str) -> Vec<String> {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<String> = head
        .lines()
        .map(|line| match line.split_once(": ") {
            Some(("traceparent", value)) => format!("traceparent: {}-SPAN-{}", &value[..35], &value[53..]),
            _ => line.to_owned(),
        })
        .collect();
    lines[1..].sort();
    lines.push(body.to_owned());
    lines
}

fn token(operation: &str) -> String {
    let token = CallbackTokens::new(b"secret").issue(&format!("{SAGA}:pay:{operation}"));
    String::from_utf8(token.to_vec()).unwrap()
}

#[tokio::test]
async fn an_action_carries_the_headers_of_the_contract() {
    let invoke = Invoke {
        deadline_at: Some(NOW),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00".into()),
        ..post("/payments?x=1")
    };
    assert_eq!(
        plain(&received(settings, &invoke).await),
        [
            "POST /payments?x=1 HTTP/1.1",
            "accept-encoding: identity",
            "accept: application/json, application/problem+json",
            "content-length: 12",
            "content-type: application/json",
            "host: HOST",
            &format!("idempotency-key: \"{SAGA}:pay:action\""),
            "saga-attempt: 2",
            &format!("saga-callback-token: {}", token("action")),
            "saga-deadline: 2023-11-14T22:13:20.123Z",
            &format!("saga-id: {SAGA}"),
            "saga-operation: action",
            "saga-step: pay",
            "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-SPAN-00",
            concat!("user-agent: skald/", env!("CARGO_PKG_VERSION")),
            "x-correlation-id: corr-1",
            r#"{"amount":5}"#,
        ]
    );
}

#[tokio::test]
async fn a_compensation_names_the_action_and_how_it_ended() {
    for (outcome, text) in [(Outcome::Succeeded, "succeeded"), (Outcome::Unknown, "unknown")] {
        let invoke = Invoke {
            operation: Operation::Compensation,
            key: format!("{SAGA}:pay:compensation"),
            compensates: Some(outcome),
            target: Target { body: None, ..post("/payments/refund").target },
            ..post("/")
        };
        assert_eq!(
            plain(&received(settings, &invoke).await),
            [
                "POST /payments/refund HTTP/1.1",
                "accept-encoding: identity",
                "accept: application/json, application/problem+json",
                "content-length: 0",
                "host: HOST",
                &format!("idempotency-key: \"{SAGA}:pay:compensation\""),
                "saga-attempt: 2",
                &format!("saga-callback-token: {}", token("compensation")),
                &format!("saga-compensates: \"{SAGA}:pay:action\""),
                &format!("saga-id: {SAGA}"),
                "saga-operation: compensation",
                &format!("saga-outcome: {text}"),
                "saga-step: pay",
                "traceparent: 00-01890a5dac96774bbcceb302099a8057-SPAN-01",
                concat!("user-agent: skald/", env!("CARGO_PKG_VERSION")),
                "x-correlation-id: corr-1",
                "",
            ]
        );
    }
}

#[tokio::test]
async fn a_question_has_no_body_and_no_length() {
    for purpose in [Purpose::Poll, Purpose::Status] {
        let request = received(settings, &Invoke { purpose, ..get("/payments/7") }).await;
        assert!(request.starts_with("GET /payments/7 HTTP/1.1\r\n"), "{request}");
        for header in ["content-length", "transfer-encoding", "content-type"] {
            assert!(!request.contains(header), "{request}");
        }
        assert!(request.contains(&format!("idempotency-key: \"{SAGA}:pay:action\"")), "{request}");
    }
}

#[tokio::test]
async fn a_definition_adds_headers_but_does_not_replace_ours() {
    let headers = [
        ("Content-Type", "application/vnd.pay+json"),
        ("X-Tenant", "blue"),
        ("Saga-Id", "forged"),
        ("idempotency-key", "forged"),
        ("Content-Length", "1"),
        ("Transfer-Encoding", "chunked"),
        ("Host", "forged"),
        ("X-Api-Key", "forged"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let secret = config::SecretHeader {
        name: "X-Api-Key".to_owned(),
        value: Some(config::Secret::new("hunter2")),
        ..Default::default()
    };
    let with_secret = |url| config::Participant { secret_header: Some(secret), ..settings(url) };
    let invoke = Invoke { target: Target { headers, ..post("/payments").target }, ..post("/") };
    let request = received(with_secret, &invoke).await;
    for line in ["content-type: application/vnd.pay+json", "x-tenant: blue", "x-api-key: hunter2", "content-length: 12"]
    {
        assert_eq!(request.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {request}");
    }
    assert!(!request.contains("forged") && !request.contains("chunked"), "{request}");
}

#[tokio::test]
async fn a_call_is_signed_for_a_participant_that_wants_it() {
    let secret = crate::signature::secret(&[7; 32]);
    let source = config::SecretSource { value: Some(config::Secret::new(secret.clone())), ..Default::default() };
    let signed = |url| config::Participant { signing_secrets: vec![source.clone()], ..settings(url) };
    let forged = vec![("Webhook-Signature".to_owned(), "v1,forged".to_owned())];
    let invoke = Invoke { target: Target { headers: forged, ..post("/payments").target }, ..post("/") };
    let request = received(signed, &invoke).await;
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let key = format!("{SAGA}:pay:action");
    let mut expected = http::HeaderMap::new();
    crate::signature::Signer::new([&*secret]).unwrap().sign(&mut expected, &key, NOW, body.as_bytes());
    for (name, value) in &expected {
        let line = format!("{name}: {}", value.to_str().unwrap());
        assert_eq!(head.lines().filter(|other| **other == line).count(), 1, "{line} in {request}");
    }
    assert!(!request.contains("forged"), "{request}");
    assert!(!received(settings, &invoke).await.contains("webhook-"), "only those that want it");
}

#[tokio::test]
async fn every_attempt_is_a_span_of_its_own() {
    let (first, second) = (received(settings, &post("/")).await, received(settings, &post("/")).await);
    let span = |request: &str| request.split("traceparent: ").nth(1).unwrap()[36..52].to_owned();
    assert_ne!(span(&first), span(&second));
}

#[tokio::test]
async fn base_urls_are_called_in_turn() {
    let mut servers = Vec::new();
    for number in ["1", "2", "3"] {
        servers.push(Server::answering(json(200, "", number)).await);
    }
    let base_urls = servers.iter().map(Server::url).collect();
    let settings = config::Participant { base_url: None, base_urls, ..settings("") };
    let dispatcher = dispatcher(settings);
    let mut answered = Vec::new();
    for _ in 0..6 {
        let CallResult::Answered(answer) = dispatcher.call(&post("/"), &term()).await.result else {
            panic!("no answer")
        };
        let skald_core::classify::Body::Json(number) = answer.body else { panic!("no JSON") };
        answered.push(number.as_u64().unwrap());
    }
    assert_eq!(answered, [1, 2, 3, 1, 2, 3]);
}

#[tokio::test]
async fn connections_are_kept() {
    let server = Server::answering(json(200, "", "{}")).await;
    let dispatcher = dispatcher(settings(server.url()));
    for _ in 0..10 {
        assert!(matches!(dispatcher.call(&post("/"), &term()).await.result, CallResult::Answered(_)));
    }
    assert_eq!(server.connections(), 1);
}
