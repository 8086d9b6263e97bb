//! Whom to tell of sagas that end or park, and what came of telling them.
//!
//! What is still to be told, and how often it was tried, is in the webhook's consumer group ([`super::groups`]).

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use skald_core::time::{Millis, Timestamp};
use sqlx::{FromRow, types::Uuid};

use super::StoreError;

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub id: Uuid,
    pub created_at: Timestamp,
    pub terms: Terms,
}

/// What is told to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub url: String,
    /// Empty: of all.
    pub events: Vec<SagaNews>,
    /// Empty: of all.
    pub definitions: Vec<String>,
    /// Counts the secrets that it has had, from 1.
    pub secrets: u32,
    /// Until when messages are signed with the secret before, too.
    pub former_until: Option<Timestamp>,
    pub disabled: Option<Disabled>,
}

/// Since when, and why, nothing is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    pub at: Timestamp,
    pub reason: String,
}

/// What there is to tell of a saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SagaNews {
    Completed,
    Compensated,
    Abandoned,
    Parked,
}

impl SagaNews {
    pub const ALL: [Self; 4] = [Self::Completed, Self::Compensated, Self::Abandoned, Self::Parked];

    /// The kind of event that says it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Completed => "SagaCompleted",
            Self::Compensated => "SagaCompensated",
            Self::Abandoned => "SagaAbandoned",
            Self::Parked => "StepParked",
        }
    }
}

/// One try to deliver a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub webhook: Uuid,
    /// The message's id.
    pub message: String,
    pub type_name: String,
    /// 1 for the first.
    pub number: u32,
    pub at: Timestamp,
    pub duration: Millis,
    /// None: there was no answer.
    pub http_status: Option<u16>,
    /// None: it was delivered.
    pub error: Option<String>,
}

/// Every method is safe to drop at any await.
#[async_trait]
pub trait Webhooks: Send + Sync + fmt::Debug + 'static {
    /// The oldest first.
    async fn webhooks(&self) -> Result<Vec<Webhook>, StoreError>;

    async fn add_webhook(&self, webhook: &Webhook) -> Result<(), StoreError>;

    /// Writes other terms; whether there is such a webhook.
    async fn change_webhook(&self, id: Uuid, terms: &Terms) -> Result<bool, StoreError>;

    /// With its attempts; whether there was one.
    async fn remove_webhook(&self, id: Uuid) -> Result<bool, StoreError>;

    async fn note_attempt(&self, attempt: &Attempt) -> Result<(), StoreError>;

    /// Numbered, the latest first, those with a smaller number than `before`.
    async fn attempts(&self, webhook: Uuid, before: Option<i64>, limit: u32)
    -> Result<Vec<(i64, Attempt)>, StoreError>;

    /// Deletes what was tried before this time.
    async fn forget_attempts(&self, before: Timestamp) -> Result<(), StoreError>;
}

// The same on both databases.
pub(super) const LIST: &str = "SELECT id, created_at_us, document FROM webhooks ORDER BY created_at_us, id";
pub(super) const ADD: &str = "INSERT INTO webhooks (id, created_at_us, document) VALUES ($1, $2, $3)";
pub(super) const CHANGE: &str = "UPDATE webhooks SET document = $2 WHERE id = $1";
pub(super) const REMOVE: &str = "DELETE FROM webhooks WHERE id = $1";
pub(super) const REMOVE_ATTEMPTS: &str = "DELETE FROM webhook_attempts WHERE webhook = $1";
pub(super) const NOTE: &str =
    "INSERT INTO webhook_attempts (webhook, message, type, attempt, at_us, duration_ms, http_status, error)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
pub(super) const ATTEMPTS: &str = "SELECT id, webhook, message, type, attempt, at_us, duration_ms, http_status, error
     FROM webhook_attempts
     WHERE webhook = $1 AND id < $2
     ORDER BY id DESC
     LIMIT $3";
pub(super) const FORGET: &str = "DELETE FROM webhook_attempts WHERE at_us < $1";

#[derive(FromRow)]
pub(super) struct WebhookRecord {
    id: Uuid,
    created_at_us: i64,
    document: String,
}

impl TryFrom<WebhookRecord> for Webhook {
    type Error = StoreError;

    fn try_from(record: WebhookRecord) -> Result<Self, StoreError> {
        let terms = serde_json::from_str(&record.document)
            .map_err(|error| StoreError::Unreadable(format!("webhook {}: {error}", record.id)))?;
        Ok(Self { id: record.id, created_at: Timestamp::from_micros(record.created_at_us), terms })
    }
}

#[derive(FromRow)]
pub(super) struct AttemptRecord {
    id: i64,
    webhook: Uuid,
    message: String,
    #[sqlx(rename = "type")]
    type_name: String,
    attempt: i32,
    at_us: i64,
    duration_ms: i64,
    http_status: Option<i32>,
    error: Option<String>,
}

impl TryFrom<AttemptRecord> for (i64, Attempt) {
    type Error = StoreError;

    fn try_from(record: AttemptRecord) -> Result<Self, StoreError> {
        let unreadable = || StoreError::Unreadable(format!("attempt {} of a webhook", record.id));
        let attempt = Attempt {
            webhook: record.webhook,
            message: record.message,
            type_name: record.type_name,
            number: u32::try_from(record.attempt).map_err(|_| unreadable())?,
            at: Timestamp::from_micros(record.at_us),
            duration: Millis(u64::try_from(record.duration_ms).map_err(|_| unreadable())?),
            http_status: record.http_status.map(u16::try_from).transpose().map_err(|_| unreadable())?,
            error: record.error,
        };
        Ok((record.id, attempt))
    }
}

pub(super) fn document(terms: &Terms) -> String {
    serde_json::to_string(terms).expect("terms have string keys")
}

/// Of an attempt, as it is stored.
pub(super) struct Stored {
    pub number: i32,
    pub duration_ms: i64,
    pub http_status: Option<i32>,
}

impl From<&Attempt> for Stored {
    fn from(attempt: &Attempt) -> Self {
        Self {
            number: i32::try_from(attempt.number).unwrap_or(i32::MAX),
            duration_ms: i64::try_from(attempt.duration.0).unwrap_or(i64::MAX),
            http_status: attempt.http_status.map(i32::from),
        }
    }
}
