//! Identities: sagas, the shard each lies in, and the key under which a participant knows a call.

use alloc::string::String;
use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::{Uuid, fmt::Hyphenated};

use crate::time::Timestamp;

/// A saga's id: a UUIDv7, so ids sort by creation time and tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SagaId(Uuid);

impl SagaId {
    /// Makes the id of a saga created at `now` that lies in `shard` of `shards`.
    ///
    /// `entropy` must be fresh random bytes. Its last two bytes are bent so that [`SagaId::shard`] finds the shard
    /// again from the id alone.
    #[must_use]
    pub fn new(now: Timestamp, entropy: [u8; 10], shard: Shard, shards: u16) -> Self {
        debug_assert!(shard.0 < shards, "shard {shard} of {shards}");
        let mut random = entropy;
        let drawn = u16::from_be_bytes([random[8], random[9]]);
        let floor = (drawn - drawn % shards).min(u16::MAX - shards + 1);
        let bent = floor - floor % shards + shard.0;
        [random[8], random[9]] = bent.to_be_bytes();
        let millis = u64::try_from(now.as_micros() / 1000).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// What it is displayed as, written on the stack.
    pub fn write(self, text: &mut [u8; Hyphenated::LENGTH]) -> &str {
        self.0.hyphenated().encode_lower(text)
    }

    #[must_use]
    pub const fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    #[must_use]
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }

    /// The shard this saga lies in, of `shards`.
    #[must_use]
    pub fn shard(self, shards: u16) -> Shard {
        let bytes = self.0.as_bytes();
        Shard(u16::from_be_bytes([bytes[14], bytes[15]]) % shards)
    }
}

impl fmt::Display for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SagaId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(Self)
    }
}

/// A partition of the log, `0..shards`, with one writer at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shard(pub u16);

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The term of one ownership of a shard. It only grows; every commit is fenced by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub i64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which of a step's calls: the forward one or the one that undoes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Action,
    Compensation,
}

impl Operation {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Compensation => "compensation",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The idempotency key of one operation, the same on every attempt: `<saga>:<step>:<action|compensation>`.
#[must_use]
pub fn call_key(saga: SagaId, step: &str, operation: Operation) -> String {
    let mut id = [0; Hyphenated::LENGTH];
    [saga.write(&mut id), ":", step, ":", operation.as_str()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_falls_in_the_shard_it_was_made_for() {
        for shards in [1, 2, 3, 16, 1000, u16::MAX] {
            for shard in [0, shards / 2, shards - 1] {
                for fill in [0, 1, 0x7f, 0xff] {
                    let id =
                        SagaId::new(Timestamp::from_micros(1_700_000_000_000_000), [fill; 10], Shard(shard), shards);
                    assert_eq!(id.shard(shards), Shard(shard), "{id} of {shards}");
                    assert_eq!(id.as_uuid().get_version_num(), 7);
                }
            }
        }
    }
}
