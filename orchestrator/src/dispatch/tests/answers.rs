//! What arrived as a whole is an answer, whatever it is.

use serde_json::{Value, json as value};
use skald_core::classify::{Answer, Body};

use super::{server::json, *};

async fn answer(bytes: impl Into<Vec<u8>>) -> Answer {
    let server = Server::answering_once_then_closing(bytes).await;
    match call(&server, &post("/payments")).await.result {
        CallResult::Answered(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn unusable(body: &Body) -> &str {
    match body {
        Body::Unusable(why) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn json_is_read_with_any_status() {
    for status in [200, 201, 299, 302, 400, 402, 404, 409, 422, 429, 500, 503, 599] {
        let answer = answer(json(status, "", r#"{"total":1000,"outcome":"rejected"}"#)).await;
        let body = Body::Json(value!({ "total": 1000, "outcome": "rejected" }));
        assert_eq!(answer, Answer { status, retry_after: None, location: None, body });
    }
}

#[tokio::test]
async fn a_body_may_come_in_pieces_or_not_at_all() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n";
    let until_closed = "HTTP/1.1 200 OK\r\n\r\n{\"a\":1}";
    for whole in [chunked, until_closed] {
        assert_eq!(answer(whole).await.body, Body::Json(value!({ "a": 1 })));
    }
    for empty in
        ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"]
    {
        assert_eq!(answer(empty).await.body, Body::Empty, "{empty}");
    }
}

#[tokio::test]
async fn what_cannot_be_an_output_is_unusable_and_says_why() {
    let not_utf8 = [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\"".as_slice(), &[0xff, 0xfe], b"\""].concat();
    // A hundred bytes that would unpack to gigabytes are never unpacked.
    let bomb = json(200, "Content-Encoding: gzip\r\n", &"\u{1f}\u{b}".repeat(50));
    for (bytes, why) in [
        (json(200, "", "<html>").into_bytes(), "not JSON"),
        (json(200, "", "{\"a\":1} tail").into_bytes(), "not JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{\"a\":1}".to_vec(), "not JSON"),
        (json(200, "", &"[".repeat(100_000)).into_bytes(), "not JSON"),
        (not_utf8, "not JSON"),
        (bomb.into_bytes(), "compressed (gzip)"),
        (json(200, "Content-Encoding: br\r\n", "{}").into_bytes(), "compressed (br)"),
    ] {
        let answer = answer(bytes).await;
        assert_eq!(answer.status, 200);
        assert!(unusable(&answer.body).starts_with(why), "{:?} is not {why}", answer.body);
    }
}

#[tokio::test]
async fn a_body_over_the_cap_is_not_read_to_its_end() {
    let endless = Server::start(|mut connection| async move {
        connection.request().await;
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        while connection.send(format!("2000\r\n{}\r\n", " ".repeat(0x2000)).as_bytes()).await {}
    })
    .await;
    let announced = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n").await;
    for server in [endless, announced] {
        let CallResult::Answered(answer) = call(&server, &post("/payments")).await.result else { panic!("no answer") };
        assert_eq!(unusable(&answer.body), "larger than 1048576 bytes");
    }
}

#[tokio::test]
async fn a_body_as_large_as_the_cap_is_read() {
    for (length, fits) in [(100, true), (101, false)] {
        let text = format!("\"{}\"", "x".repeat(length - 2));
        let server = Server::answering(json(200, "", &text)).await;
        let settings = config::Participant { response_max: config::ByteSize(100), ..settings(server.url()) };
        let CallResult::Answered(answer) = dispatcher(settings).call(&post("/"), &term()).await.result else {
            panic!()
        };
        assert_eq!(matches!(answer.body, Body::Json(Value::String(_))), fits, "{length}");
    }
}

#[tokio::test]
async fn a_redirect_is_reported_and_not_followed() {
    let target = Server::answering(json(200, "", "{}")).await;
    let answer = answer(json(307, &format!("Location: {}/elsewhere\r\n", target.url()), "")).await;
    assert_eq!((answer.status, answer.location), (307, None));
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn a_202_says_where_and_when_to_ask_unless_it_leads_elsewhere() {
    for (headers, location, retry_after) in [
        ("Location: /jobs/7?x=1\r\n", Some("/jobs/7?x=1"), None),
        ("Location: 7\r\nRetry-After: 3\r\n", Some("/payments/7"), Some(3_000)),
        ("Location: http://169.254.169.254/latest\r\nRetry-After: 1\r\n", None, Some(1_000)),
        ("Location: \u{fc}\r\nRetry-After: Tue, 14 Nov 2023 22:13:30 GMT\r\n", None, Some(9_877)),
        ("", None, None),
    ] {
        let server = Server::answering(json(202, headers, "")).await;
        let CallResult::Answered(answer) = call(&server, &post("/payments/")).await.result else { panic!() };
        assert_eq!(answer.location.as_deref(), location, "{headers}");
        assert_eq!(answer.retry_after, retry_after.map(Millis), "{headers}");
    }
}

#[tokio::test]
async fn a_location_leads_to_the_same_place_when_polled() {
    let server = Server::start(|mut connection| async move {
        while let Some(request) = connection.request().await {
            let answer = match request.split(' ').nth(1) {
                Some("/v1/payments") => json(202, "Location: ../jobs/7\r\n", ""),
                Some("/jobs/7") => json(200, "", "7"),
                _ => json(404, "", ""),
            };
            connection.send(answer.as_bytes()).await;
        }
    })
    .await;
    let dispatcher = dispatcher(settings(format!("{}/v1/", server.url())));
    let CallResult::Answered(Answer { location: Some(path), .. }) =
        dispatcher.call(&post("/payments"), &term()).await.result
    else {
        panic!("no location")
    };
    let poll = Invoke { purpose: Purpose::Poll, ..get(&path) };
    let CallResult::Answered(answer) = dispatcher.call(&poll, &term()).await.result else { panic!("no answer") };
    assert_eq!((answer.status, answer.body), (200, Body::Json(value!(7))));
}
