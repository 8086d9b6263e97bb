//! A call as its headers describe it: which saga, which step, action or compensation.
//!
//! A [`CallContext`] that exists is consistent: the optional `Saga-*` headers agree with the key, and
//! a compensation names the action that it undoes. Nothing here touches a database.

use std::fmt;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::key::{Key, Operation, SagaId};

const CORRELATION_ID_BYTES_MAX: usize = 256;

/// How the action that a compensation undoes had ended, as far as the orchestrator knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionOutcome {
    Succeeded,
    Unknown,
}

/// A header that is missing, malformed, or disagrees with another one.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("header {name}: {reason}")]
pub struct HeaderError {
    pub name: &'static str,
    pub reason: String,
}

impl HeaderError {
    fn new(name: &'static str, reason: impl fmt::Display) -> Self {
        Self { name, reason: reason.to_string() }
    }
}

/// Everything that the headers say about a call, plus a fingerprint of the request, which tells a
/// repeated request from a different one under the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallContext {
    pub key: Key,
    /// When the saga gives up (`Saga-Deadline`).
    pub deadline: Option<DateTime<Utc>>,
    /// Of a compensation only: how its action ended (`Saga-Outcome`).
    pub outcome: Option<ActionOutcome>,
    pub correlation_id: Option<String>,
    pub(crate) fingerprint: [u8; 32],
}

impl CallContext {
    /// Reads a call from a request. Header names are compared without regard to case; headers that
    /// are not part of the contract are ignored.
    ///
    /// # Errors
    /// The first header that is missing, malformed, repeated, or in contradiction to the key.
    pub fn parse<'h, V: AsRef<[u8]> + ?Sized + 'h>(
        method: &str,
        path: &str,
        headers: impl IntoIterator<Item = (&'h str, &'h V)>,
        body: &[u8],
    ) -> Result<Self, HeaderError> {
        let headers = SagaHeaders::collect(headers)?;
        let key = headers.key()?;
        headers.agree_with(&key)?;
        Ok(Self {
            deadline: headers.deadline()?,
            outcome: headers.outcome(&key)?,
            correlation_id: headers.correlation_id.clone(),
            fingerprint: fingerprint(method, path, body),
            key,
        })
    }

    /// A call that comes from within the service: the same key and request as over HTTP make the same call.
    #[must_use]
    pub fn local(key: Key, method: &str, path: &str, body: &[u8]) -> Self {
        let fingerprint = fingerprint(method, path, body);
        Self { key, deadline: None, outcome: None, correlation_id: None, fingerprint }
    }

    #[must_use]
    pub fn saga_id(&self) -> SagaId {
        self.key.saga_id
    }

    #[must_use]
    pub fn step(&self) -> &str {
        &self.key.step
    }

    #[must_use]
    pub fn operation(&self) -> Operation {
        self.key.operation
    }

    /// The key of the action that this call undoes; `None` for an action.
    #[must_use]
    pub fn compensates(&self) -> Option<Key> {
        match self.key.operation {
            Operation::Action => None,
            Operation::Compensation => Some(self.key.of_action()),
        }
    }
}

