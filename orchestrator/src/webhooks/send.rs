//! Telling one webhook what its consumer group hands out.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode, redirect, retry};
use skald_core::{ids::SagaId, time::Millis};
use tokio::sync::watch;
use uuid::Uuid;

use super::{message, registry::group};
use crate::{
    api::events::wake::{Wake, Woken},
    app::App,
    http_client,
    metrics::WebhookOutcome,
    storage::{
        groups::{Delivery, Poll, Settled, Settlement},
        webhooks::{Attempt, Disabled, Webhook},
    },
};

/// Messages of different sagas that are under way at once, to one webhook.
const AT_ONCE: usize = 8;
/// Taken at once.
const LIMIT: u32 = 16;
/// After it, what a replica that died had in hand is sent by another one; and what a very slow receiver made one hold up,
/// a second time.
const LEASE: Millis = Millis(30_000);
/// What comes meanwhile is read together.
const PACE: Duration = Duration::from_millis(100);
const GONE: &str = "answered 410: disabled";
/// Before a database that did not answer is asked again.
const PAUSE: Duration = Duration::from_secs(2);

pub struct Courier {
    app: Arc<App>,
    client: Client,
}

/// What came of one attempt.
enum Told {
    Delivered,
    /// Settled as failed: it will be tried again.
    Failed(String),
    /// Nobody wants to be told any more. Settled as failed, so that it comes again when it is enabled.
    Gone,
}

