//! What replicas tell each other: a request to the engine, and the engine's answer, as JSON.
//!
//! Replicas of two versions may stand side by side while one replaces the other: fields are only ever added, with a
//! default.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skald_core::{
    decide::{Callback, OperatorCommand, Reported},
    definition::Definition,
    event::Mode,
    ids::SagaId,
    json::Document,
    shard::writer::{Refusal, StartRequest, Subject},
    state::SagaRow,
};

/// Where starts are forwarded to.
pub const STARTS: &str = "/internal/sagas";

/// Where appends are forwarded to, each as its [`AppendRequest`](skald_core::shard::appends::AppendRequest).
pub const APPENDS: &str = "/internal/appends";

/// Where operators' commands and callbacks for a saga are forwarded to.
#[must_use]
pub fn inputs_of(saga: SagaId) -> String {
    format!("{STARTS}/{saga}/inputs")
}

/// The engine's answer.
pub type Answer = Result<SagaRow, Refusal>;

/// A start under a key. The definition was found, the input checked and the client answered for by the sender.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartMessage {
    pub definition: String,
    pub version: u32,
    /// Of the definition's content, so that both mean the same.
    pub hash: String,
    mode: Mode,
    input: Document,
    key: String,
    fingerprint: [u8; 32],
    correlation_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Subject>,
    entropy: [u8; 10],
    /// How long to wait for the saga's end before answering.
    pub wait_ms: u64,
}

/// What an operator or a participant tells a saga.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputMessage {
    Operator(OperatorCommand),
    Callback(Callback),
    Reported(Reported),
}

impl StartMessage {
    /// None when the start has no key: it cannot be repeated, so it is not forwarded.
    #[must_use]
    pub fn of(request: &StartRequest, wait_ms: u64) -> Option<Self> {
        let (key, fingerprint) = request.key.clone()?;
        Some(Self {
            definition: request.definition.name.clone(),
            version: request.definition.version,
            hash: request.definition.hash.clone(),
            mode: request.mode,
            input: request.input.clone(),
            key,
            fingerprint,
            correlation_id: request.correlation_id.clone(),
            traceparent: request.traceparent.clone(),
            subject: request.subject.clone(),
            entropy: request.entropy,
            wait_ms,
        })
    }

    /// The request, with the definition that it names.
    #[must_use]
    pub fn request(self, definition: Arc<Definition>) -> StartRequest {
        StartRequest {
            definition,
            mode: self.mode,
            input: self.input,
            key: Some((self.key, self.fingerprint)),
            correlation_id: self.correlation_id,
            traceparent: self.traceparent,
            subject: self.subject,
            entropy: self.entropy,
        }
    }
}
