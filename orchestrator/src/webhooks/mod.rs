//! Webhooks: whoever asked is told when a saga ends or parks.
//!
//! What there is to tell is read from the log by a consumer group per webhook, which makes it durable: at least once, each
//! saga's news in order, tried again for days, then parked in the group for an operator. Every replica sends; the group shares
//! the work. A receiver that answers 410 is told no more until somebody enables it.

pub mod guard;
mod message;
pub mod registry;
mod send;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use skald_core::time::{Millis, Timestamp};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use uuid::Uuid;

use self::send::Courier;
use crate::{app::App, storage::webhooks::Webhook};

/// How soon a replica hears of what another one changed.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long attempts can be looked at.
const ATTEMPTS_KEPT: Millis = Millis(30 * 24 * 3600 * 1000);
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// Sends what there is to tell, until the app closes. An answer must come within `timeout`.
///
/// # Errors
///
/// When the machine's certificates cannot be read.
pub fn follow(app: Arc<App>, timeout: Duration) -> Result<(), reqwest::Error> {
    let courier = Arc::new(Courier::new(Arc::clone(&app), timeout)?);
    tokio::spawn(async move {
        let mut closing = app.closing();
        let mut senders = Senders::default();
        let mut forget_at = Instant::now();
        loop {
            match app.webhooks(|registry| async move { registry.list().await }).await {
                Ok(webhooks) => senders.match_with(webhooks, &courier),
                Err(problem) => tracing::debug!(?problem, "webhooks cannot be read; those known hold"),
            }
            if forget_at <= Instant::now() {
                forget_at = Instant::now() + FORGET_EVERY;
                let before = Timestamp::from_micros(app.clock().now().as_micros() - micros(ATTEMPTS_KEPT));
                if let Err(problem) =
                    app.webhooks(move |registry| async move { registry.forget_attempts(before).await }).await
                {
                    tracing::debug!(?problem, "old attempts of webhooks stay for now");
                }
            }
            tokio::select! {
                () = app.webhook_registry().changed.notified() => {}
                () = sleep(INTERVAL) => {}
                _ = closing.wait_for(|closing| *closing) => return,
            }
        }
    });
    Ok(())
}

fn micros(span: Millis) -> i64 {
    i64::try_from(span.0.saturating_mul(1000)).unwrap_or(i64::MAX)
}

/// A task per webhook that is not disabled, which ends when it has settled what it has in hand and finds its sender gone.
#[derive(Default)]
struct Senders(BTreeMap<Uuid, watch::Sender<Webhook>>);

impl Senders {
    fn match_with(&mut self, webhooks: Vec<Webhook>, courier: &Arc<Courier>) {
        let wanted: BTreeMap<Uuid, Webhook> = webhooks
            .into_iter()
            .filter(|webhook| webhook.terms.disabled.is_none())
            .map(|webhook| (webhook.id, webhook))
            .collect();
        self.0.retain(|id, sender| wanted.contains_key(id) && !sender.is_closed());
        for (id, webhook) in wanted {
            match self.0.entry(id) {
                Entry::Occupied(known) => {
                    known.get().send_if_modified(|known| {
                        let differs = *known != webhook;
                        *known = webhook;
                        differs
                    });
                }
                Entry::Vacant(place) => {
                    let (sender, receiver) = watch::channel(webhook);
                    tokio::spawn(Arc::clone(courier).tell(receiver));
                    place.insert(sender);
                }
            }
        }
    }
}
