//! What a participant's answer means: the classification table of the contract.
//!
//! | answer to a call | meaning |
//! | --- | --- |
//! | 2xx except 202 | done; the JSON body is the output |
//! | 202 | accepted, still going |
//! | 422, 402, any 4xx problem with `"outcome":"rejected"` | refused, no effect |
//! | 409 problem with `"outcome":"cancelled"` | the compensation came first: refused, no effect |
//! | 409 otherwise | the same key is in flight: ask again, no attempt used (see `IN_FLIGHT_ANSWERS_MAX`) |
//! | 408, 425, 429, 5xx | retry |
//! | any other 4xx, 3xx, 1xx | misconfigured: few retries |
//! | 410 to a compensation | refused |
//! | nothing sent | retry; provably not executed |
//! | sent, no whole answer | retry; may have been executed |

use alloc::{
    borrow::ToOwned,
    collections::BTreeMap,
    format,
    string::{String, ToString},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ids::Operation,
    personal::cut_before_token,
    time::{Millis, Timestamp},
};

/// One finished request, as the dispatcher saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct CallReport {
    pub started_at: Timestamp,
    pub duration: Millis,
    pub result: CallResult,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CallResult {
    /// A whole answer arrived.
    Answered(Answer),
    /// Nothing left this machine (DNS, connection refused, ..): provably not executed.
    NotSent { error: String },
    /// The request, or a part of it, was sent, and no whole answer came back.
    MaybeSent { error: String },
    /// Not attempted now: no permit, rate spent, circuit open or participant paused. Uses no attempt.
    Deferred { until: Timestamp, why: String },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<Millis>,
    /// `Location`, already resolved to a path below the participant's base URL; one that leads to another origin is
    /// dropped.
    pub location: Option<String>,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Empty,
    Json(Value),
    /// Larger than the cap, not JSON, or JSON that cannot be stored; the text says which.
    Unusable(String),
}

/// What an answer can be overridden to mean by a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    Succeeded,
    Rejected,
    Retry,
    Misconfigured,
}

/// The meaning of one finished call.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It took effect. `Err` says why the body cannot be an output.
    Done(Result<Value, String>),
    Accepted {
        location: Option<String>,
        retry_after: Option<Millis>,
    },
    Refused(Refusal),
    /// The same key is being worked on.
    InFlight {
        retry_after: Option<Millis>,
    },
    Retry {
        error: String,
        reached: bool,
        retry_after: Option<Millis>,
    },
    Misconfigured {
        error: String,
    },
    Deferred {
        until: Timestamp,
        why: String,
    },
}

/// Why a participant refused, from its problem+json where it sent one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub code: String,
    pub reason: String,
}

/// Reads a finished call by the table, with the step's overrides before it.
#[must_use]
pub fn classify(result: CallResult, operation: Operation, overrides: &BTreeMap<u16, Class>) -> Verdict {
    match result {
        CallResult::NotSent { error } => Verdict::Retry { error, reached: false, retry_after: None },
        CallResult::MaybeSent { error } => Verdict::Retry { error, reached: true, retry_after: None },
        CallResult::Deferred { until, why } => Verdict::Deferred { until, why },
        CallResult::Answered(answer) => match overrides.get(&answer.status) {
            Some(class) => overridden(*class, answer),
            None => by_table(answer, operation),
        },
    }
}

fn overridden(class: Class, answer: Answer) -> Verdict {
    match class {
        Class::Succeeded => done(answer.body),
        Class::Rejected => Verdict::Refused(refusal(&answer)),
        Class::Retry => retry(&answer),
        Class::Misconfigured => Verdict::Misconfigured { error: describe(&answer) },
    }
}

fn by_table(answer: Answer, operation: Operation) -> Verdict {
    let outcome = match &answer.body {
        Body::Json(body) => body.get("outcome").and_then(Value::as_str),
        Body::Empty | Body::Unusable(_) => None,
    };
    match (answer.status, outcome) {
        (202, _) => Verdict::Accepted { location: answer.location, retry_after: answer.retry_after },
        (200..=299, _) => done(answer.body),
        (402 | 422, _) | (400..=499, Some("rejected")) | (409, Some("cancelled")) => Verdict::Refused(refusal(&answer)),
        (410, _) if operation == Operation::Compensation => Verdict::Refused(refusal(&answer)),
        (409, _) => Verdict::InFlight { retry_after: answer.retry_after },
        (408 | 425 | 429 | 500..=599, _) => retry(&answer),
        _ => Verdict::Misconfigured { error: describe(&answer) },
    }
}

fn done(body: Body) -> Verdict {
    Verdict::Done(match body {
        Body::Empty => Ok(Value::Null),
        Body::Json(value) => Ok(value),
        Body::Unusable(why) => Err(why),
    })
}

fn retry(answer: &Answer) -> Verdict {
    Verdict::Retry { error: describe(answer), reached: true, retry_after: answer.retry_after }
}

fn refusal(answer: &Answer) -> Refusal {
    let text = |field: &str| match &answer.body {
        Body::Json(body) => body.get(field).and_then(Value::as_str).map(shorten),
        Body::Empty | Body::Unusable(_) => None,
    };
    Refusal {
        code: text("code").unwrap_or_else(|| format!("http_{}", answer.status)),
        reason: text("detail")
            .or_else(|| text("reason"))
            .or_else(|| text("title"))
            .unwrap_or_else(|| format!("the participant answered {}", answer.status)),
    }
}

fn describe(answer: &Answer) -> String {
    match &answer.body {
        Body::Json(body) => match body.get("detail").or_else(|| body.get("title")).and_then(Value::as_str) {
            Some(detail) => format!("HTTP {}: {}", answer.status, shorten(detail)),
            None => format!("HTTP {}", answer.status),
        },
        Body::Empty | Body::Unusable(_) => format!("HTTP {}", answer.status),
    }
}

/// Participants' texts are kept in events; a novel is not.
fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 500;
    match text.char_indices().nth(CHARS_MAX) {
        Some((cut, _)) => format!("{}…", &text[..cut_before_token(text, cut)]),
        None => text.to_owned(),
    }
}

/// The text of a call's failure, for the step log.
#[must_use]
pub fn http_status(result: &CallResult) -> Option<u16> {
    match result {
        CallResult::Answered(answer) => Some(answer.status),
        CallResult::NotSent { .. } | CallResult::MaybeSent { .. } | CallResult::Deferred { .. } => None,
    }
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&[self.code.as_str(), self.reason.as_str()].join(": "))
    }
}

impl From<Refusal> for String {
    fn from(refusal: Refusal) -> Self {
        refusal.to_string()
    }
}
