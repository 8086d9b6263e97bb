//! What a call is answered: a handler's [`Reply`] or [`Failure`], and the [`Answer`] that goes out.
//!
//! Every error is an RFC 9457 problem whose `code` is one row of a table; the kit's own rows are in
//! [`problems`], a service adds its own.

use std::{fmt, time::Duration};

use serde_json::{Map, Value};
use thiserror::Error;

use crate::call::HeaderError;

/// One row of a table of problems: a stable code, its status and its title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProblemKind {
    pub code: &'static str,
    pub status: u16,
    pub title: &'static str,
}

impl ProblemKind {
    #[must_use]
    pub const fn new(status: u16, code: &'static str, title: &'static str) -> Self {
        Self { code, status, title }
    }
}

/// The problems that the kit itself answers.
pub mod problems {
    use super::ProblemKind;

    pub const INVALID_HEADER: ProblemKind = ProblemKind::new(400, "invalid_header", "A header is missing or malformed");
    pub const KEY_REUSED: ProblemKind =
        ProblemKind::new(400, "idempotency_key_reused", "The key was used for another request");
    pub const IN_FLIGHT: ProblemKind = ProblemKind::new(409, "in_flight", "The same call is being carried out");
    pub const CANCELLED: ProblemKind = ProblemKind::new(409, "cancelled", "The compensation came first");
    pub const EXPIRED: ProblemKind = ProblemKind::new(410, "expired", "The saga is older than keys are kept");
    pub const INTERNAL: ProblemKind = ProblemKind::new(500, "internal", "The service failed");
    pub const UNAVAILABLE: ProblemKind = ProblemKind::new(503, "unavailable", "The call can't be carried out now");
    pub const DATABASE: ProblemKind = ProblemKind::new(503, "database_unavailable", "The database can't be used now");
}

/// An error answer, `application/problem+json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone, PartialEq)]
struct Parts {
    kind: ProblemKind,
    detail: String,
    outcome: Option<&'static str>,
    retry_after: Option<Duration>,
    members: Map<String, Value>,
}

impl Problem {
    #[must_use]
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let parts = Parts { kind, detail: detail.into(), outcome: None, retry_after: None, members: Map::new() };
        Self(Box::new(parts))
    }

    /// Adds an extension member, e.g. the field that is wrong.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(member.to_owned(), value.into());
        self
    }

    /// Adds `Retry-After`, rounded up to whole seconds.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.0.retry_after = Some(pause);
        self
    }

    /// Says what became of the action (`rejected`, `cancelled`): the orchestrator relies on it.
    #[must_use]
    pub(crate) fn outcome(mut self, outcome: &'static str) -> Self {
        self.0.outcome = Some(outcome);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind.code, self.0.detail)
    }
}

impl From<HeaderError> for Problem {
    fn from(error: HeaderError) -> Self {
        Self::new(problems::INVALID_HEADER, error.to_string()).with("header", error.name)
    }
}

/// A refusal for a reason of business: final, and without effect.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejection(Problem);

impl Rejection {
    /// `kind.status` should be 422 or 402.
    #[must_use]
    pub fn new(kind: ProblemKind, reason: impl Into<String>) -> Self {
        Self(Problem::new(kind, reason).outcome("rejected"))
    }

    /// Adds an extension member, e.g. what is missing.
    #[must_use]
    pub fn with(self, member: &str, value: impl Into<Value>) -> Self {
        Self(self.0.with(member, value))
    }
}

