//! A store in memory, for tests of what stands on the trait: simple, and as strict as the real ones about fences,
//! versions and start keys. Nothing survives it.

mod access;
mod subjects;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use skald_core::{
    event::Recorded,
    ids::{Epoch, SagaId, Shard},
    shard::{
        batch::{Append, AppendedEvent, Batch, CommitError, Fence, StreamAsk, StreamHead, StreamLook, Transition},
        leases::LeaseView,
    },
    state::SagaRow,
    time::{Millis, Timestamp},
};

use super::{
    KeyedSaga, OwnedShard, Owner, Pause, PauseKind, Registration, ReplicaRow, SagaFilter, ShardRow, Store, StoreError,
    StoredDefinition, Tally, Unfinished, VERSION,
    access::{ApiKey, AuditEntry},
};
use crate::clock::Clock;

/// See the module.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    kept: Mutex<Kept>,
    down: AtomicBool,
    streams_read: AtomicUsize,
}

#[derive(Debug, Default)]
struct Kept {
    shards: Vec<ShardRow>,
    replicas: Vec<ReplicaRow>,
    rows: BTreeMap<SagaId, SagaRow>,
    streams: BTreeMap<SagaId, Vec<Recorded>>,
    /// Streams that are no sagas.
    named: BTreeMap<Arc<str>, Named>,
    keys: BTreeMap<(String, String), KeyedSaga>,
    definitions: BTreeMap<(String, u32), StoredDefinition>,
    pauses: Vec<Pause>,
    subject_keys: Vec<subjects::KeptKey>,
    api_keys: Vec<ApiKey>,
    audit_log: Vec<AuditEntry>,
    /// How the next commits end, instead of by their content.
    faults: Vec<(CommitError, Applied)>,
}

/// A stream that is no saga.
#[derive(Debug)]
struct Named {
    id: SagaId,
    events: Vec<Appended>,
}

/// An event of a stream that is no saga, in its place.
#[derive(Clone, Debug)]
pub struct Appended {
    pub shard: Shard,
    pub position: i64,
    pub event: AppendedEvent,
}

/// Whether a commit that is reported as failed was written all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Yes,
    No,
}

impl MemoryStore {
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, shards: u16) -> Self {
        let row = |number| ShardRow {
            shard: Shard(number),
            epoch: Epoch(0),
            owner: None,
            owner_url: None,
            lease_until: Timestamp::default(),
            head: 0,
        };
        let kept = Kept { shards: (0..shards).map(row).collect(), ..Kept::default() };
        Self { clock, kept: Mutex::new(kept), down: AtomicBool::new(false), streams_read: AtomicUsize::new(0) }
    }

    /// How often whole streams were read.
    pub fn streams_read(&self) -> usize {
        self.streams_read.load(Ordering::Relaxed)
    }

    /// From now on every call fails as if the database were gone, or none does.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    /// Lets a coming commit end this way; the last one given comes first.
    pub fn fail_commit(&self, error: CommitError, applied: Applied) {
        self.kept().faults.push((error, applied));
    }

    /// The events of a stream that is no saga.
    pub fn appended(&self, stream: &str) -> Vec<Appended> {
        self.kept().named.get(stream).map(|named| named.events.clone()).unwrap_or_default()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("nothing panics while it holds this lock")
    }

    fn up(&self) -> Result<MutexGuard<'_, Kept>, StoreError> {
        if self.down.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut));
        }
        Ok(self.kept())
    }
}

impl Kept {
    fn fenced(&self, batch: &Batch) -> Vec<Shard> {
        let holds = |fence: &&Fence| self.shards.iter().any(|row| row.shard == fence.shard && row.epoch == fence.epoch);
        batch.fences.iter().filter(|fence| !holds(fence)).map(|fence| fence.shard).collect()
    }

    fn refusal(&mut self, transition: &Transition) -> Option<String> {
        let id = transition.row.id;
        let version = self.rows.get(&id).map_or(0, |row| row.version);
        if transition.events.first().map(|event| event.version) != Some(version + 1) {
            return Some(format!("a version of {id} is taken"));
        }
        if let Some(key) = &transition.sealed_under
            && self.under_key(key).is_none()
        {
            return Some(format!("the key {key} was destroyed"));
        }
        let key = transition.start_key.as_ref()?;
        let taken = self.keys.contains_key(&(key.definition.to_string(), key.key.clone()));
        taken.then(|| format!("the start key {} is taken", key.key))
    }

