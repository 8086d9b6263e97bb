//! Where events come from: a consumer group over HTTP, or Redis Streams. Both deliver at least once.

mod filter;
mod group;
mod redis;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::Value;
use thiserror::Error;

pub use self::{
    filter::{Filter, Start},
    group::{GroupOptions, GroupRetry, HttpGroup},
    redis::{RedisGroup, RedisOptions},
};
use crate::events::{ClientError, Event};

/// An event that was handed out and must be settled.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub event: Arc<Event>,
    pub receipt: Receipt,
    /// From 1.
    pub tries: u32,
}

/// What a delivery is known by at its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// Of a consumer group: the event's place and the lease under which it was handed out.
    Group { shard: u16, position: i64, token: Value },
    /// Of Redis: the entry.
    Redis { shard: u16, id: String },
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    Done,
    /// Not now: to be delivered again after a pause, a limited number of times.
    Failed(String),
    /// Never: no further try would help. It goes to the dead letters.
    Poison(String),
}

#[derive(Debug, Clone)]
pub struct Settlement {
    pub receipt: Receipt,
    pub settled: Settled,
}

/// Why nothing can be had from a source now.
#[derive(Debug, Error)]
pub enum SourceError {
    #[error(transparent)]
    Skald(#[from] ClientError),
    #[error("redis: {0}")]
    Redis(#[from] ::redis::RedisError),
    #[error("redis has no shards yet: Skald's relay has not begun to publish")]
    NotPublished,
}

/// A source of events. Every method may be repeated after an error.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// Whether the events of a stream come in order and only once settled go on: a version left out was filtered out.
    /// Otherwise a gap means that events come late, or again.
    fn in_order(&self) -> bool;

    /// Which events are wanted. A source may deliver others, of streams that the filter takes.
    fn filter(&self) -> &Filter;

    /// Makes what must be there before the first poll.
    async fn open(&self) -> Result<(), SourceError>;

    /// Settles what was delivered before and waits up to `wait` for at most `limit` further events. After an error the
    /// settlements count as not made.
    async fn poll(
        &self,
        settlements: &[Settlement],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>, SourceError>;

    /// Settles only.
    async fn settle(&self, settlements: &[Settlement]) -> Result<(), SourceError>;
}
