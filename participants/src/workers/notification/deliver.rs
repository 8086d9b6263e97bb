//! Sends what is pending: claims a few messages for a while, sends them, notes what came of it.
//!
//! Who the message is for is asked of Skald where the address is sealed, and not kept: so an erasure there reaches it here.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use futures_util::future::join_all;
use serde_json::Value;
use skald_kit::{
    Db, Failure, Row,
    events::{Client, ClientError, ERASED, HIDDEN, is_sealed},
    params,
};
use tokio::sync::watch;

use super::{
    super::metrics::Metrics,
    smtp::{Mail, Mailer, Unsent},
};

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Whoever has claimed messages has so long, and sends them side by side; then they may be claimed again.
const CLAIM: Duration = Duration::from_secs(30);
const BATCH: i64 = 5;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Over about a day.
const TRIES_MAX: i64 = 36;

/// What sending takes.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) db: Db,
    pub(super) mailer: Mailer,
    pub(super) client: Client,
    pub(super) metrics: Arc<Metrics>,
}

/// A claimed message.
#[derive(Debug)]
struct Claimed {
    saga: String,
    kind: String,
    email: String,
    subject: String,
    body: String,
    tries: i64,
}

impl Sender {
    /// Runs until told to stop.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        loop {
            let round = async {
                match claim(&self.db).await {
                    Ok(claimed) if !claimed.is_empty() => claimed,
                    Ok(none) => {
                        tokio::time::sleep(LOOK_EVERY).await;
                        none
                    }
                    Err(error) => {
                        tracing::warn!(%error, "messages can't be read now");
                        tokio::time::sleep(PAUSE_MIN).await;
                        Vec::new()
                    }
                }
            };
            let claimed = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                claimed = round => claimed,
            };
            // Not given up in the middle: what was sent must be noted.
            join_all(claimed.into_iter().map(async |message| {
                let (saga, kind) = (message.saga.clone(), message.kind.clone());
                let sent = self.send(&message).await;
                match note(&self.db, message, sent).await {
                    Ok(status) => self.metrics.notified(&kind, status),
                    Err(error) => tracing::warn!(%error, saga, kind, "what became of a message can't be noted now"),
                }
            }))
            .await;
        }
    }

    async fn send(&self, message: &Claimed) -> Result<(), Unsent> {
        let Claimed { saga, kind, email, subject, body, .. } = message;
        let mail = |to| Mail { id: format!("{saga}.{kind}"), to, subject, body: body.clone() };
        if !is_sealed(email) {
            return self.mailer.send(mail(email)).await;
        }
        let address = self.address(saga).await?;
        // What a mail server says may repeat the address.
        self.mailer.send(mail(&address)).await.map_err(|unsent| unsent.with(|why| why.replace(&address, HIDDEN)))
    }

    /// The address in the saga's input.
    async fn address(&self, saga: &str) -> Result<String, Unsent> {
        let shown = self.client.saga(saga).await.map_err(|error| match error {
            ClientError::Refused(refusal) => Unsent::ForGood(format!("the saga cannot be read: {refusal}")),
            error => Unsent::NotNow(error.to_string()),
        })?;
        match &shown["input"]["email"] {
            Value::String(email) if email == ERASED => Err(Unsent::ForGood("the address was erased".to_owned())),
            Value::String(email) => Ok(email.clone()),
            _ => Err(Unsent::ForGood("the saga has no address".to_owned())),
        }
    }
}

async fn claim(db: &Db) -> Result<Vec<Claimed>, Failure> {
    let now = Utc::now().timestamp_micros();
    let until = now + micros(CLAIM);
    db.transaction(move |tx| {
        Box::pin(async move {
            let sql = "UPDATE notifications SET next_at_us = $2, tries = tries + 1
                       WHERE status = 'pending' AND next_at_us <= $1 AND (saga, kind) IN (
                           SELECT saga, kind FROM notifications WHERE status = 'pending' AND next_at_us <= $1
                           ORDER BY next_at_us LIMIT $3)
                       RETURNING saga, kind, email, subject, body, tries";
            let rows = tx.rows(sql, params![now, until, BATCH]).await?;
            Ok(rows.iter().map(claimed).collect::<sqlx::Result<Vec<_>>>()?)
        })
    })
    .await
}

fn claimed(row: &Row) -> sqlx::Result<Claimed> {
    let text = |column| row.get::<String>(column);
    Ok(Claimed {
        saga: text("saga")?,
        kind: text("kind")?,
        email: text("email")?,
        subject: text("subject")?,
        body: text("body")?,
        tries: row.get("tries")?,
    })
}

/// Notes what became of the message; gives its status.
async fn note(db: &Db, message: Claimed, sent: Result<(), Unsent>) -> Result<&'static str, Failure> {
    let Claimed { saga, kind, tries, .. } = message;
    let (status, error, pause) = match sent {
        Ok(()) => ("sent", None, Duration::ZERO),
        Err(Unsent::ForGood(error)) => ("failed", Some(error), Duration::ZERO),
        Err(Unsent::NotNow(error)) if tries >= TRIES_MAX => ("failed", Some(error), Duration::ZERO),
        Err(Unsent::NotNow(error)) => ("pending", Some(error), pause(tries)),
    };
    if let Some(error) = &error {
        tracing::warn!(saga, kind, error, "a message was not sent");
    }
    let now = Utc::now().timestamp_micros();
    let sent_at = (status == "sent").then_some(now);
    db.transaction(move |tx| {
        Box::pin(async move {
            let sql = "UPDATE notifications SET status = $3, error = $4, next_at_us = $5, sent_at_us = $6
                       WHERE saga = $1 AND kind = $2 AND status = 'pending'";
            tx.execute(sql, params![saga, kind, status, error, now + micros(pause), sent_at]).await?;
            Ok(())
        })
    })
    .await?;
    Ok(if status == "pending" { "put_off" } else { status })
}

fn pause(tries: i64) -> Duration {
    let doublings = u32::try_from(tries - 1).unwrap_or(0).min(20);
    (PAUSE_MIN * 2_u32.pow(doublings)).min(PAUSE_MAX)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour_and_tries_last_a_day() {
        assert_eq!((pause(1), pause(4)), (PAUSE_MIN, Duration::from_secs(8)));
        assert_eq!(pause(99), PAUSE_MAX);
        let all: Duration = (1..TRIES_MAX).map(pause).sum();
        assert!(all > Duration::from_secs(20 * 3600) && all < Duration::from_secs(48 * 3600), "{all:?}");
    }
}