impl Courier {
    /// # Errors
    ///
    /// When the machine's certificates cannot be read.
    pub fn new(app: Arc<App>, timeout: Duration) -> Result<Self, reqwest::Error> {
        let client = http_client::builder()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("skald/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(app.webhook_registry().guard)
            .timeout(timeout)
            .build()?;
        Ok(Self { app, client })
    }

    /// Tells the webhook what there is, for as long as it is to be told and the app is open.
    pub async fn tell(self: Arc<Self>, mut terms: watch::Receiver<Webhook>) {
        let id = terms.borrow().id;
        let consumer = self.app.owner_id().to_owned();
        let poll = Poll { group: group(id), consumer, limit: LIMIT, lease: LEASE, settle: Vec::new() };
        let mut wake = Wake::of(&self.app);
        while terms.has_changed().is_ok() {
            let asked = poll.clone();
            let polled = self.app.groups(move |groups| async move { groups.poll_group(&asked).await }).await;
            let mut polled = match polled {
                Ok(Some(polled)) => polled,
                // It was removed.
                Ok(None) => return,
                Err(problem) => {
                    tracing::debug!(webhook = %id, ?problem, "what there is to tell cannot be read");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            if polled.deliveries.is_empty() {
                let due_in = polled.next_at.map_or(LEASE, |at| self.app.clock().now().until(at)).min(LEASE);
                let due = tokio::time::Instant::now() + Duration::from_millis(due_in.0);
                tokio::select! {
                    woken = wake.wait_beyond(due, &mut polled.beyond) => if woken == Woken::Closing {
                        return;
                    },
                    _ = terms.changed() => {}
                }
                continue;
            }
            let webhook = terms.borrow_and_update().clone();
            let (settled, gone) = self.deliver(&webhook, polled.deliveries).await;
            let name = poll.group.clone();
            let settling = self.app.groups(move |groups| async move { groups.settle(&name, &settled).await });
            if let Err(problem) = settling.await {
                tracing::debug!(webhook = %id, ?problem, "what was told is not settled: it is told again");
            }
            if gone {
                return self.disable(id).await;
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// Each saga's news in order, those of several sagas at once; and whether nobody wants to be told any more.
    async fn deliver(&self, webhook: &Webhook, deliveries: Vec<Delivery>) -> (Vec<Settlement>, bool) {
        let mut by_saga = BTreeMap::<SagaId, Vec<Delivery>>::new();
        for delivery in deliveries {
            by_saga.entry(delivery.event.stream).or_default().push(delivery);
        }
        let told = stream::iter(by_saga.into_values()).map(|news| self.deliver_in_order(webhook, news));
        let all: Vec<(Vec<Settlement>, bool)> = told.buffer_unordered(AT_ONCE).collect().await;
        let gone = all.iter().any(|(_, gone)| *gone);
        (all.into_iter().flat_map(|(settled, _)| settled).collect(), gone)
    }

    /// Up to the first that fails: those behind it come again after it.
    async fn deliver_in_order(&self, webhook: &Webhook, news: Vec<Delivery>) -> (Vec<Settlement>, bool) {
        let mut settled = Vec::with_capacity(news.len());
        for delivery in news {
            let Delivery { event, token, .. } = &delivery;
            let (shard, position, token) = (event.shard, event.position, *token);
            let told = self.send(webhook, &delivery).await;
            let result = match &told {
                Told::Delivered => Settled::Done,
                Told::Failed(error) => Settled::Failed { error: error.clone(), poison: false },
                Told::Gone => Settled::Failed { error: GONE.to_owned(), poison: false },
            };
            settled.push(Settlement { shard, position, token, result });
            match told {
                Told::Delivered => {}
                Told::Failed(_) => break,
                Told::Gone => return (settled, true),
            }
        }
        (settled, false)
    }

    async fn send(&self, webhook: &Webhook, delivery: &Delivery) -> Told {
        let Delivery { event, tries, .. } = delivery;
        // The filter lets nothing else through.
        let Some(news) = message::news(event) else { return Told::Delivered };
        let (id, body, now) = (message::id(event), message::body(event, news), self.app.clock().now());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.app.webhook_registry().signer(webhook, now).sign(&mut headers, &id, now, &body);
        let begun = Instant::now();
        let answered = self.post(&webhook.terms.url, headers, body).await;
        let status = answered.as_ref().ok().copied();
        let (told, outcome) = match answered {
            Ok(status) if status.is_success() => (Told::Delivered, WebhookOutcome::Delivered),
            Ok(StatusCode::GONE) => (Told::Gone, WebhookOutcome::Gone),
            Ok(status) => (Told::Failed(format!("answered {}", status.as_u16())), WebhookOutcome::Failed),
            Err(error) => (Told::Failed(error), WebhookOutcome::Failed),
        };
        self.app.metrics().webhooks.attempted(outcome);
        let error = match &told {
            Told::Delivered => None,
            Told::Failed(error) => Some(error.clone()),
            Told::Gone => Some(GONE.to_owned()),
        };
        if let Some(error) = &error {
            tracing::info!(webhook = %webhook.id, saga_id = %event.stream, attempt = tries, error, "a webhook was not told");
        }
        let attempt = Attempt {
            webhook: webhook.id,
            message: id,
            type_name: message::type_name(news).to_owned(),
            number: *tries,
            at: now,
            duration: Millis(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)),
            http_status: status.map(|status| status.as_u16()),
            error,
        };
        if let Err(problem) = self.app.webhooks(|registry| async move { registry.note(&attempt).await }).await {
            tracing::debug!(webhook = %webhook.id, ?problem, "an attempt was not noted");
        }
        told
    }

    /// What was answered; or why nothing was, without the URL, which may hold a secret of the receiver's.
    async fn post(&self, url: &str, headers: HeaderMap, body: Vec<u8>) -> Result<StatusCode, String> {
        // It was checked when the webhook was made, perhaps under another configuration.
        self.app.webhook_registry().guard.check(url).map_err(|problem| format!("not sent: the URL {problem}"))?;
        let answer = self.client.post(url).headers(headers).body(body).send().await;
        answer.map(|answer| answer.status()).map_err(|error| describe(&error.without_url()))
    }

    async fn disable(&self, id: Uuid) {
        let disabled = Disabled { at: self.app.clock().now(), reason: "the receiver answered 410 Gone".to_owned() };
        tracing::warn!(webhook = %id, reason = disabled.reason, "a webhook is disabled");
        let disabling = self.app.webhooks(move |registry| async move { registry.disable(id, disabled).await });
        if let Err(problem) = disabling.await {
            // It is told again, and answers the same.
            tracing::debug!(webhook = %id, ?problem, "a webhook could not be disabled");
        }
    }
}

/// The error with its causes, without the URL.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
