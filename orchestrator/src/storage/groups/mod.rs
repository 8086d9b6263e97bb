//! Consumer groups: each event that a group wants is handled, or parked, at least once, each stream in order
//! (invariant 11).
//!
//! A group has a *cursor* per shard: up to where it has looked, and which events are *in hand* of a consumer, handed out
//! under a lease. A lease is on what is in hand, not on the shard: a shard with nothing in hand is anybody's. The lease
//! runs from the delivery, and anew whenever the oldest event in hand is settled. When it ends before, what is in hand is
//! *owed*: handed out again, before anything new, under another token, which refuses the late settlements of the former.
//!
//! An event that failed is *held*: `retry` until its time comes, or `parked` for a person. As long as a stream has a held
//! event, its later events are held behind it, `waiting`; other streams go on. Among the held events of a stream those
//! that wait come last, unless an operator put older ones before them: what may be handed out is always a prefix.
//!
//! What follows from what is decided in [`turns`], [`settling`] and [`operators`], over rows that both databases read and
//! write alike ([`rows`]). A change of a shard's cursor and held events is written if the cursor's revision is still the
//! one that was read; else it is read and decided again.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use skald_core::{
    event::Mode,
    ids::Shard,
    time::{Millis, Timestamp},
};

use super::{
    StoreError,
    log::{EventLog, LogEvent, LogFilter, tail::Beyond},
};
use operators::Fate;
use rows::GroupRows;

mod holding;
mod operators;
pub mod positions;
pub(super) mod rows;
mod settling;
mod turns;

/// Which events a group wants; empty lists and None mean "any".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupFilter {
    pub types: Vec<String>,
    pub kinds: Vec<String>,
    pub definitions: Vec<String>,
    pub categories: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

impl From<&GroupFilter> for LogFilter {
    fn from(filter: &GroupFilter) -> Self {
        let GroupFilter { types, kinds, definitions, categories, mode } = filter.clone();
        Self { types, kinds, definitions, categories, mode, ..Self::default() }
    }
}

/// How often, and how soon, an event that failed is handed out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRetry {
    /// After the first failure; doubles with each further one.
    pub initial: Millis,
    pub max: Millis,
    /// Tries in all, before the event is parked.
    pub attempts: u32,
}

impl Default for GroupRetry {
    fn default() -> Self {
        Self { initial: Millis(1000), max: Millis(60_000), attempts: 5 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub filter: GroupFilter,
    pub retry: GroupRetry,
    pub created_at: Timestamp,
}

/// Where a new group begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Beginning,
    /// After whatever is in the log when the group is made.
    End,
}

#[derive(Clone, Debug)]
pub struct NewGroup {
    pub name: String,
    pub filter: GroupFilter,
    pub retry: GroupRetry,
    pub start: Start,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutGroup {
    Created,
    /// The filter or the retry policy changed, for whatever is looked at from now on.
    Changed,
    Unchanged,
}

#[derive(Clone, Debug)]
pub struct Poll {
    pub group: String,
    /// Unique among the group's consumers.
    pub consumer: String,
    pub limit: u32,
    /// How long the consumer may take to settle the oldest event in its hands. A shard keeps the lease under which it
    /// was taken.
    pub lease: Millis,
    /// What became of earlier deliveries; settled first, and at once even when there is nothing to hand out.
    pub settle: Vec<Settlement>,
}

#[derive(Clone, Debug)]
pub struct Delivery {
    pub event: LogEvent,
    /// Names the lease; to be given back with the settlement.
    pub token: i64,
    /// 1 for the first.
    pub tries: u32,
}

#[derive(Clone, Debug)]
pub struct Polled {
    /// Those of one stream are in order, and to be handled in order: after one that failed the later ones are not to be
    /// handled, and their settlements are refused.
    pub deliveries: Vec<Delivery>,
    /// When there may be something to hand out although nothing is appended: a retry falls due, or this poll came to an
    /// end before the log did.
    pub next_at: Option<Timestamp>,
    /// From where there was nothing to hand out.
    pub beyond: Beyond,
    /// Settlements that were refused, as [`ConsumerGroups::settle`] answers them.
    pub refused: Vec<(Shard, i64)>,
}

/// What became of a delivery.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub shard: Shard,
    pub position: i64,
    pub token: i64,
    pub result: Settled,
}

#[derive(Clone, Debug)]
pub enum Settled {
    Done,
    Failed {
        error: String,
        /// Trying again will not help: park it at once.
        poison: bool,
    },
}

/// An event that waits for a person.
#[derive(Clone, Debug)]
pub struct Parked {
    pub event: LogEvent,
    pub tries: u32,
    pub error: String,
    pub parked_at: Timestamp,
}

/// Events that a group is to handle once more.
#[derive(Clone, Copy, Debug)]
pub struct ReplayRange {
    pub shard: Shard,
    /// The range is `after < position <= until`, as far as the group has looked already.
    pub after: i64,
    pub until: i64,
    /// Of events.
    pub limit: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// How many will be handed out again.
    pub events: u64,
    /// From here the next call goes on; at the end of the range, or where the group has looked to, it stays.
    pub read_to: i64,
    /// Whether that was all.
    pub ended: bool,
}

/// How far a group is behind in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardLag {
    pub shard: Shard,
    pub head: i64,
    /// Every event up to here was not wanted, is settled, or held.
    pub position: i64,
    /// Positions not looked at yet. Up to some hundred of them may hold nothing that the group wants.
    pub ahead: u64,
    pub in_hand: u64,
    pub retrying: u64,
    pub waiting: u64,
    pub parked: u64,
}

