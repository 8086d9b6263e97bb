//! Appending: to one stream, or one event each to several.

use std::{sync::Arc, time::Duration};

use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::client::{Client, ClientError, read, refused, segment};
use crate::outbox::Outgoing;

/// The most appends that the store takes in one request.
pub(crate) const APPENDS_MAX: usize = 250;

/// What the last version of a stream must be for an append to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Any,
    /// 0: the stream must not exist.
    Version(u64),
}

impl Serialize for Expected {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("any"),
            Self::Version(version) => serializer.serialize_u64(*version),
        }
    }
}

/// An append that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The stream's version with the last of the events.
    pub version: u64,
    /// Whether the store had the events already.
    pub replayed: bool,
}

#[derive(Serialize)]
struct Append<'a> {
    expected_version: Expected,
    events: &'a [Outgoing],
}

#[derive(Serialize)]
struct AppendEach<'a> {
    appends: Vec<ToStream<'a>>,
}

#[derive(Serialize)]
struct ToStream<'a> {
    stream: &'a str,
    expected_version: Expected,
    events: [&'a Outgoing; 1],
}

impl<'a> ToStream<'a> {
    fn the_end(event: &'a Outgoing) -> Self {
        Self { stream: &event.stream, expected_version: Expected::Any, events: [event] }
    }
}

#[derive(Deserialize)]
struct Results {
    results: Vec<AppendResult>,
}

/// One of several appends, as it was answered.
#[derive(Deserialize)]
struct AppendResult {
    status: u16,
    #[serde(default)]
    version: u64,
    #[serde(default)]
    problem: Value,
}

impl Client {
    /// Appends events to a stream, all or none. Repeating it is harmless: the store knows the events by their ids.
    ///
    /// # Errors
    /// The store cannot be reached, or refuses, e.g. with `version_conflict`.
    pub async fn append(&self, stream: &str, expected: Expected, events: &[Outgoing]) -> Result<Appended, ClientError> {
        #[derive(Deserialize)]
        struct Answer {
            version: u64,
        }
        let path = format!("/streams/{}/events", segment(stream));
        let body = Append { expected_version: expected, events };
        let (status, body) = self.send(Method::POST, &path, Some(&body), Duration::ZERO).await?;
        let Answer { version } = read(&body)?;
        Ok(Appended { version, replayed: status == StatusCode::OK })
    }

    /// Appends events each to the end of its own stream, in one request: at most [`APPENDS_MAX`], one per stream. Each has
    /// a result of its own, in their order.
    ///
    /// # Errors
    /// The store cannot be reached, or refuses the request as a whole.
    pub(crate) async fn append_each(
        &self,
        events: &[Arc<Outgoing>],
    ) -> Result<Vec<Result<Appended, ClientError>>, ClientError> {
        let body = AppendEach { appends: events.iter().map(|event| ToStream::the_end(event)).collect() };
        let (_, body) = self.send(Method::POST, "/events", Some(&body), Duration::ZERO).await?;
        let Results { results } = read(&body)?;
        Ok(results.into_iter().map(AppendResult::meaning).collect())
    }
}

impl AppendResult {
    fn meaning(self) -> Result<Appended, ClientError> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_success() {
            return Ok(Appended { version: self.version, replayed: status == StatusCode::OK });
        }
        Err(refused(status, &self.problem, None))
    }
}