/// Why a handler did not carry out a call.
#[derive(Debug, Error)]
pub enum Failure {
    /// Refused. Of an action, the answer is stored under its key and what the handler wrote is
    /// rolled back. A compensation has no right to refuse: everything is rolled back, nothing is
    /// stored, and an operator has to look at it; a repeated call runs the handler again.
    #[error("rejected: {}", .0.0)]
    Rejected(Rejection),
    /// Not now: rolled back with its key, answered 503 with `Retry-After`.
    #[error("unavailable: {detail}")]
    Unavailable { detail: String, retry_after: Duration },
    /// The database failed: rolled back with its key, answered 503 or 500.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

impl Failure {
    #[must_use]
    pub fn rejected(kind: ProblemKind, reason: impl Into<String>) -> Self {
        Self::Rejected(Rejection::new(kind, reason))
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Failure> for Problem {
    /// Logs what the client isn't told.
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Rejected(Rejection(problem)) => problem,
            Failure::Unavailable { detail, retry_after } => {
                Self::new(problems::UNAVAILABLE, detail).retry_after(retry_after)
            }
            Failure::Database(error) => Self::from(error),
        }
    }
}

impl From<sqlx::Error> for Problem {
    /// Logs what the client isn't told.
    fn from(error: sqlx::Error) -> Self {
        if !is_transient(&error) {
            tracing::error!(%error, "a statement failed");
            return Self::new(problems::INTERNAL, "an internal error, see the service's log");
        }
        tracing::warn!(%error, "the database is unavailable");
        Self::new(problems::DATABASE, "the database is busy or unreachable; repeat the call")
            .retry_after(Duration::from_secs(1))
    }
}

/// Whether the same call may well succeed a little later.
fn is_transient(error: &sqlx::Error) -> bool {
    // PostgreSQL: serialisation failure, deadlock, lock and statement timeout, shutdown, too many
    // connections, idle timeout, disk full. SQLite: busy, locked, I/O, full, busy snapshot.
    const CODES: [&str; 15] = [
        "40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "53300", "25P03", "53100", "5", "6", "10", "13",
        "517",
    ];
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| CODES.contains(&code.as_ref())),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

pub(crate) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "55P03")
}

/// A change that a handler made, for the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    pub name: &'static str,
    pub detail: Value,
}

/// A handler's success: what to answer, and which effects took place.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) effects: Vec<Effect>,
}

impl Reply {
    /// 200 with a JSON body.
    #[must_use]
    pub fn ok(body: Value) -> Self {
        Self { status: 200, body, effects: Vec::new() }
    }

    /// 201 with a JSON body.
    #[must_use]
    pub fn created(body: Value) -> Self {
        Self { status: 201, ..Self::ok(body) }
    }

    /// States an effect, which becomes a ledger entry in the same transaction. A call without one
    /// (a query, an undo that found nothing to undo) states none.
    #[must_use]
    pub fn effect(mut self, name: &'static str, detail: Value) -> Self {
        self.effects.push(Effect { name, detail });
        self
    }
}

/// An HTTP answer, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    /// Further headers: `Retry-After`, `Idempotent-Replayed`.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    #[must_use]
    pub fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            content_type: "application/json".to_owned(),
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
        }
    }

    pub(crate) fn replayed(mut self) -> Self {
        self.headers.push(("Idempotent-Replayed", "true".to_owned()));
        self
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self::json(reply.status, &reply.body)
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        let Parts { kind, detail, outcome, retry_after, members } = *problem.0;
        let mut body = Map::new();
        body.insert("type".to_owned(), "about:blank".into());
        body.insert("title".to_owned(), kind.title.into());
        body.insert("status".to_owned(), kind.status.into());
        body.insert("code".to_owned(), kind.code.into());
        body.insert("detail".to_owned(), detail.into());
        if let Some(outcome) = outcome {
            body.insert("outcome".to_owned(), outcome.into());
        }
        body.extend(members);
        let mut answer = Self::json(kind.status, &Value::Object(body));
        answer.content_type = "application/problem+json".to_owned();
        if let Some(pause) = retry_after {
            let seconds = pause.as_millis().div_ceil(1000).max(1);
            answer.headers.push(("Retry-After", seconds.to_string()));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_is_a_problem_with_code_reason_and_outcome() {
        const KIND: ProblemKind = ProblemKind::new(422, "out_of_stock", "Out of stock");
        let failure = Failure::Rejected(Rejection::new(KIND, "p-1 is gone").with("missing", 3));
        let answer = Answer::from(Problem::from(failure));
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, answer.content_type.as_str()), (422, "application/problem+json"));
        assert_eq!(body["code"], "out_of_stock");
        assert_eq!(body["detail"], "p-1 is gone");
        assert_eq!(body["outcome"], "rejected");
        assert_eq!(body["missing"], 3);
    }

    #[test]
    fn retry_after_is_whole_seconds_rounded_up() {
        let failure = Failure::Unavailable { detail: "busy".to_owned(), retry_after: Duration::from_millis(1200) };
        assert_eq!(Answer::from(Problem::from(failure)).headers, vec![("Retry-After", "2".to_owned())]);
    }
}
