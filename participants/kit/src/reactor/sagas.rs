//! What is known of the sagas: each stream folded as far as it was read.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use skald_core::{
    choreography::{Followed, Follower, Pinned},
    definition::Definition,
    ids::Operation,
    state::SagaState,
    time::Timestamp,
};

use super::NotNow;
use crate::{bus::Delivery, events::Client, events::Event, recent::Recent};

/// Sagas that are kept in memory; others are read anew.
const KEPT: usize = 5_000;
/// More versions of definitions than anyone has at work.
const DEFINITIONS_MAX: usize = 1_000;

/// A saga as far as its stream was read.
#[derive(Debug, Clone)]
pub(super) struct Saga {
    pub(super) stream: Arc<str>,
    pub(super) follower: Arc<Follower>,
    /// The id of the last event.
    pub(super) last_event: Arc<str>,
}

impl Saga {
    pub(super) fn definition(&self) -> &Definition {
        self.follower.definition()
    }

    /// What is kept has begun.
    pub(super) fn state(&self) -> Result<&SagaState, NotNow> {
        self.follower.state().ok_or_else(|| NotNow::because("the saga has not begun"))
    }
}

/// A saga, and what was done for it in this process.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) saga: Saga,
    /// Operations whose end is in the outbox, or past it.
    pub(super) done: BTreeSet<(Arc<str>, Operation)>,
}

pub(super) struct Sagas {
    client: Client,
    known: Mutex<Recent<Arc<str>, Known>>,
    definitions: Mutex<HashMap<(String, u32), Arc<Definition>>>,
}

impl Sagas {
    pub(super) fn new(client: Client) -> Self {
        Self { client, known: Mutex::new(Recent::new(KEPT)), definitions: Mutex::default() }
    }

    /// The saga with the events that came taken in, and whatever is missing before them. `anew`: with everything that
    /// the store has, and nothing taken as done.
    pub(super) async fn catch_up(&self, stream: &str, deliveries: &[Delivery], anew: bool) -> Result<Known, NotNow> {
        let kept = self.known.lock().unwrap_or_else(PoisonError::into_inner).take(stream);
        let mut known = match (kept, deliveries.first()) {
            (Some(known), _) => known,
            // Handed out before, it is probably not the last one by now.
            (None, Some(Delivery { event, tries: 1, .. })) if event.version == 1 => self.begin(event).await?,
            (None, _) => self.read(stream).await?,
        };
        if anew {
            known.done.clear();
            self.read_on(&mut known).await?;
        }
        for Delivery { event, .. } in deliveries {
            if let Followed::Gap { .. } = known.follow(event)? {
                self.read_on(&mut known).await?;
            }
        }
        Ok(known)
    }

    /// Keeps what is known for the next event; of an ended saga there is none to wait for.
    pub(super) fn keep(&self, stream: &str, known: Known) {
        if known.saga.follower.state().is_some_and(|state| !state.status.is_ended()) {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).put(stream.into(), known);
        }
    }

    /// Reads a saga from its first event on.
    pub(super) async fn read(&self, stream: &str) -> Result<Known, NotNow> {
        let events = self.client.stream(stream, 0).await.map_err(NotNow::because)?;
        let first = events.first().ok_or_else(|| NotNow::because("the store has no such stream"))?;
        let mut known = self.begin(first).await?;
        events.iter().skip(1).try_for_each(|event| known.follow(event).map(drop))?;
        Ok(known)
    }

    async fn read_on(&self, known: &mut Known) -> Result<(), NotNow> {
        let version = known.saga.follower.version();
        let events = self.client.stream(&known.saga.stream, version).await.map_err(NotNow::because)?;
        events.iter().try_for_each(|event| known.follow(event).map(drop))
    }

    async fn begin(&self, first: &Event) -> Result<Known, NotNow> {
        let saga = first.stream.parse().map_err(|_| NotNow::because("the stream is no saga's"))?;
        let pinned = Pinned::by(&first.kind, first.data.get()).map_err(NotNow::because)?;
        let follower = Follower::new(saga, self.definition(&pinned).await?);
        let last_event = Arc::from(first.id.as_str());
        let saga = Saga { stream: first.stream.as_str().into(), follower: Arc::new(follower), last_event };
        let mut known = Known { saga, done: BTreeSet::new() };
        known.follow(first)?;
        Ok(known)
    }

    async fn definition(&self, pinned: &Pinned) -> Result<Arc<Definition>, NotNow> {
        let name = (pinned.definition.clone(), pinned.version);
        let known = self.definitions.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        if let Some(definition) = known {
            return Ok(definition);
        }
        let document = self.client.definition(&name.0, name.1).await.map_err(NotNow::because)?;
        let definition = Definition::parse(document.get(), None).map_err(NotNow::because)?;
        let definition = Arc::new(definition);
        let mut definitions = self.definitions.lock().unwrap_or_else(PoisonError::into_inner);
        if definitions.len() >= DEFINITIONS_MAX {
            definitions.clear();
        }
        definitions.insert(name, definition.clone());
        Ok(definition)
    }
}

impl Known {
    fn follow(&mut self, event: &Event) -> Result<Followed, NotNow> {
        let at = Timestamp::from_micros(event.time.timestamp_micros());
        // Copied only while somebody still looks at what was known before.
        let follower = Arc::make_mut(&mut self.saga.follower);
        let followed = follower.follow(event.version, &event.kind, event.data.get(), at).map_err(NotNow::because)?;
        if followed == Followed::Applied {
            self.saga.last_event = event.id.as_str().into();
            if event.kind == "StepRetried" {
                // An operator wants it tried again, whatever was done before.
                self.done.clear();
            }
        }
        Ok(followed)
    }
}