    fn apply(&mut self, transition: &Transition) {
        let id = transition.row.id;
        let shard = self.shards.iter_mut().find(|row| row.shard == transition.shard).expect("the fence holds");
        let stream = self.streams.entry(id).or_default();
        for event in &transition.events {
            shard.head += 1;
            stream.push(Recorded {
                stream: id,
                version: event.version,
                shard: shard.shard,
                position: shard.head,
                epoch: shard.epoch,
                occurred_at: event.occurred_at,
                type_name: Arc::clone(&event.type_name),
                actor: event.actor.as_deref().map(str::to_owned),
                event: event.event.clone(),
            });
        }
        if let Some(key) = &transition.start_key {
            let keyed = KeyedSaga { saga: id, fingerprint: key.fingerprint };
            self.keys.insert((key.definition.to_string(), key.key.clone()), keyed);
        }
        if let Some(sagas) = transition.sealed_under.as_deref().and_then(|key| self.under_key(key)) {
            sagas.push(id);
        }
        self.rows.insert(id, transition.row.clone());
    }

    fn append_refusal(&self, append: &Append) -> Option<String> {
        let events = self.named.get(&append.name).map_or(&[][..], |named| &named.events);
        let is_known = |event: &AppendedEvent| events.iter().any(|known| known.event.event_id == event.event_id);
        let follows = append.version_before == events.len() as u64;
        let refused = !follows || append.events.iter().any(is_known);
        refused.then(|| format!("a version or an event id of {} is taken", append.name))
    }

    fn append(&mut self, append: &Append) {
        let shard = self.shards.iter_mut().find(|row| row.shard == append.shard).expect("the fence holds");
        let new = || Named { id: append.stream, events: Vec::new() };
        let named = self.named.entry(Arc::clone(&append.name)).or_insert_with(new);
        for event in &append.events {
            shard.head += 1;
            named.events.push(Appended { shard: shard.shard, position: shard.head, event: event.clone() });
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let fenced = self.fenced(batch);
        if !fenced.is_empty() {
            return Err(CommitError::Fenced(fenced));
        }
        if let Some(reason) = batch.transitions.iter().find_map(|transition| self.refusal(transition)) {
            return Err(CommitError::Refused(reason));
        }
        if let Some(reason) = batch.appends.iter().find_map(|append| self.append_refusal(append)) {
            return Err(CommitError::Refused(reason));
        }
        for transition in &batch.transitions {
            self.apply(transition);
        }
        for append in &batch.appends {
            self.append(append);
        }
        Ok(())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.up().map(drop)
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        self.up().map(drop)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.up().map(drop)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.up().map(|_| self.clock.now())
    }

    async fn secret(&self) -> Result<[u8; 32], StoreError> {
        self.up().map(|_| [7; 32])
    }

    async fn shards(&self) -> Result<Vec<ShardRow>, StoreError> {
        Ok(self.up()?.shards.clone())
    }

    async fn take_shards(
        &self,
        owner: &Owner,
        only: Option<&[Shard]>,
        lease: Millis,
    ) -> Result<Vec<OwnedShard>, StoreError> {
        let now = self.clock.now();
        let mut kept = self.up()?;
        let free = |row: &&mut ShardRow| {
            only.is_none_or(|only| only.contains(&row.shard))
                && (row.lease_until <= now || row.owner.as_ref() == Some(&owner.id))
        };
        let take = |row: &mut ShardRow| {
            let died = row.owner.as_ref().is_some_and(|former| *former != owner.id);
            row.epoch = Epoch(row.epoch.0 + 1);
            row.owner = Some(owner.id.clone());
            row.owner_url.clone_from(&owner.url);
            row.lease_until = now.plus(lease);
            OwnedShard { shard: row.shard, epoch: row.epoch, head: row.head, died }
        };
        Ok(kept.shards.iter_mut().filter(free).map(take).collect())
    }

    async fn renew(&self, owner: &Owner, fences: &[Fence], lease: Millis) -> Result<Vec<Shard>, StoreError> {
        let until = self.clock.now().plus(lease);
        let mut kept = self.up()?;
        let mine = |row: &&mut ShardRow| {
            row.owner.as_ref() == Some(&owner.id)
                && fences.iter().any(|fence| (fence.shard, fence.epoch) == (row.shard, row.epoch))
        };
        let renew = |row: &mut ShardRow| {
            row.lease_until = until;
            row.shard
        };
        Ok(kept.shards.iter_mut().filter(mine).map(renew).collect())
    }

    async fn release_shards(&self, owner: &Owner, fences: &[Fence]) -> Result<(), StoreError> {
        let held = |row: &&mut ShardRow| {
            row.owner.as_ref() == Some(&owner.id)
                && fences.iter().any(|fence| (fence.shard, fence.epoch) == (row.shard, row.epoch))
        };
        for row in self.up()?.shards.iter_mut().filter(held) {
            row.owner = None;
            row.lease_until = Timestamp::default();
        }
        Ok(())
    }

    async fn heartbeat(&self, owner: &Owner, lease: Millis) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut kept = self.up()?;
        let started_at = kept.replicas.iter().find(|row| row.id == owner.id).map_or(now, |row| row.started_at);
        kept.replicas.retain(|row| row.id != owner.id);
        kept.replicas.push(ReplicaRow {
            id: owner.id.clone(),
            url: owner.url.clone(),
            version: VERSION.to_owned(),
            started_at,
            seen_until: now.plus(lease),
            alive: true,
        });
        kept.replicas.sort_by(|a, b| (a.started_at, &a.id).cmp(&(b.started_at, &b.id)));
        Ok(())
    }

