//! A group as clients write and see it.

use serde::{Deserialize, Serialize};
use skald_core::time::Millis;
use utoipa::ToSchema;

use super::super::{
    body::given,
    problem::{Code, FieldProblem, Problem},
    words::{Moment, SagaMode},
};
use crate::storage::groups::{self, Group, GroupFilter, GroupRetry, NewGroup, ShardLag};

const WORDS_MAX: usize = 100;
const WORD_CHARS_MAX: usize = 255;
const RETRY_WAIT_MAX: Millis = Millis(24 * 3600 * 1000);

/// Which events a group handles: those that match every list that is given.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EventFilter {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100, example = json!(["StockReserved"]))]
    types: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100)]
    kinds: Vec<String>,
    /// Of sagas.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100, example = json!(["checkout"]))]
    definitions: Vec<String>,
    /// `saga`, or what the names of other streams begin with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100, example = json!(["saga", "cart"]))]
    categories: Vec<String>,
    /// Of sagas.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(nullable = false)]
    mode: Option<SagaMode>,
}

/// What becomes of an event whose handling failed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// The first wait; each further one is twice as long.
    #[schema(value_type = String, example = "1s")]
    initial: Millis,
    /// The longest wait.
    #[schema(value_type = String, example = "60s")]
    max: Millis,
    /// After so many tries the event is parked.
    #[schema(minimum = 1, maximum = 1000, example = 5)]
    attempts: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { initial: Millis(1000), max: Millis(60_000), attempts: 5 }
    }
}

/// Where a new group begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the first event of the log.
    #[default]
    Beginning,
    /// With what comes from now on.
    End,
}

/// A consumer group to make or to change.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GroupRequest {
    filter: EventFilter,
    /// Of a new group; one that is there goes on where it is.
    start: Start,
    retry: RetryPolicy,
}

impl GroupRequest {
    /// # Errors
    ///
    /// When a word or a wait cannot be.
    pub(super) fn checked(self, name: String) -> Result<NewGroup, Problem> {
        let mut errors = Vec::new();
        let mut refuse = |place: String, reason: &str| errors.push(FieldProblem::new(place, reason));
        let EventFilter { types, kinds, definitions, categories, mode } = self.filter;
        for (name, words) in
            [("types", &types), ("kinds", &kinds), ("definitions", &definitions), ("categories", &categories)]
        {
            if words.len() > WORDS_MAX {
                refuse(format!("/filter/{name}"), "must hold at most 100 words");
            }
            for (index, word) in words.iter().enumerate() {
                let chars = word.chars().count();
                if chars == 0 || chars > WORD_CHARS_MAX || word.chars().any(char::is_control) {
                    let reason = "must be 1 to 255 characters, none of them a control character";
                    refuse(format!("/filter/{name}/{index}"), reason);
                }
            }
        }
        let RetryPolicy { initial, max, attempts } = self.retry;
        if initial.0 == 0 || initial > max || max > RETRY_WAIT_MAX {
            refuse("/retry/initial".to_owned(), "must be longer than 0s, and no longer than max, which is at most 24h");
        }
        if !(1..=1000).contains(&attempts) {
            refuse("/retry/attempts".to_owned(), "must be from 1 to 1000");
        }
        if !errors.is_empty() {
            return Err(Problem::at(Code::InvalidBody, errors));
        }
        let filter = GroupFilter { types, kinds, definitions, categories, mode: mode.map(Into::into) };
        let start = match self.start {
            Start::Beginning => groups::Start::Beginning,
            Start::End => groups::Start::End,
        };
        Ok(NewGroup { name, filter, retry: GroupRetry { initial, max, attempts }, start })
    }
}

/// A consumer group, and how far it is behind.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupView {
    #[schema(example = "audit")]
    pub name: String,
    pub filter: EventFilter,
    pub retry: RetryPolicy,
    pub created_at: Moment,
    pub lag: GroupLag,
}

impl GroupView {
    #[must_use]
    pub fn new(group: Group, lag: Vec<ShardLag>) -> Self {
        let GroupFilter { types, kinds, definitions, categories, mode } = group.filter;
        let GroupRetry { initial, max, attempts } = group.retry;
        Self {
            name: group.name,
            filter: EventFilter { types, kinds, definitions, categories, mode: mode.map(SagaMode::from) },
            retry: RetryPolicy { initial, max, attempts },
            created_at: group.created_at.into(),
            lag: lag.into(),
        }
    }
}

/// How far a group is behind.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupLag {
    /// Events of the log that the group has not looked at yet; some may be none that it wants.
    pub ahead: u64,
    /// With consumers, and not settled.
    pub in_hand: u64,
    /// Failed, to be tried again.
    pub retrying: u64,
    /// Behind a failed event of their stream.
    pub waiting: u64,
    /// Failed for good, until somebody replays or drops them.
    pub parked: u64,
    pub shards: Vec<GroupShard>,
}

/// How far a group is in one shard.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupShard {
    pub shard: u16,
    /// The last position of the shard's log.
    pub head: i64,
    /// Every event up to here is handled, held, or none that the group wants.
    pub position: i64,
}

impl From<Vec<ShardLag>> for GroupLag {
    fn from(shards: Vec<ShardLag>) -> Self {
        let sum = |of: fn(&ShardLag) -> u64| shards.iter().map(of).sum();
        Self {
            ahead: sum(|lag| lag.ahead),
            in_hand: sum(|lag| lag.in_hand),
            retrying: sum(|lag| lag.retrying),
            waiting: sum(|lag| lag.waiting),
            parked: sum(|lag| lag.parked),
            shards: shards
                .iter()
                .map(|lag| GroupShard { shard: lag.shard.0, head: lag.head, position: lag.position })
                .collect(),
        }
    }
}
