//! The vectors that every client is held to.

use std::{
    collections::HashMap,
    time::{Duration, UNIX_EPOCH},
};

use http::HeaderMap;
use serde::Deserialize;
use skald_client::webhook::verify;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    valid: bool,
    secret: String,
    now: u64,
    headers: HashMap<String, String>,
    body: String,
}

#[test]
fn what_is_believed() {
    let vectors: Vectors = serde_json::from_str(include_str!("../../webhook-vectors.json")).unwrap();
    assert!(vectors.cases.len() > 20);
    for Case { name, valid, secret, now, headers, body } in vectors.cases {
        let headers = HeaderMap::try_from(&headers).unwrap();
        let verdict = verify(&secret, &headers, body.as_bytes(), UNIX_EPOCH + Duration::from_secs(now));
        assert_eq!(verdict.is_ok(), valid, "{name}: {verdict:?}");
    }
}
