//! Reading the log as a whole: in the order of positions, or stream by stream.
//!
//! Order is total within a shard. A commit's positions become visible together and after all smaller ones of their shard
//! (its row is locked until the commit ends), so whoever goes on from where a page ended misses nothing (invariant 7).
//!
//! A look at the log reads the table of events alone. What never changes of their streams, and is not in each event (the
//! name, the saga's definition), comes from a small memory ([`facts`]): those who follow the log read the same sagas.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use serde_json::value::RawValue;
use skald_core::{
    event::Mode,
    ids::{SagaId, Shard},
    shard::batch::{APPENDED, StreamHead},
    time::Timestamp,
};

use self::tail::Tail;
use super::StoreError;

pub(super) mod facts;
pub(super) mod filter;
pub(super) mod rows;
pub(super) mod stats;
pub mod tail;

/// The category of every saga's stream.
pub const SAGAS: &str = "saga";

/// How many positions one call looks at, at most, when a filter may pass most of them over.
pub const SCAN_MAX: i64 = 20_000;

/// Of a stream that is no saga: what precedes the first `-` of its name.
#[must_use]
pub fn category(stream: &str) -> &str {
    stream.split_once('-').map_or(stream, |(category, _)| category)
}

/// An event as whoever reads the log sees it, of a saga or of another stream.
#[derive(Clone, Debug)]
pub struct LogEvent {
    pub shard: Shard,
    /// Gapless within the shard, in commit order.
    pub position: i64,
    pub stream: SagaId,
    /// Of a stream that is no saga.
    pub name: Option<Arc<str>>,
    /// 1 for the first event of the stream.
    pub version: u64,
    /// The engine's word; [`APPENDED`] for a stream that is no saga.
    pub kind: Arc<str>,
    pub type_name: Arc<str>,
    pub occurred_at: Timestamp,
    pub actor: Option<Arc<str>>,
    pub schema_version: u16,
    /// Its name from outside, unique within the stream; None for the engine's own.
    pub event_id: Option<Arc<str>>,
    /// Its own, else the saga's.
    pub correlation_id: Option<Arc<str>>,
    pub causation_id: Option<Arc<str>>,
    /// The saga's, as its mode.
    pub definition: Option<Arc<str>>,
    pub mode: Option<Mode>,
    /// As stored, byte for byte.
    pub data: Box<RawValue>,
}

impl LogEvent {
    #[must_use]
    pub fn category(&self) -> &str {
        self.name.as_deref().map_or(SAGAS, category)
    }
}

/// Which events; empty lists and None mean "any".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    pub types: Vec<String>,
    pub kinds: Vec<String>,
    /// Events of sagas of these definitions only.
    pub definitions: Vec<String>,
    /// [`SAGAS`] among them, or whatever precedes the first `-` of other streams' names.
    pub categories: Vec<String>,
    /// Events of sagas in this mode only.
    pub mode: Option<Mode>,
    pub stream: Option<SagaId>,
    /// The event's own, else its saga's.
    pub correlation_id: Option<String>,
    pub actor: Option<String>,
    /// Events that occurred then or later.
    pub since: Option<Timestamp>,
    /// Events that occurred before.
    pub until: Option<Timestamp>,
}

impl LogFilter {
    /// Whether it passes every event.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it passes this event: what [`filter::push`] asks of a row, and of each event in it.
    #[must_use]
    pub fn takes(&self, event: &LogEvent) -> bool {
        let known_among =
            |words: &[String], word: Option<&str>| words.is_empty() || word.is_some_and(|word| among(words, word));
        // A stream may be called as sagas' category is.
        let is_stranger = *event.kind == *APPENDED && event.category() == SAGAS;
        among(&self.types, &event.type_name)
            && among(&self.kinds, &event.kind)
            && known_among(&self.definitions, event.definition.as_deref())
            && known_among(&self.categories, Some(event.category()).filter(|_| !is_stranger))
            && self.mode.is_none_or(|mode| event.mode == Some(mode))
            && self.stream.is_none_or(|stream| event.stream == stream)
            && self.correlation_id.as_deref().is_none_or(|id| event.correlation_id.as_deref() == Some(id))
            && self.actor.as_deref().is_none_or(|actor| event.actor.as_deref() == Some(actor))
            && self.since.is_none_or(|since| event.occurred_at >= since)
            && self.until.is_none_or(|until| event.occurred_at < until)
    }
}

