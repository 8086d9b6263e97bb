//! The request headers of the contract with participants.
//!
//! | header | value | on |
//! | --- | --- | --- |
//! | `Idempotency-Key` | `"<saga>:<step>:<action\|compensation>"`, a quoted string (RFC 8941) | every call |
//! | `Saga-Id`, `Saga-Step`, `Saga-Operation`, `Saga-Attempt` | | every call |
//! | `Saga-Deadline` | RFC 3339, UTC | every call of a saga that has one |
//! | `Saga-Callback-Token` | see [`super::CallbackTokens`] | every call |
//! | `Saga-Compensates` | the action's key, quoted | compensations |
//! | `Saga-Outcome` | `succeeded` or `unknown`: how the action ended | compensations |
//! | `X-Correlation-Id`, `traceparent` | | every call |
//! | `webhook-id`, `webhook-timestamp`, `webhook-signature` | see [`signature`] | every call of a participant with `signing_secrets`; the id is the idempotency key |
//! | `Content-Type`, `Accept` | JSON, unless the definition says otherwise | with a body; every call |
//! | `Accept-Encoding` | `identity`: a compressed answer is refused | every call |
//!
//! A poll and a status call carry the same headers as the attempt they ask about, key and attempt number too, so that a
//! participant can find it by its key; being asked with GET it has no idempotency to keep. A 202 without `Location` is
//! polled by the same request again, for which the key is what makes it safe.
//!
//! Headers of a definition go out too, but not those named here, those that belong to the connection, or the secret
//! header: they are left out.

use std::sync::LazyLock;

use bytes::Bytes;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderMap,
    HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use skald_core::{
    decide::Invoke,
    ids::{Operation, call_key},
    state::Outcome,
};

use super::{CallbackTokens, trace::TraceParent};
use crate::{rfc3339, signature};

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static SAGA_ID: HeaderName = HeaderName::from_static("saga-id");
static SAGA_STEP: HeaderName = HeaderName::from_static("saga-step");
static SAGA_OPERATION: HeaderName = HeaderName::from_static("saga-operation");
static SAGA_ATTEMPT: HeaderName = HeaderName::from_static("saga-attempt");
static SAGA_DEADLINE: HeaderName = HeaderName::from_static("saga-deadline");
static SAGA_CALLBACK_TOKEN: HeaderName = HeaderName::from_static("saga-callback-token");
static SAGA_COMPENSATES: HeaderName = HeaderName::from_static("saga-compensates");
static SAGA_OUTCOME: HeaderName = HeaderName::from_static("saga-outcome");
static CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What a definition cannot set.
static RESERVED: LazyLock<Vec<HeaderName>> = LazyLock::new(|| {
    let ours = [
        &IDEMPOTENCY_KEY,
        &SAGA_ID,
        &SAGA_STEP,
        &SAGA_OPERATION,
        &SAGA_ATTEMPT,
        &SAGA_DEADLINE,
        &SAGA_CALLBACK_TOKEN,
        &SAGA_COMPENSATES,
        &SAGA_OUTCOME,
        &CORRELATION_ID,
        &TRACEPARENT,
        &signature::ID,
        &signature::TIMESTAMP,
        &signature::SIGNATURE,
    ];
    let connection = [
        ACCEPT_ENCODING,
        CONNECTION,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        EXPECT,
        HOST,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        USER_AGENT,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    ours.into_iter().cloned().chain(connection).collect()
});

/// A header's name, for the error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header `{0}` holds characters that a header cannot carry")]
pub struct Unsendable(String);

/// All headers of a call, but for the length.
///
/// # Errors
///
/// When a value cannot be put into a header.
pub fn of_call(
    invoke: &Invoke,
    trace: &TraceParent,
    tokens: &CallbackTokens,
    secret: Option<&(HeaderName, HeaderValue)>,
) -> Result<HeaderMap, Unsendable> {
    let mut headers = HeaderMap::with_capacity(24);
    for (name, value) in &invoke.target.headers {
        let unsendable = || Unsendable(name.clone());
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unsendable())?;
        if !RESERVED.contains(&name) {
            headers.insert(name, HeaderValue::from_str(value).map_err(|_| unsendable())?);
        }
    }
    if invoke.target.body.is_some() {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json, application/problem+json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("skald/", env!("CARGO_PKG_VERSION"))));

    let mut values = Values::new();
    values.add_quoted(&IDEMPOTENCY_KEY, &invoke.key);
    let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
    values.add(&SAGA_ID, invoke.saga.write(&mut id));
    values.add(&SAGA_STEP, &invoke.step);
    values.add(&SAGA_OPERATION, invoke.operation.as_str());
    values.add(&SAGA_ATTEMPT, &invoke.attempt.to_string());
    if let Some(deadline) = invoke.deadline_at.and_then(rfc3339::millis) {
        values.add(&SAGA_DEADLINE, &deadline);
    }
    values.add(&SAGA_CALLBACK_TOKEN, std::str::from_utf8(&tokens.issue(&invoke.key)).expect("hexadecimal digits"));
    values.add(&CORRELATION_ID, &invoke.correlation_id);
    values.add(&TRACEPARENT, trace.as_str());
    if let Some(outcome) = invoke.compensates {
        values.add_quoted(&SAGA_COMPENSATES, &call_key(invoke.saga, &invoke.step, Operation::Action));
        values.add(&SAGA_OUTCOME, outcome_text(outcome));
    }
    values.put_into(&mut headers)?;
    if let Some((name, value)) = secret {
        headers.insert(name, value.clone());
    }
    Ok(headers)
}

const fn outcome_text(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Unknown => "unknown",
        // A rejected action is never compensated; were it, "unknown" asks the participant to look.
        Outcome::Rejected => "unknown",
    }
}

/// Values made for one call, which share one piece of memory.
struct Values {
    text: String,
    /// Where each ends, in order.
    ends: Vec<(&'static HeaderName, usize)>,
}

impl Values {
    fn new() -> Self {
        // As much as most calls have.
        Self { text: String::with_capacity(512), ends: Vec::with_capacity(12) }
    }

    fn add(&mut self, name: &'static HeaderName, value: &str) {
        self.text.push_str(value);
        self.ends.push((name, self.text.len()));
    }

    /// As a structured field's string, with quotes and backslashes escaped.
    fn add_quoted(&mut self, name: &'static HeaderName, value: &str) {
        self.text.push('"');
        let mut rest = value;
        while let Some(at) = rest.find(['"', '\\']) {
            self.text.push_str(&rest[..at]);
            self.text.push('\\');
            self.text.push_str(&rest[at..=at]);
            rest = &rest[at + 1..];
        }
        self.text.push_str(rest);
        self.add(name, "\"");
    }

    fn put_into(self, headers: &mut HeaderMap) -> Result<(), Unsendable> {
        let is_ascii = self.text.is_ascii();
        let text = Bytes::from(self.text);
        let mut from = 0;
        for (name, to) in self.ends {
            let value = HeaderValue::from_maybe_shared(text.slice(from..to)).ok();
            // The type takes what is not ASCII.
            let value = value.filter(|value| is_ascii || value.as_bytes().is_ascii());
            headers.insert(name, value.ok_or_else(|| Unsendable(name.to_string()))?);
            from = to;
        }
        Ok(())
    }
}
