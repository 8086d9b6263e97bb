//! Whatever bytes a participant answers with: a report that is true, and never a panic.
//!
//! True means: after a whole request nothing is "not sent"; a 2xx took effect, whatever its body; a body that is kept is
//! one that can be read again.

use std::sync::OnceLock;

use proptest::prelude::*;
use skald_core::{
    classify::{Answer, Body, Verdict, classify},
    json::{DEPTH_MAX, Limits, parse_strict},
};

use super::*;

fn answer_to(bytes: Vec<u8>) -> CallResult {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().unwrap()).block_on(async {
        let server = Server::answering_once_then_closing(bytes).await;
        call(&server, &post("/payments")).await.result
    })
}

fn pieces(choices: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(choices).prop_map(|piece| piece.as_bytes().to_vec())
}

fn status_line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (100..600_u16).prop_map(|status| format!("HTTP/1.1 {status} Word\r\n").into_bytes()),
        2 => pieces(&[
            "HTTP/1.1 200 OK\r\n", "HTTP/1.0 200 OK\r\n", "HTTP/1.1 200\r\n", "HTTP/1.1 099 Low\r\n", "HTTP/1.1 999 High\r\n",
            "HTTP/2 200\r\n", "HTTP/1.1 200 OK\n", "HTTP/1.1 2e2 OK\r\n", "HTTP/9.9 200 OK\r\n", "\r\n", "",
        ]),
    ]
}

fn header() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => pieces(&[
            "Content-Length: 0\r\n", "Content-Length: 1\r\n", "Content-Length: 20\r\n", "Content-Length: -1\r\n",
            "Content-Length: 99999999999999999999\r\n", "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n", "Content-Encoding: gzip\r\n", "Content-Encoding: identity\r\n",
            "Content-Encoding: \r\n", "Content-Type: application/problem+json\r\n", "Retry-After: 5\r\n", "Retry-After: -5\r\n",
            "Retry-After: 99999999999999999999\r\n", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n", "Location: /jobs/1\r\n",
            "Location: //evil/\r\n", "Location: http://[::\r\n", "Location: ../../..\r\n", "Location: \r\n", "Connection: close\r\n",
            "Upgrade: h2c\r\nConnection: upgrade\r\n", "Trailer: X\r\n", " folded: x\r\n", ": nameless\r\n", "X: \u{7}\r\n",
        ]),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|mut bytes| { bytes.extend(b"\r\n"); bytes }),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..60),
        3 => pieces(&[
            "{}", "{\"outcome\":\"rejected\"}", "{\"outcome\":7}", "{\"code\":\"\",\"detail\":null}", "[1e999]", "1e999", "\"\\ud800\"",
            "{\"a\":1,\"a\":2}", "{\"\\u0000\":1}", "18446744073709551616", "-0.0", "null", "nul", "\u{feff}{}", "{} {}", "[[[[[[",
            "2\r\n{}\r\n0\r\n\r\n", "2\r\n{}\r\n", "ffffffffffffffffff\r\n{}", "0\r\nX: y\r\n\r\n", "\r\n\r\n",
        ]),
    ]
}

fn answers() -> impl Strategy<Value = Vec<u8>> {
    let whole = (status_line(), prop::collection::vec(header(), 0..5), body())
        .prop_map(|(status, headers, body)| [status, headers.concat(), b"\r\n".to_vec(), body].concat())
        .boxed();
    prop_oneof![
        6 => whole.clone(),
        2 => (whole, any::<prop::sample::Index>()).prop_map(|(mut bytes, at)| { bytes.truncate(at.index(bytes.len() + 1)); bytes }),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

fn check(result: &CallResult) -> Result<(), TestCaseError> {
    let answer: &Answer = match result {
        CallResult::Answered(answer) => answer,
        CallResult::MaybeSent { error } => {
            prop_assert!(!error.is_empty());
            return Ok(());
        }
        other => return Err(TestCaseError::fail(format!("a request that arrived is {other:?}"))),
    };
    if let Body::Json(value) = &answer.body {
        let limits = Limits { bytes_max: usize::MAX, depth_max: DEPTH_MAX };
        prop_assert_eq!(&parse_strict(value.to_string().as_bytes(), limits).expect("it was kept"), value);
    }
    if let Some(location) = &answer.location {
        prop_assert!(!location.contains("//evil"), "{} leads elsewhere", location);
    }
    for operation in [Operation::Action, Operation::Compensation] {
        let verdict = classify(result.clone(), operation, &BTreeMap::new());
        let took_effect = matches!(verdict, Verdict::Done(_) | Verdict::Accepted { .. });
        prop_assert_eq!(took_effect, (200..300).contains(&answer.status), "{:?}", verdict);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_answer_is_reported_truly(bytes in answers()) {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let result = answer_to(bytes);
        if let Err(error) = check(&result) {
            return Err(TestCaseError::fail(format!("{error}\n{shown:?}\n{result:?}")));
        }
    }
}
