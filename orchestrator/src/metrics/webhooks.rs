//! Webhooks: what came of telling them.

use prometheus::{IntCounter, Registry};

use super::{labels::label, register::counters};

#[derive(Debug)]
pub struct WebhookMetrics {
    attempts: [IntCounter; WebhookOutcome::ALL.len()],
}

impl WebhookMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let attempts = counters(registry, "webhook_attempts_total", "Messages sent to webhooks", &["outcome"]);
        Self { attempts: WebhookOutcome::ALL.map(|outcome| attempts.with_label_values(&[outcome.as_str()])) }
    }

    pub fn attempted(&self, outcome: WebhookOutcome) {
        self.attempts[outcome as usize].inc();
    }
}

label! {
    /// What the receiver made of a message.
    WebhookOutcome { Delivered = "delivered", Failed = "failed", Gone = "gone" }
}