    async fn leave(&self, owner: &Owner) -> Result<(), StoreError> {
        self.up()?.replicas.retain(|row| row.id != owner.id);
        Ok(())
    }

    async fn lease_view(&self, owner: &Owner) -> Result<LeaseView, StoreError> {
        let now = self.clock.now();
        let kept = self.up()?;
        let is_mine = |row: &&ShardRow| row.owner.as_ref() == Some(&owner.id);
        let is_free = |row: &&ShardRow| !is_mine(row) && (row.owner.is_none() || row.lease_until <= now);
        let live = kept.replicas.iter().filter(|row| row.seen_until > now);
        Ok(LeaseView {
            replicas: live.map(|row| row.id.clone()).collect(),
            free: kept.shards.iter().filter(is_free).map(|row| row.shard).collect(),
            mine: kept.shards.iter().filter(is_mine).map(|row| Fence { shard: row.shard, epoch: row.epoch }).collect(),
        })
    }

    async fn replicas(&self) -> Result<Vec<ReplicaRow>, StoreError> {
        let now = self.clock.now();
        let kept = self.up()?;
        Ok(kept.replicas.iter().map(|row| ReplicaRow { alive: row.seen_until > now, ..row.clone() }).collect())
    }

    async fn release(&self, owner: &Owner) -> Result<(), StoreError> {
        for row in self.up()?.shards.iter_mut().filter(|row| row.owner.as_ref() == Some(&owner.id)) {
            row.owner = None;
            row.lease_until = Timestamp::default();
        }
        Ok(())
    }

    async fn bury(&self, id: &str) -> Result<(), StoreError> {
        let mut kept = self.up()?;
        for row in kept.shards.iter_mut().filter(|row| row.owner.as_deref() == Some(id)) {
            row.lease_until = Timestamp::default();
        }
        kept.replicas.retain(|row| row.id != id);
        Ok(())
    }

    async fn commit(&self, batch: &Arc<Batch>) -> Result<(), CommitError> {
        let mut kept = self.up().map_err(|error| CommitError::NotApplied(error.to_string()))?;
        match kept.faults.pop() {
            Some((error, Applied::Yes)) => kept.write(batch).and(Err(error)),
            Some((error, Applied::No)) => Err(error),
            None => kept.write(batch),
        }
    }

    async fn events(&self, saga: SagaId, after: u64, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        let kept = self.up()?;
        let stream = kept.streams.get(&saga).map_or(&[][..], Vec::as_slice);
        Ok(stream.iter().filter(|event| event.version > after).take(limit as usize).cloned().collect())
    }

    async fn streams(&self, sagas: &[SagaId]) -> Result<Vec<Vec<Recorded>>, StoreError> {
        self.streams_read.fetch_add(1, Ordering::Relaxed);
        let kept = self.up()?;
        Ok(sagas.iter().filter_map(|saga| kept.streams.get(saga)).cloned().collect())
    }

    async fn look_up(&self, asks: &[StreamAsk]) -> Result<Vec<StreamLook>, StoreError> {
        let kept = self.up()?;
        let look = |ask: &StreamAsk| {
            let named = kept.named.get(&ask.name);
            let events = named.map_or(&[][..], |named| &named.events);
            let head = named.zip(events.last()).map(|(named, last)| StreamHead {
                id: named.id,
                version: last.event.version,
                updated_at: last.event.occurred_at,
            });
            let known = events.iter().map(|appended| (Arc::clone(&appended.event.event_id), appended.event.version));
            let known = known.filter(|(event_id, _)| ask.event_ids.contains(event_id)).collect();
            StreamLook { name: Arc::clone(&ask.name), head, known }
        };
        Ok(asks.iter().map(look).collect())
    }

