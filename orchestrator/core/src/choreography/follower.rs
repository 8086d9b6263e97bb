//! The fold of a saga's stream as it is read over HTTP or from a bus: late, repeatedly, and with holes.

use alloc::{
    borrow::ToOwned,
    boxed::Box,
    collections::BTreeMap,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use serde_json::value::{RawValue, to_raw_value};

use super::{Duty, duties};
use crate::{
    definition::Definition,
    event::{Event, UnreadableEvent, upcast},
    ids::SagaId,
    state::{BadStream, SagaState},
    time::Timestamp,
};

/// What a participant knows of one saga.
#[derive(Clone, Debug)]
pub struct Follower {
    saga: SagaId,
    definition: Arc<Definition>,
    /// None before the first event.
    state: Option<SagaState>,
}

/// What became of an event that was handed to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It was the next one.
    Applied,
    /// It was known already.
    Old,
    /// Others come before it, from `expected` on: read the stream.
    Gap { expected: u64 },
}

/// Why a saga cannot be followed by this participant. It must not act on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotFollow {
    #[error(transparent)]
    Unreadable(#[from] UnreadableEvent),
    #[error(transparent)]
    Broken(#[from] BadStream),
}

/// Which definition a saga keeps to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    pub definition: String,
    pub version: u32,
    pub hash: String,
}

impl Pinned {
    /// From a stream's first event.
    ///
    /// # Errors
    ///
    /// When this is not the event that begins a saga.
    pub fn by(kind: &str, data: &str) -> Result<Self, CannotFollow> {
        match read(kind, data)? {
            Event::SagaStarted(started) => Ok(Self {
                definition: started.definition,
                version: started.definition_version,
                hash: started.definition_hash,
            }),
            _ => Err(BadStream::NoStart.into()),
        }
    }
}

impl Follower {
    #[must_use]
    pub const fn new(saga: SagaId, definition: Arc<Definition>) -> Self {
        Self { saga, definition, state: None }
    }

    /// Takes in one event: its version, kind, data (times as numbers or as RFC 3339) and time.
    ///
    /// # Errors
    ///
    /// When the event cannot be read by this version of the engine, or the stream is not of the definition. What was
    /// known stays known.
    pub fn follow(&mut self, version: u64, kind: &str, data: &str, at: Timestamp) -> Result<Followed, CannotFollow> {
        let expected = self.version() + 1;
        if version != expected {
            return Ok(if version < expected { Followed::Old } else { Followed::Gap { expected } });
        }
        let event = read(kind, data)?;
        match (&mut self.state, &event) {
            (None, Event::SagaStarted(started)) => {
                self.state = Some(SagaState::started(&self.definition, self.saga, started, at)?);
            }
            (None, _) => return Err(BadStream::NoStart.into()),
            (Some(state), event) => state.evolve(&self.definition, event, at)?,
        }
        Ok(Followed::Applied)
    }

    /// Of the last event taken in; 0 before the first.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.version)
    }

    #[must_use]
    pub const fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    #[must_use]
    pub const fn state(&self) -> Option<&SagaState> {
        self.state.as_ref()
    }

    /// What the participant `service` owes the saga by now.
    #[must_use]
    pub fn duties(&self, service: &str) -> Vec<Duty> {
        self.state.as_ref().map(|state| duties(&self.definition, state, service)).unwrap_or_default()
    }
}

/// Fields of events that hold a time, which the log keeps as a number and the API tells as text.
const TIMES: [&str; 4] = ["called_at", "deadline_at", "next_at", "poll_at"];

fn read(kind: &str, data: &str) -> Result<Event, UnreadableEvent> {
    let unreadable = |error: &dyn ToString| UnreadableEvent::Data { kind: kind.to_owned(), error: error.to_string() };
    // Not through a tree: inputs and outputs keep their text.
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(data).map_err(|error| unreadable(&error))?;
    for name in TIMES {
        if let Some(value) = fields.get_mut(name)
            && let Ok(text) = serde_json::from_str::<String>(value.get())
        {
            let at: Timestamp = text.parse().map_err(|error| unreadable(&error))?;
            *value = to_raw_value(&at).map_err(|error| unreadable(&error))?;
        }
    }
    let data = serde_json::to_string(&fields).map_err(|error| unreadable(&error))?;
    // Skald tells every event in the newest form it knows, and is not older than its participants.
    Event::parse(kind, upcast::newest(kind), &data)
}
