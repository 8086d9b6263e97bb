//! What one group commit writes.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

use serde_json::value::RawValue;

use crate::{
    event::Event,
    ids::{Epoch, SagaId, Shard},
    state::SagaRow,
    time::Timestamp,
};

/// Transitions of any number of sagas and appends to any number of other streams, to be written all or not at all.
///
/// At most one transition per saga and one append per stream. Those of one shard are in commit order, transitions before
/// appends: their events take consecutive positions in that order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Every shard that a transition or an append lies in, ascending, with the epoch under which it may be written.
    pub fences: Vec<Fence>,
    pub transitions: Vec<Transition>,
    pub appends: Vec<Append>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    pub shard: Shard,
    pub epoch: Epoch,
}

/// One durable change of a saga: its events and its new row.
#[derive(Clone, Debug)]
pub struct Transition {
    pub shard: Shard,
    /// The row as it will be. It exists already unless the first event has version 1.
    pub row: SagaRow,
    /// Consecutive versions; the last one is the row's. Never empty.
    pub events: Vec<NewEvent>,
    /// Of a keyed start: the key row to insert. Its uniqueness makes one key one saga.
    pub start_key: Option<StartKey>,
    /// Of a start with personal data: the key that it is sealed under. It must not have been destroyed meanwhile.
    pub sealed_under: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
pub struct NewEvent {
    pub version: u64,
    pub type_name: Arc<str>,
    pub occurred_at: Timestamp,
    pub actor: Option<Arc<str>>,
    pub origin: Origin,
    pub event: Event,
}

/// Where an event that came from outside came from; empty for the engine's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Its name, unique within the stream: the same event that comes again has no further effect.
    pub event_id: Option<Arc<str>>,
    /// The event that led to it.
    pub causation_id: Option<Arc<str>>,
}

/// Events that somebody appends to a stream that is no saga.
#[derive(Clone, Debug)]
pub struct Append {
    pub shard: Shard,
    /// The stream as the log knows it: made when the stream is, in its shard.
    pub stream: SagaId,
    /// The stream as people know it: `category-anything`.
    pub name: Arc<str>,
    /// Of the stream's last event; 0 when this append creates it.
    pub version_before: u64,
    /// Consecutive versions. Never empty.
    pub events: Vec<AppendedEvent>,
}

/// An event of a stream that is no saga; its kind is [`APPENDED`].
#[derive(Clone, Debug)]
pub struct AppendedEvent {
    pub version: u64,
    /// Unique within the stream.
    pub event_id: Arc<str>,
    pub type_name: Arc<str>,
    /// Of the data, by whoever appends it.
    pub schema_version: u16,
    pub occurred_at: Timestamp,
    pub actor: Option<Arc<str>>,
    pub correlation_id: Option<Arc<str>>,
    pub causation_id: Option<Arc<str>>,
    /// A JSON object, as received: validated at the edge, stored byte for byte.
    pub data: Box<RawValue>,
}

/// The kind of every event of a stream that is no saga.
pub const APPENDED: &str = "Appended";

/// What must be known of a stream before events are appended to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAsk {
    pub name: Arc<str>,
    /// Of the events to append, each once.
    pub event_ids: Vec<Arc<str>>,
}

/// A stream as the database has it, for a [`StreamAsk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamLook {
    pub name: Arc<str>,
    /// None: it does not exist.
    pub head: Option<StreamHead>,
    /// Those of the event ids that are in the stream, with their versions.
    pub known: Vec<(Arc<str>, u64)>,
}

/// Where a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHead {
    pub id: SagaId,
    pub version: u64,
    /// When its last event occurred.
    pub updated_at: Timestamp,
}

/// The client's name for a start: the same key gives the same saga.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartKey {
    pub definition: Arc<str>,
    pub key: String,
    /// SHA-256 of what was asked for; a key that comes again with another fingerprint is a mistake.
    pub fingerprint: [u8; 32],
}

impl Transition {
    /// Whether this transition creates its saga.
    #[must_use]
    pub fn creates(&self) -> bool {
        self.events.first().is_some_and(|event| event.version == 1)
    }
}

impl Batch {
    #[must_use]
    pub fn event_count(&self) -> usize {
        let of_sagas = self.transitions.iter().map(|transition| transition.events.len());
        of_sagas.chain(self.appends.iter().map(|append| append.events.len())).sum()
    }
}

/// What became of a commit that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Nothing was written: another replica owns these shards now.
    #[error("the shards {0:?} are owned by another replica")]
    Fenced(Vec<Shard>),
    /// Nothing was written: a transition's data was refused (its start key exists, a version is taken, ..). Committing
    /// parts of the batch finds out which.
    #[error("the database refused the data: {0}")]
    Refused(String),
    /// Nothing was written; the same batch may be tried again later (disk full, database not there, serialization).
    #[error("nothing was written: {0}")]
    NotApplied(String),
    /// The batch may or may not have been written: every shard of it must be taken again before anything else.
    #[error("the fate of the commit is unknown: {0}")]
    InDoubt(String),
}
