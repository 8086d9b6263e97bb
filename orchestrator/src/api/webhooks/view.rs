//! A webhook as clients see it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::words::Moment;
use crate::storage::webhooks::{self, Webhook};

/// What there is to tell of a saga. `parked` comes for each step that parks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SagaNews {
    Completed,
    Compensated,
    Abandoned,
    Parked,
}

impl From<SagaNews> for webhooks::SagaNews {
    fn from(news: SagaNews) -> Self {
        match news {
            SagaNews::Completed => Self::Completed,
            SagaNews::Compensated => Self::Compensated,
            SagaNews::Abandoned => Self::Abandoned,
            SagaNews::Parked => Self::Parked,
        }
    }
}

impl From<webhooks::SagaNews> for SagaNews {
    fn from(news: webhooks::SagaNews) -> Self {
        match news {
            webhooks::SagaNews::Completed => Self::Completed,
            webhooks::SagaNews::Compensated => Self::Compensated,
            webhooks::SagaNews::Abandoned => Self::Abandoned,
            webhooks::SagaNews::Parked => Self::Parked,
        }
    }
}

/// A webhook. Its consumer group `webhook-<id>` shows how far it is behind, and what is parked.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookView {
    #[schema(example = "9b2b7f0e-5a0c-4a7e-8b0e-2f6f8f0c1d2e")]
    pub id: String,
    #[schema(example = "https://shop.example/skald")]
    pub url: String,
    /// What it is told of.
    pub events: Vec<SagaNews>,
    /// Of whose sagas; empty for all.
    #[schema(example = json!(["checkout"]))]
    pub definitions: Vec<String>,
    pub created_at: Moment,
    /// Absent while messages are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub disabled: Option<WebhookDisabled>,
    /// What its messages are signed with, `whsec_` and base64 as Standard Webhooks has it; shown only when it is made or
    /// replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    pub secret: Option<String>,
}

/// Since when, and why, nothing is sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookDisabled {
    pub at: Moment,
    #[schema(example = "the receiver answered 410 Gone")]
    pub reason: String,
}

impl WebhookView {
    /// With the secret that its messages are signed with.
    pub fn with_secret(self, secret: String) -> Self {
        Self { secret: Some(secret), ..self }
    }
}

impl From<Webhook> for WebhookView {
    fn from(webhook: Webhook) -> Self {
        let terms = webhook.terms;
        let all = terms.events.is_empty();
        let events = if all { webhooks::SagaNews::ALL.to_vec() } else { terms.events };
        Self {
            id: webhook.id.to_string(),
            url: terms.url,
            events: events.into_iter().map(SagaNews::from).collect(),
            definitions: terms.definitions,
            created_at: webhook.created_at.into(),
            disabled: terms
                .disabled
                .map(|disabled| WebhookDisabled { at: disabled.at.into(), reason: disabled.reason }),
            secret: None,
        }
    }
}