/// Every method answers None when there is no such group.
#[async_trait]
pub trait ConsumerGroups: Send + Sync + std::fmt::Debug + 'static {
    /// Creates the group, or changes its filter and retry policy.
    async fn put_group(&self, group: &NewGroup) -> Result<PutGroup, StoreError>;

    /// By name.
    async fn groups(&self) -> Result<Vec<Group>, StoreError>;

    async fn group(&self, name: &str) -> Result<Option<Group>, StoreError>;

    /// Forgets the group and all that it holds; whether there was one.
    async fn drop_group(&self, name: &str) -> Result<bool, StoreError>;

    /// Hands out what there is. The shards with something to hand out are shared among the consumers that polled lately;
    /// a consumer that holds more than its share gets nothing new from the rest.
    async fn poll_group(&self, poll: &Poll) -> Result<Option<Polled>, StoreError>;

    /// Settles deliveries; answers those that were refused: under a token of the past, or settled before. They will be
    /// handed out again, or have been.
    async fn settle(&self, group: &str, settlements: &[Settlement]) -> Result<Option<Vec<(Shard, i64)>>, StoreError>;

    /// Parked events after this place, by shard and position.
    async fn parked(
        &self,
        group: &str,
        after: Option<(Shard, i64)>,
        limit: u32,
    ) -> Result<Option<Vec<Parked>>, StoreError>;

    /// Hands a parked event out again, with a fresh policy; whether it was parked.
    async fn replay_parked(&self, group: &str, shard: Shard, position: i64) -> Result<Option<bool>, StoreError>;

    /// Gives a parked event up: its stream goes on behind it. Whether it was parked.
    async fn drop_parked(&self, group: &str, shard: Shard, position: i64) -> Result<Option<bool>, StoreError>;

    /// Has events that the group has handled handed out again, each stream in order and before its new events.
    async fn replay_range(&self, group: &str, range: &ReplayRange) -> Result<Option<Replayed>, StoreError>;

    /// How far the group is behind, or each group when none is named; shards ascending.
    async fn lags(&self, group: Option<&str>) -> Result<BTreeMap<String, Vec<ShardLag>>, StoreError>;
}

#[async_trait]
impl<S: GroupRows + EventLog> ConsumerGroups for S {
    async fn put_group(&self, group: &NewGroup) -> Result<PutGroup, StoreError> {
        self.put_group_row(group).await
    }

    async fn groups(&self) -> Result<Vec<Group>, StoreError> {
        self.group_rows().await
    }

    async fn group(&self, name: &str) -> Result<Option<Group>, StoreError> {
        Ok(self.view(name).await?.map(|view| view.group))
    }

    async fn drop_group(&self, name: &str) -> Result<bool, StoreError> {
        self.drop_group_rows(name).await
    }

    async fn poll_group(&self, poll: &Poll) -> Result<Option<Polled>, StoreError> {
        turns::poll(self, poll).await
    }

    async fn settle(&self, group: &str, settlements: &[Settlement]) -> Result<Option<Vec<(Shard, i64)>>, StoreError> {
        settling::settle(self, group, settlements).await
    }

    async fn parked(
        &self,
        group: &str,
        after: Option<(Shard, i64)>,
        limit: u32,
    ) -> Result<Option<Vec<Parked>>, StoreError> {
        match self.view(group).await? {
            Some(_) => operators::parked(self, group, after, limit).await.map(Some),
            None => Ok(None),
        }
    }

    async fn replay_parked(&self, group: &str, shard: Shard, position: i64) -> Result<Option<bool>, StoreError> {
        operators::decide_parked(self, group, (shard, position), Fate::Replay).await
    }

    async fn drop_parked(&self, group: &str, shard: Shard, position: i64) -> Result<Option<bool>, StoreError> {
        operators::decide_parked(self, group, (shard, position), Fate::Drop).await
    }

    async fn replay_range(&self, group: &str, range: &ReplayRange) -> Result<Option<Replayed>, StoreError> {
        operators::replay_range(self, group, range).await
    }

    async fn lags(&self, group: Option<&str>) -> Result<BTreeMap<String, Vec<ShardLag>>, StoreError> {
        let mut lags = BTreeMap::<String, Vec<ShardLag>>::new();
        for (group, lag) in self.lag_rows(group).await? {
            lags.entry(group).or_default().push(lag);
        }
        Ok(lags)
    }
}