fn fingerprint(method: &str, path: &str, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [method.as_bytes(), path.as_bytes(), body] {
        // The length keeps ("a", "bc") apart from ("ab", "c").
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The contract's headers, as texts.
#[derive(Default)]
struct SagaHeaders {
    idempotency_key: Option<String>,
    saga_id: Option<String>,
    saga_step: Option<String>,
    saga_operation: Option<String>,
    saga_deadline: Option<String>,
    saga_compensates: Option<String>,
    saga_outcome: Option<String>,
    correlation_id: Option<String>,
}

impl SagaHeaders {
    fn collect<'h, V: AsRef<[u8]> + ?Sized + 'h>(
        headers: impl IntoIterator<Item = (&'h str, &'h V)>,
    ) -> Result<Self, HeaderError> {
        let mut found = Self::default();
        for (name, value) in headers {
            let Some((name, slot)) = found.slot(name) else { continue };
            let value =
                std::str::from_utf8(value.as_ref()).map_err(|_| HeaderError::new(name, "not readable as text"))?.trim();
            let control = value.chars().any(char::is_control);
            if control || (name == "X-Correlation-Id" && (value.is_empty() || value.len() > CORRELATION_ID_BYTES_MAX)) {
                return Err(HeaderError::new(name, "empty, too long, or with control characters"));
            }
            if slot.replace(value.to_owned()).is_some() {
                return Err(HeaderError::new(name, "given more than once"));
            }
        }
        Ok(found)
    }

    fn slot(&mut self, name: &str) -> Option<(&'static str, &mut Option<String>)> {
        let slots = [
            ("Idempotency-Key", &mut self.idempotency_key),
            ("Saga-Id", &mut self.saga_id),
            ("Saga-Step", &mut self.saga_step),
            ("Saga-Operation", &mut self.saga_operation),
            ("Saga-Deadline", &mut self.saga_deadline),
            ("Saga-Compensates", &mut self.saga_compensates),
            ("Saga-Outcome", &mut self.saga_outcome),
            ("X-Correlation-Id", &mut self.correlation_id),
        ];
        slots.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    fn key(&self) -> Result<Key, HeaderError> {
        const NAME: &str = "Idempotency-Key";
        let text = self.idempotency_key.as_deref().ok_or_else(|| HeaderError::new(NAME, "missing"))?;
        let unquoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or_else(|| {
            HeaderError::new(NAME, "must be a quoted string, \"<saga id>:<step>:<action|compensation>\"")
        })?;
        unquoted.parse().map_err(|error| HeaderError::new(NAME, error))
    }

    fn agree_with(&self, key: &Key) -> Result<(), HeaderError> {
        let saga = self.saga_id.as_ref().is_none_or(|text| text.parse() == Ok(key.saga_id));
        let step = self.saga_step.as_ref().is_none_or(|text| *text == key.step);
        let operation = self.saga_operation.as_ref().is_none_or(|text| text.parse() == Ok(key.operation));
        for (agrees, name) in [(saga, "Saga-Id"), (step, "Saga-Step"), (operation, "Saga-Operation")] {
            if !agrees {
                return Err(HeaderError::new(name, format!("does not agree with the Idempotency-Key {key}")));
            }
        }
        Ok(())
    }

    fn deadline(&self) -> Result<Option<DateTime<Utc>>, HeaderError> {
        let parse = |text: &String| {
            DateTime::parse_from_rfc3339(text)
                .map(|at| at.to_utc())
                .map_err(|_| HeaderError::new("Saga-Deadline", "not an RFC 3339 time"))
        };
        self.saga_deadline.as_ref().map(parse).transpose()
    }

    /// Checks the two headers that only a compensation has.
    fn outcome(&self, key: &Key) -> Result<Option<ActionOutcome>, HeaderError> {
        const COMPENSATES: &str = "Saga-Compensates";
        const OUTCOME: &str = "Saga-Outcome";
        if key.operation == Operation::Action {
            let unexpected = [(COMPENSATES, &self.saga_compensates), (OUTCOME, &self.saga_outcome)];
            return match unexpected.into_iter().find(|(_, value)| value.is_some()) {
                Some((name, _)) => Err(HeaderError::new(name, "only a compensation has it")),
                None => Ok(None),
            };
        }
        let compensates = self.saga_compensates.as_deref().ok_or_else(|| HeaderError::new(COMPENSATES, "missing"))?;
        let action =
            compensates.trim_matches('"').parse::<Key>().map_err(|error| HeaderError::new(COMPENSATES, error))?;
        if action != key.of_action() {
            return Err(HeaderError::new(
                COMPENSATES,
                format!("must be {}, the action of the same step", key.of_action()),
            ));
        }
        match self.saga_outcome.as_deref() {
            Some("succeeded") => Ok(Some(ActionOutcome::Succeeded)),
            Some("unknown") => Ok(Some(ActionOutcome::Unknown)),
            Some(_) => Err(HeaderError::new(OUTCOME, "neither `succeeded` nor `unknown`")),
            None => Err(HeaderError::new(OUTCOME, "missing")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAGA: &str = "0190163d-8694-739b-aea5-966c26f8ad91";

    fn parse(headers: &[(&str, &str)]) -> Result<CallContext, HeaderError> {
        CallContext::parse("POST", "/x", headers.iter().copied(), b"{}")
    }

    #[test]
    fn an_action_is_read_from_its_headers() {
        let key = format!("\"{SAGA}:pay:action\"");
        let call = parse(&[
            ("idempotency-key", &key),
            ("Saga-Id", SAGA),
            ("Saga-Step", "pay"),
            ("Saga-Operation", "action"),
            ("Saga-Deadline", "2024-06-14T12:00:00Z"),
            ("X-Correlation-Id", "c-1"),
            ("Accept", "*/*"),
        ])
        .unwrap();
        assert_eq!(call.key.to_string(), format!("{SAGA}:pay:action"));
        assert_eq!(call.deadline.unwrap().timestamp(), 1_718_366_400);
        assert_eq!(call.correlation_id.as_deref(), Some("c-1"));
        assert_eq!((call.compensates(), call.outcome), (None, None));
        assert!(call.saga_id().created_at().is_some());
    }

    #[test]
    fn a_compensation_names_its_action_and_how_it_ended() {
        let key = format!("\"{SAGA}:pay:compensation\"");
        let action = format!("\"{SAGA}:pay:action\"");
        let call =
            parse(&[("Idempotency-Key", &key), ("Saga-Compensates", &action), ("Saga-Outcome", "unknown")]).unwrap();
        assert_eq!(call.compensates(), Some(call.key.of_action()));
        assert_eq!(call.outcome, Some(ActionOutcome::Unknown));
    }

    #[test]
    fn every_bad_header_is_named() {
        let action = format!("\"{SAGA}:pay:action\"");
        let undo = format!("\"{SAGA}:pay:compensation\"");
        let other = format!("\"{SAGA}:ship:action\"");
        let unquoted = format!("{SAGA}:pay:action");
        let empty_step = format!("\"{SAGA}::action\"");
        let colons = format!("\"{SAGA}:a:b:action\"");
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("Idempotency-Key", &[]),
            ("Idempotency-Key", &[("Idempotency-Key", &unquoted)]),
            ("Idempotency-Key", &[("Idempotency-Key", "\"\"")]),
            ("Idempotency-Key", &[("Idempotency-Key", "\"x:pay:action\"")]),
            ("Idempotency-Key", &[("Idempotency-Key", &empty_step)]),
            ("Idempotency-Key", &[("Idempotency-Key", &colons)]),
            ("Idempotency-Key", &[("Idempotency-Key", &action), ("Idempotency-Key", &action)]),
            ("Saga-Id", &[("Idempotency-Key", &action), ("Saga-Id", "other")]),
            ("Saga-Step", &[("Idempotency-Key", &action), ("Saga-Step", "ship")]),
            ("Saga-Operation", &[("Idempotency-Key", &action), ("Saga-Operation", "compensation")]),
            ("Saga-Deadline", &[("Idempotency-Key", &action), ("Saga-Deadline", "tomorrow")]),
            ("Saga-Compensates", &[("Idempotency-Key", &action), ("Saga-Compensates", &action)]),
            ("Saga-Compensates", &[("Idempotency-Key", &undo), ("Saga-Outcome", "unknown")]),
            (
                "Saga-Compensates",
                &[("Idempotency-Key", &undo), ("Saga-Compensates", &other), ("Saga-Outcome", "unknown")],
            ),
            ("Saga-Outcome", &[("Idempotency-Key", &undo), ("Saga-Compensates", &action)]),
            (
                "Saga-Outcome",
                &[("Idempotency-Key", &undo), ("Saga-Compensates", &action), ("Saga-Outcome", "rejected")],
            ),
            ("X-Correlation-Id", &[("Idempotency-Key", &action), ("X-Correlation-Id", "")]),
        ];
        for (name, headers) in cases {
            let error = parse(headers).expect_err("a bad header");
            assert_eq!(error.name, *name, "{headers:?} gave {error}");
        }
    }

    #[test]
    fn method_path_and_body_all_count_for_the_fingerprint() {
        let base = fingerprint("POST", "/a", b"{}");
        assert_ne!(base, fingerprint("PUT", "/a", b"{}"));
        assert_ne!(base, fingerprint("POST", "/b", b"{}"));
        assert_ne!(base, fingerprint("POST", "/a", b"{ }"));
        assert_ne!(fingerprint("POST", "/a", b"b"), fingerprint("POST", "/ab", b""));
    }
}