/// Whether a word is in a filter's list.
fn among(words: &[String], word: &str) -> bool {
    words.is_empty() || words.iter().any(|other| other == word)
}

/// A page of the log.
#[derive(Clone, Debug)]
pub struct LogQuery {
    /// The shards to read, and after which position each.
    pub after: BTreeMap<Shard, i64>,
    /// The last positions to read; a shard that is not named is read to its end.
    pub until: BTreeMap<Shard, i64>,
    /// Of events.
    pub limit: u32,
    pub filter: LogFilter,
}

/// What one look at the log found.
#[derive(Clone, Debug, Default)]
pub struct LogPage {
    /// Each shard's by position; shards are mixed by time.
    pub events: Vec<LogEvent>,
    /// How far each shard asked for was looked at: from here the next page goes on. A page may be short, or empty,
    /// although there is more.
    pub read_to: BTreeMap<Shard, i64>,
    /// Whether events lie beyond, as of this look.
    pub more: bool,
}

/// What the log holds, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventStats {
    /// The last position given out of each shard: their sum is how many events there ever were.
    pub heads: BTreeMap<Shard, i64>,
    /// How many events there ever were of each category and type, those among [`EventStats::uncounted`] left out.
    pub counts: Vec<EventCount>,
    /// Events at the end of the log that are not in the counts yet; asking again counts on.
    pub uncounted: u64,
    /// What the events take on the disk with their indexes; on SQLite the whole file.
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventCount {
    pub category: String,
    pub type_name: String,
    pub events: u64,
}

/// Reads of the log, none of which waits for a commit or holds one up.
#[async_trait]
pub trait EventLog: Send + Sync + std::fmt::Debug + 'static {
    /// The last position given out of each shard, all of one moment.
    async fn heads(&self) -> Result<BTreeMap<Shard, i64>, StoreError>;

    /// The next events after a position of each shard, at most `limit`. Shards that have more share the page.
    async fn log(&self, query: &LogQuery) -> Result<LogPage, StoreError>;

    /// What this process itself committed lately.
    fn tail(&self) -> &Tail;

    /// The events of one stream, of whatever kind, after `after` (0: from the first) up to `until`.
    async fn stream_log(
        &self,
        stream: SagaId,
        after: u64,
        until: Option<u64>,
        limit: u32,
    ) -> Result<Vec<LogEvent>, StoreError>;

    /// The stream of this name that is no saga.
    async fn stream_head(&self, name: &str) -> Result<Option<StreamHead>, StoreError>;

    /// The events at these positions; those that retention removed are left out.
    async fn events_at(&self, shard: Shard, positions: &[i64]) -> Result<Vec<LogEvent>, StoreError>;

    /// Counts on from where it was counted before, at most some hundred thousand events, and tells.
    async fn event_stats(&self) -> Result<EventStats, StoreError>;

    /// How far each shard has been relayed to this bus; a shard that is not named has not. The relay itself asks the bus.
    #[cfg(test)]
    async fn relayed(&self, bus: &str) -> Result<BTreeMap<Shard, i64>, StoreError>;

    /// Notes how far shards have been relayed; what is behind what was noted before changes nothing. May be lost in a
    /// crash, whereupon events are relayed again.
    async fn note_relayed(&self, bus: &str, positions: &BTreeMap<Shard, i64>) -> Result<(), StoreError>;
}
