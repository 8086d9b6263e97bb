//! What is accepted from outside, what is refused, and where the refusal points.

extern crate std;

use alloc::{format, string::String, vec, vec::Vec};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const LIMITS: Limits = Limits { bytes_max: 1 << 20, depth_max: DEPTH_MAX };

fn problem(text: &str) -> (String, String) {
    let problem = parse_strict(text.as_bytes(), LIMITS).expect_err(text);
    (problem.place, problem.reason)
}

#[test]
fn ordinary_documents_are_read_as_they_are() {
    for (text, value) in [
        ("null", json!(null)),
        (" [1, -1, 1.5, 1e2, -0, 0] ", json!([1, -1, 1.5, 100.0, -0.0, 0])),
        ("[9223372036854775807, -9223372036854775808, 18446744073709551615]", json!([i64::MAX, i64::MIN, u64::MAX])),
        ("[1e30, 18446744073709551616.0, -1e19]", json!([1e30, 18446744073709551616.0, -1e19])),
        (r#"{"a": {"b": ["ž", "\u00e9", "\ud83d\ude00", "\n"]}}"#, json!({"a": {"b": ["ž", "é", "😀", "\n"]}})),
        (r#"{"": 1, "a/b": 2}"#, json!({"": 1, "a/b": 2})),
        (r#"["18446744073709551616", "\\u0000"]"#, json!(["18446744073709551616", "\\u0000"])),
    ] {
        assert_eq!(parse_strict(text.as_bytes(), LIMITS), Ok(value), "{text}");
    }
}

#[test]
fn what_cannot_be_kept_is_refused_with_its_place() {
    for (text, place, reason) in [
        (r#"{"a": [1, {"b": "x\u0000y"}]}"#, "/a/1/b", "U+0000"),
        (r#"{"a": {"k\u0000": 1}}"#, "/a", "U+0000"),
        (r#"{"a": {"b": 1, "c": 2, "b": 3}}"#, "/a", "the key `b` occurs twice"),
        (r#"{"a": [1, 18446744073709551616]}"#, "/a/1", "64 bits"),
        (r#"[-9223372036854775809]"#, "/0", "64 bits"),
        (r#"[1e30, 1.5, {"n": 123456789012345678901234567890}]"#, "/2/n", "64 bits"),
        (r#"{"a": ["\"1\"", 1e400]}"#, "/a/1", "out of range"),
        (r#"["\ud800"]"#, "/0", "hex escape"),
        (r#"["\ud800x"]"#, "/0", "line 1 column"),
        (r#"["\udc00"]"#, "/0", "hex escape"),
        (r#"{"a": 1} x"#, "", "trailing characters"),
        (r#"{"a": 1,}"#, "", "line 1 column"),
        (r#"{"a": tru}"#, "/a", "line 1 column"),
        ("[1,\n 2,\n x]", "/2", "line 3 column 2"),
        ("", "", "EOF"),
        ("[01]", "/0", "invalid number"),
        ("NaN", "", "expected"),
        (r#"{"a~b/c": [0, "\u0000"]}"#, "/a~0b~1c/1", "U+0000"),
    ] {
        let (at, why) = problem(text);
        assert_eq!(at, place, "{text}: {why}");
        assert!(why.contains(reason), "{text}: {why}");
    }
    let invalid = parse_strict(b"[\"\xff\"]", LIMITS).expect_err("not UTF-8");
    assert!(invalid.reason.contains("UTF-8 (at byte 2)"), "{invalid}");
    let large = parse_strict(b"[1, 2]", Limits { bytes_max: 5, depth_max: 64 }).expect_err("too large");
    assert!(large.reason.contains("larger than 5 bytes"), "{large}");
}

#[test]
fn depth_is_bounded_however_deep_the_document() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse_strict(nested(DEPTH_MAX).as_bytes(), LIMITS).is_ok());
    let (place, reason) = problem(&nested(DEPTH_MAX + 1));
    assert_eq!((place.len(), reason.contains("deeper than 64")), (2 * DEPTH_MAX, true), "{reason}");
    for text in ["[".repeat(1 << 20), r#"{"a":"#.repeat(200_000)] {
        assert!(parse_strict(text.as_bytes(), LIMITS).is_err());
    }
}

#[test]
fn reading_takes_time_linear_in_the_size() {
    let size = 1 << 20;
    let keys: Vec<String> = (0..60_000).map(|key| format!("\"key{key}\":1")).collect();
    for text in [
        format!("{{{}}}", keys.join(",")),
        format!("[{}1]", "1e30,".repeat(size / 8)),
        format!("\"{}\"", "\\\"".repeat(size / 4)),
        format!("[{}1]", "[],".repeat(size / 4)),
    ] {
        let start = Instant::now();
        assert!(parse_strict(text.as_bytes(), LIMITS).is_ok());
        // Quadratic work on a mebibyte would take hours.
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[^\\x00]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec(("[^\\x00]{0,4}", inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_accepted_is_what_serde_json_reads(document in documents()) {
        let text = document.to_string();
        prop_assert_eq!(parse_strict(text.as_bytes(), LIMITS), Ok(serde_json::from_str(&text).expect("valid")));
    }

    #[test]
    fn nothing_is_accepted_that_serde_json_refuses(
        document in documents(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..4),
    ) {
        let mut bytes = document.to_string().into_bytes();
        for (at, byte, insert) in edits {
            let at = at.index(bytes.len());
            if insert { bytes.insert(at, byte) } else { bytes[at] = byte }
        }
        if let Ok(value) = parse_strict(&bytes, LIMITS) {
            prop_assert_eq!(Some(value), serde_json::from_slice(&bytes).ok());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_strict(&bytes, LIMITS);
    }

    #[test]
    fn whole_numbers_are_exact_or_refused(digits in "-?[1-9][0-9]{0,30}") {
        let read = parse_strict(digits.as_bytes(), LIMITS);
        let fits = digits.parse::<i64>().is_ok() || digits.parse::<u64>().is_ok();
        prop_assert_eq!(read.is_ok(), fits);
        if let Ok(value) = read {
            prop_assert_eq!(value.to_string(), digits);
        }
    }
}

#[test]
fn problems_read_well() {
    let problem = JsonProblem { place: "/a/1".into(), reason: "is wrong".into() };
    assert_eq!(vec![format!("{problem}")], ["/a/1: is wrong"]);
}
