//! From events to messages, in the transaction of the event.
//!
//! | event | then |
//! | --- | --- |
//! | `SagaStarted` | customer and address are remembered, for later events do not repeat them |
//! | `SagaFailed` | so is the reason |
//! | one that is told of, see [`Kind::of_event`] | the message is written, once |
//! | one that ends the saga | what was remembered is forgotten |
//!
//! An address that is sealed is kept as it is, sealed: [`super::deliver`] asks what it is when it sends.

use std::sync::Arc;

use chrono::Utc;
use serde::Deserialize;
use serde_json::Value;
use skald_kit::{
    Tx, TxFuture,
    events::{Event, is_sealed},
    params,
};

use super::messages::Kind;

/// Only these kinds of events are asked for.
pub(super) const KINDS: [&str; 6] =
    ["SagaStarted", "SagaFailed", "StepCompensated", "SagaCompleted", "SagaCompensated", "SagaAbandoned"];

const ENDS: [&str; 3] = ["SagaCompleted", "SagaCompensated", "SagaAbandoned"];

#[derive(Debug, Clone, Copy)]
pub(super) struct Recorder {
    /// Whether messages are sent at all.
    pub(super) sends: bool,
}

/// What matters of the input; of another form, it is nobody's.
#[derive(Debug, Default, Deserialize)]
struct Customer {
    customer_id: Option<String>,
    email: Option<String>,
}

impl Recorder {
    pub(super) fn record(self, tx: &mut Tx, event: Arc<Event>) -> TxFuture<'_, ()> {
        Box::pin(async move {
            let data: Value = event.data().unwrap_or_default();
            match event.kind.as_str() {
                "SagaStarted" => remember(tx, &event.stream, &data).await?,
                "SagaFailed" => {
                    let sql = "UPDATE notification_sagas SET reason = $2 WHERE saga = $1";
                    // A reason that repeats personal data says nothing as a token, and must not be kept as it is.
                    let reason = data["reason"].as_str().filter(|reason| !is_sealed(reason));
                    tx.execute(sql, params![&event.stream, reason]).await?;
                }
                _ => {}
            }
            if let Some(kind) = Kind::of_event(&event.type_name) {
                self.tell(tx, &event.stream, kind, &data).await?;
            }
            if ENDS.contains(&event.kind.as_str()) {
                tx.execute("DELETE FROM notification_sagas WHERE saga = $1", params![&event.stream]).await?;
            }
            Ok(())
        })
    }

    async fn tell(self, tx: &mut Tx, saga: &str, kind: Kind, data: &Value) -> sqlx::Result<()> {
        let known = "SELECT customer_id, email, reason FROM notification_sagas WHERE saga = $1";
        let (customer, email, reason) = match tx.row(known, params![saga]).await? {
            Some(row) => (row.get("customer_id")?, row.get("email")?, row.get::<Option<String>>("reason")?),
            None => (None, None, None),
        };
        let (subject, body) = kind.text(saga, data, reason.as_deref());
        let status = if self.sends && email.is_some() { "pending" } else { "recorded" };
        let sql = "INSERT INTO notifications
                       (saga, kind, customer_id, email, subject, body, status, next_at_us, created_at_us)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) ON CONFLICT (saga, kind) DO NOTHING";
        let now = Utc::now().timestamp_micros();
        let (customer, email): (Option<String>, Option<String>) = (customer, email);
        tx.execute(sql, params![saga, kind.as_str(), customer, email, subject, body, status, now]).await?;
        Ok(())
    }
}

async fn remember(tx: &mut Tx, saga: &str, data: &Value) -> sqlx::Result<()> {
    let Customer { customer_id, email } = Customer::deserialize(&data["input"]).unwrap_or_default();
    if customer_id.is_none() && email.is_none() {
        return Ok(());
    }
    let sql =
        "INSERT INTO notification_sagas (saga, customer_id, email) VALUES ($1, $2, $3) ON CONFLICT (saga) DO NOTHING";
    tx.execute(sql, params![saga, customer_id, email]).await?;
    Ok(())
}
