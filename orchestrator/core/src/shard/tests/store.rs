//! A store in memory with the semantics that the real ones promise.

use alloc::{collections::BTreeMap, string::String, sync::Arc, vec::Vec};

use crate::{
    definition::Definition,
    event::{Event, Recorded},
    ids::{Epoch, SagaId, Shard},
    shard::batch::{Append, AppendedEvent, Batch, CommitError, StreamAsk, StreamHead, StreamLook},
    state::{SagaRow, SagaState},
    time::Timestamp,
};

pub(super) const SHARDS: u16 = 3;

#[derive(Debug)]
pub(super) struct Store {
    pub definition: Arc<Definition>,
    pub shards: BTreeMap<Shard, (Epoch, i64)>,
    pub rows: BTreeMap<SagaId, SagaRow>,
    pub events: Vec<Recorded>,
    pub named: BTreeMap<Arc<str>, Named>,
    keys: BTreeMap<(Arc<str>, String), SagaId>,
}

/// A stream that is no saga.
#[derive(Debug)]
pub(super) struct Named {
    pub id: SagaId,
    pub shard: Shard,
    pub events: Vec<Placed>,
}

#[derive(Debug)]
pub(super) struct Placed {
    pub position: i64,
    pub epoch: Epoch,
    pub event: AppendedEvent,
}

/// The type of events that no batch may hold.
pub(super) const UNWRITABLE: &str = "Unwritable";

impl Store {
    pub fn new(definition: Arc<Definition>) -> Self {
        let shards = (0..SHARDS).map(|shard| (Shard(shard), (Epoch(0), 0))).collect();
        Self {
            definition,
            shards,
            rows: BTreeMap::new(),
            events: Vec::new(),
            named: BTreeMap::new(),
            keys: BTreeMap::new(),
        }
    }

    pub fn take(&mut self, shard: Shard) -> Epoch {
        let (epoch, _) = self.shards.get_mut(&shard).unwrap();
        epoch.0 += 1;
        *epoch
    }

    pub fn unfinished(&self, shard: Shard) -> Vec<(SagaId, Option<Timestamp>)> {
        self.rows
            .values()
            .filter(|row| row.id.shard(SHARDS) == shard && !row.status.is_ended())
            .map(|row| (row.id, row.wake_at))
            .collect()
    }

    pub fn stream(&self, saga: SagaId) -> Vec<Recorded> {
        self.events.iter().filter(|event| event.stream == saga).cloned().collect()
    }

    pub fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let lost: Vec<Shard> = batch
            .fences
            .iter()
            .filter(|fence| self.shards[&fence.shard].0 != fence.epoch)
            .map(|fence| fence.shard)
            .collect();
        if !lost.is_empty() {
            return Err(CommitError::Fenced(lost));
        }
        for transition in &batch.transitions {
            let before = self.rows.get(&transition.row.id).map_or(0, |row| row.version);
            assert_eq!(transition.events[0].version, before + 1, "decided on uncommitted or outdated state");
            let taken = |key: &crate::shard::batch::StartKey| {
                self.keys.contains_key(&(Arc::clone(&key.definition), key.key.clone()))
            };
            if transition.start_key.as_ref().is_some_and(taken) {
                return Err(CommitError::Refused(String::from("the key exists")));
            }
        }
        for append in &batch.appends {
            assert_eq!(append.version_before, self.version_of(&append.name), "decided on an outdated look");
            if append.events.iter().any(|event| &*event.type_name == UNWRITABLE) {
                return Err(CommitError::Refused(String::from("it cannot be written")));
            }
        }
        for transition in &batch.transitions {
            self.write(transition, batch);
        }
        for append in &batch.appends {
            let fence = batch.fences.iter().find(|fence| fence.shard == append.shard).unwrap();
            self.append(append, fence.epoch);
        }
        Ok(())
    }

    pub fn version_of(&self, stream: &str) -> u64 {
        self.named.get(stream).map_or(0, |named| named.events.len() as u64)
    }

    pub fn append(&mut self, append: &Append, epoch: Epoch) {
        let (_, head) = self.shards.get_mut(&append.shard).unwrap();
        let new = || Named { id: append.stream, shard: append.shard, events: Vec::new() };
        let named = self.named.entry(Arc::clone(&append.name)).or_insert_with(new);
        assert_eq!((named.id, named.shard), (append.stream, append.shard));
        for event in &append.events {
            *head += 1;
            assert_eq!(event.version, named.events.len() as u64 + 1, "invariant 7");
            let known = named.events.iter().any(|placed| placed.event.event_id == event.event_id);
            assert!(!known, "{} is in the stream already", event.event_id);
            named.events.push(Placed { position: *head, epoch, event: event.clone() });
        }
    }

    pub fn look_up(&self, ask: &StreamAsk) -> StreamLook {
        let named = self.named.get(&ask.name);
        let head = named.map(|named| {
            let last = &named.events.last().unwrap().event;
            StreamHead { id: named.id, version: last.version, updated_at: last.occurred_at }
        });
        let events = named.map_or(&[][..], |named| &named.events);
        let known = events.iter().filter(|placed| ask.event_ids.contains(&placed.event.event_id));
        let known = known.map(|placed| (Arc::clone(&placed.event.event_id), placed.event.version)).collect();
        StreamLook { name: Arc::clone(&ask.name), head, known }
    }

    fn write(&mut self, transition: &crate::shard::batch::Transition, batch: &Batch) {
        let (_, head) = self.shards.get_mut(&transition.shard).unwrap();
        let fence = batch.fences.iter().find(|fence| fence.shard == transition.shard).unwrap();
        for event in &transition.events {
            *head += 1;
            self.events.push(Recorded {
                stream: transition.row.id,
                version: event.version,
                shard: transition.shard,
                position: *head,
                epoch: fence.epoch,
                occurred_at: event.occurred_at,
                type_name: Arc::clone(&event.type_name),
                actor: event.actor.as_deref().map(String::from),
                event: Event::parse(event.event.kind(), event.event.schema_version(), &event.event.data()).unwrap(),
            });
        }
        self.rows.insert(transition.row.id, transition.row.clone());
        if let Some(key) = &transition.start_key {
            self.keys.insert((Arc::clone(&key.definition), key.key.clone()), transition.row.id);
        }
    }

    /// Invariants 7, 8 and 9.
    pub fn check_log(&self) {
        for shard in self.shards.keys() {
            let of_sagas = self.events.iter().filter(|event| event.shard == *shard);
            let named = self.named.values().filter(|named| named.shard == *shard).flat_map(|named| &named.events);
            let mut log: Vec<(i64, Epoch)> = of_sagas.map(|event| (event.position, event.epoch)).collect();
            log.extend(named.map(|placed| (placed.position, placed.epoch)));
            log.sort_unstable();
            for (index, (position, _)) in log.iter().enumerate() {
                assert_eq!(*position, index as i64 + 1, "invariant 7: gapless positions");
            }
            assert!(log.is_sorted_by_key(|(_, epoch)| *epoch), "invariant 9");
        }
        for row in self.rows.values() {
            let state = SagaState::fold(&self.definition, &self.stream(row.id), None).expect("invariant 7");
            assert_eq!(state.row(&self.definition), *row, "invariant 8");
        }
    }
}
