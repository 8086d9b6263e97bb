//! A durable consumer group of Skald, over HTTP.
//!
//! Skald keeps the group's place in the log, leases its shards to consumers, retries what failed after a growing pause
//! and parks what keeps failing. Settlements travel with the next poll.
//!
//! An answer that got lost may have held events, which Skald takes to be in this consumer's hands: asked again, it would
//! hand out what comes after them. So after a poll whose end is unclear the consumer goes on under another name, and gets
//! them, in order, when the lease has ended.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Delivery, Filter, Receipt, Settled, Settlement, Source, SourceError, Start};
use crate::events::{Client, ClientError, Event, segment};

/// How a group repeats what failed: pauses that double, and when it gives up.
#[derive(Debug, Clone, Serialize)]
pub struct GroupRetry {
    pub initial: String,
    pub max: String,
    pub attempts: u32,
}

/// A consumer's part in a group.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    pub group: String,
    /// Of this process: who holds a lease goes by this name.
    pub consumer: String,
    pub filter: Filter,
    pub start: Start,
    /// Skald's own policy when left out.
    pub retry: Option<GroupRetry>,
    /// How long the consumer may take for the oldest event in its hands, before it goes to another one.
    pub lease: Duration,
}

impl GroupOptions {
    /// All events from the beginning, with a lease of 15 s.
    #[must_use]
    pub fn new(group: impl Into<String>, consumer: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            consumer: consumer.into(),
            filter: Filter::default(),
            start: Start::Beginning,
            retry: None,
            lease: Duration::from_secs(15),
        }
    }
}

/// A consumer of a group.
#[derive(Debug)]
pub struct HttpGroup {
    client: Client,
    path: String,
    options: GroupOptions,
    /// How often an answer got lost.
    losses: AtomicU32,
}

#[derive(Serialize)]
struct Group<'a> {
    filter: &'a Filter,
    start: Start,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<&'a GroupRetry>,
}

#[derive(Serialize)]
struct Poll<'a> {
    consumer: &'a str,
    limit: usize,
    wait: String,
    lease: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    settle: Vec<Settle<'a>>,
}

#[derive(Serialize)]
struct SettleOnly<'a> {
    settle: Vec<Settle<'a>>,
}

#[derive(Serialize)]
struct Settle<'a> {
    shard: u16,
    position: i64,
    token: &'a Value,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Deserialize)]
struct Polled {
    #[serde(default)]
    deliveries: Vec<Delivered>,
    #[serde(default)]
    refused: Vec<Refused>,
}

#[derive(Deserialize)]
struct Delivered {
    event: Event,
    shard: u16,
    position: i64,
    token: Value,
    r#try: u32,
}

#[derive(Debug, Deserialize)]
struct Refused {
    shard: u16,
    position: i64,
}

impl HttpGroup {
    #[must_use]
    pub fn new(client: Client, options: GroupOptions) -> Self {
        Self { client, path: format!("/groups/{}", segment(&options.group)), options, losses: AtomicU32::new(0) }
    }

    fn consumer(&self) -> String {
        match self.losses.load(Ordering::SeqCst) {
            0 => self.options.consumer.clone(),
            losses => format!("{}.{losses}", self.options.consumer),
        }
    }

    fn note(&self, refused: &[Refused]) {
        for Refused { shard, position } in refused {
            // Another consumer has the lease now and will be given the event again.
            tracing::debug!(group = self.options.group, shard, position, "a settlement came too late");
        }
    }
}

#[async_trait]
impl Source for HttpGroup {
    fn in_order(&self) -> bool {
        true
    }

    fn filter(&self) -> &Filter {
        &self.options.filter
    }

    async fn open(&self) -> Result<(), SourceError> {
        let GroupOptions { filter, start, retry, .. } = &self.options;
        Ok(self.client.put(&self.path, &Group { filter, start: *start, retry: retry.as_ref() }).await?)
    }

    async fn poll(
        &self,
        settlements: &[Settlement],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>, SourceError> {
        let poll = Poll {
            consumer: &self.consumer(),
            limit,
            wait: span(wait),
            lease: span(self.options.lease),
            settle: settlements.iter().filter_map(settle).collect(),
        };
        let polled = self.client.post(&format!("{}/poll", self.path), &poll, wait).await;
        if matches!(polled, Err(ClientError::Unavailable { unclear: true, .. } | ClientError::Unreadable(_))) {
            self.losses.fetch_add(1, Ordering::SeqCst);
        }
        let polled: Polled = polled?;
        self.note(&polled.refused);
        Ok(polled.deliveries.into_iter().map(delivery).collect())
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<(), SourceError> {
        let only = SettleOnly { settle: settlements.iter().filter_map(settle).collect() };
        let settled: Polled = self.client.post(&format!("{}/settle", self.path), &only, Duration::ZERO).await?;
        self.note(&settled.refused);
        Ok(())
    }
}

fn settle(settlement: &Settlement) -> Option<Settle<'_>> {
    let Receipt::Group { shard, position, token } = &settlement.receipt else { return None };
    let (outcome, error) = match &settlement.settled {
        Settled::Done => ("done", None),
        Settled::Failed(error) => ("failed", Some(error.as_str())),
        Settled::Poison(error) => ("poison", Some(error.as_str())),
    };
    Some(Settle { shard: *shard, position: *position, token, outcome, error })
}

fn delivery(delivered: Delivered) -> Delivery {
    let Delivered { event, shard, position, token, r#try } = delivered;
    Delivery { event: event.into(), receipt: Receipt::Group { shard, position, token }, tries: r#try }
}

fn span(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
