//! What is asked for, and what is answered.

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::ids::Shard;

/// Events to append to a stream that is no saga: all of them, next to each other, or none.
///
/// A repetition has no further effect: it is known by the events' ids.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AppendRequest {
    /// `category-anything`, checked at the edge.
    pub stream: Arc<str>,
    pub expected: ExpectedVersion,
    /// Never empty.
    pub events: Vec<ToAppend>,
    /// Fresh random bytes for the stream's id, in case it does not exist yet.
    pub entropy: [u8; 10],
}

/// Which version a stream must have for an append to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpectedVersion {
    Any,
    /// Of its last event; 0: the stream must not exist.
    Exactly(u64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ToAppend {
    /// Unique within the stream.
    pub event_id: Arc<str>,
    pub type_name: Arc<str>,
    /// Of the data, by whoever appends it.
    pub schema_version: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Arc<str>>,
    /// A JSON object, checked at the edge.
    pub data: Box<RawValue>,
}

/// An append that is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    pub stream: Arc<str>,
    /// Of the last event of the append.
    pub version: u64,
    /// Whether an earlier request wrote it.
    pub replayed: bool,
}

/// The shard in which a stream that is no saga lies.
#[must_use]
pub fn shard_of_stream(name: &str, shards: u16) -> Shard {
    let digest = Sha256::digest(name);
    Shard(u16::from_be_bytes([digest[0], digest[1]]) % shards)
}