    async fn row(&self, saga: SagaId) -> Result<Option<SagaRow>, StoreError> {
        Ok(self.up()?.rows.get(&saga).cloned())
    }

    async fn list(&self, filter: &SagaFilter) -> Result<Vec<SagaRow>, StoreError> {
        let kept = self.up()?;
        let matches = |row: &&SagaRow| {
            (filter.statuses.is_empty() || filter.statuses.contains(&row.status))
                && filter.definition.as_ref().is_none_or(|name| **name == *row.definition)
                && filter.mode.is_none_or(|mode| mode == row.mode)
                && filter.state.as_ref().is_none_or(|state| *state == row.state && !row.status.is_ended())
                && filter.correlation_id.as_ref().is_none_or(|id| **id == *row.correlation_id)
                && filter.created_after.is_none_or(|after| row.created_at > after)
                && filter.created_before.is_none_or(|before| row.created_at < before)
                && filter.before.is_none_or(|before| row.id < before)
        };
        Ok(kept.rows.values().rev().filter(matches).take(filter.limit as usize).cloned().collect())
    }

    async fn unfinished(&self, shard: Shard, after: Option<SagaId>, limit: u32) -> Result<Vec<Unfinished>, StoreError> {
        let kept = self.up()?;
        let shards = u16::try_from(kept.shards.len()).unwrap_or(u16::MAX);
        let wanted = |row: &&SagaRow| {
            row.id.shard(shards) == shard && !row.status.is_ended() && after.is_none_or(|after| row.id > after)
        };
        let unfinished =
            |row: &SagaRow| Unfinished { id: row.id, mode: row.mode, status: row.status, wake_at: row.wake_at };
        Ok(kept.rows.values().filter(wanted).take(limit as usize).map(unfinished).collect())
    }

    async fn tally(&self, now: Timestamp) -> Result<Vec<Tally>, StoreError> {
        let mut tallies: Vec<Tally> = Vec::new();
        for row in self.up()?.rows.values().filter(|row| !row.status.is_ended()) {
            let of_kind = |tally: &Tally| {
                (&*tally.definition, tally.mode, tally.status) == (&*row.definition, row.mode, row.status)
            };
            let place = tallies.iter().position(of_kind).unwrap_or_else(|| {
                let (definition, mode, status) = (row.definition.to_string(), row.mode, row.status);
                tallies.push(Tally { definition, mode, status, sagas: 0, overdue: 0 });
                tallies.len() - 1
            });
            tallies[place].sagas += 1;
            tallies[place].overdue += u64::from(row.deadline_at.is_some_and(|deadline| deadline < now));
        }
        Ok(tallies)
    }

    async fn keyed_saga(&self, definition: &str, key: &str) -> Result<Option<KeyedSaga>, StoreError> {
        Ok(self.up()?.keys.get(&(definition.to_owned(), key.to_owned())).copied())
    }

    async fn register(&self, definition: &StoredDefinition) -> Result<Registration, StoreError> {
        let mut kept = self.up()?;
        let key = (definition.name.clone(), definition.version);
        Ok(match kept.definitions.get(&key) {
            Some(known) if known.hash == definition.hash => Registration::Unchanged,
            Some(_) => Registration::Conflict,
            None => {
                kept.definitions.insert(key, definition.clone());
                Registration::Created
            }
        })
    }

    async fn definitions(&self) -> Result<Vec<StoredDefinition>, StoreError> {
        Ok(self.up()?.definitions.values().cloned().collect())
    }

    async fn pauses(&self) -> Result<Vec<Pause>, StoreError> {
        Ok(self.up()?.pauses.clone())
    }

    async fn pause(&self, pause: &Pause) -> Result<(), StoreError> {
        let mut kept = self.up()?;
        kept.pauses.retain(|other| (other.kind, &other.name) != (pause.kind, &pause.name));
        kept.pauses.push(pause.clone());
        Ok(())
    }

    async fn unpause(&self, kind: PauseKind, name: &str) -> Result<bool, StoreError> {
        let mut kept = self.up()?;
        let before = kept.pauses.len();
        kept.pauses.retain(|pause| (pause.kind, pause.name.as_str()) != (kind, name));
        Ok(kept.pauses.len() < before)
    }
}
