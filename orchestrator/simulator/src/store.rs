//! The database: shards with lease, epoch and head, sagas with their streams, start keys. Each request is atomic at the
//! moment it arrives, as one statement of the real ones is; what the replica gets to know of it is another matter.

use std::{collections::BTreeMap, fmt, sync::Arc};

use skald_core::{
    event::{Event, Recorded},
    ids::{Epoch, SagaId, Shard},
    shard::{
        batch::{Batch, CommitError, Fence, Transition},
        leases::{LeaseReport, LeaseRequest, LeaseView, Presence, TakenShard},
    },
    state::SagaRow,
    time::{Millis, Timestamp},
};

use crate::mutants::Mutant;

/// One process: the number of its replica, and how often that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pub replica: usize,
    pub run: u64,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}.{}", self.replica, self.run)
    }
}

/// One row is lease, fence and sequencer.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardRow {
    pub epoch: Epoch,
    pub owner: Option<Process>,
    pub lease_until: Timestamp,
    pub head: i64,
}

#[derive(Debug)]
pub struct Stored {
    pub row: SagaRow,
    pub stream: Vec<Recorded>,
}

#[derive(Debug)]
pub struct Store {
    pub shards: Vec<ShardRow>,
    pub sagas: BTreeMap<SagaId, Stored>,
    keys: BTreeMap<(Arc<str>, String), SagaId>,
    /// Who was there until when, by when they were first seen.
    replicas: Vec<(Process, Timestamp)>,
    /// Whether events go through their stored form: slower, and the same in the end.
    as_text: bool,
    mutant: Option<Mutant>,
}

impl Store {
    #[must_use]
    pub fn new(shards: u16, as_text: bool, mutant: Option<Mutant>) -> Self {
        let shards = vec![ShardRow::default(); usize::from(shards)];
        Self { shards, sagas: BTreeMap::new(), keys: BTreeMap::new(), replicas: Vec::new(), as_text, mutant }
    }

    #[must_use]
    pub fn shard(&self, shard: Shard) -> &ShardRow {
        &self.shards[usize::from(shard.0)]
    }

    #[must_use]
    pub fn shard_count(&self) -> u16 {
        u16::try_from(self.shards.len()).expect("a store has few shards")
    }

    #[must_use]
    pub fn keyed(&self, definition: &Arc<str>, key: &str) -> Option<SagaId> {
        self.keys.get(&(Arc::clone(definition), key.to_owned())).copied()
    }

    #[must_use]
    pub fn version(&self, saga: SagaId) -> u64 {
        self.sagas.get(&saga).map_or(0, |saga| saga.row.version)
    }

    #[must_use]
    pub fn stream(&self, saga: SagaId) -> &[Recorded] {
        self.sagas.get(&saga).map_or(&[], |saga| &saga.stream)
    }

    /// Unfinished sagas of a shard, with when each must be looked at.
    pub fn unfinished(&self, shard: Shard) -> impl Iterator<Item = &SagaRow> {
        let shards = self.shard_count();
        let rows = self.sagas.values().map(|saga| &saga.row);
        rows.filter(move |row| !row.status.is_ended() && row.id.shard(shards) == shard)
    }

    /// One round trip of a lease machine: presence, renewals, releases, takes, and then how things stand.
    pub fn keep_leases(&mut self, by: Process, request: &LeaseRequest, now: Timestamp, lease: Millis) -> LeaseReport {
        let until = now.plus(lease);
        match request.presence {
            Presence::Unchanged => {}
            Presence::Heartbeat => match self.replicas.iter_mut().find(|(replica, _)| *replica == by) {
                Some((_, seen_until)) => *seen_until = until,
                None => self.replicas.push((by, until)),
            },
            Presence::Leaving | Presence::Gone => self.replicas.retain(|(replica, _)| *replica != by),
        }
        let renewed =
            request.renew.iter().filter(|fence| self.renew(by, fence, until)).map(|fence| fence.shard).collect();
        let all = self.view(by, now).mine;
        let released = if request.presence == Presence::Gone { &all } else { &request.release };
        released.iter().for_each(|fence| self.release(by, fence));
        let taken = request.take.iter().filter_map(|shard| self.take(by, *shard, now, until)).collect();
        LeaseReport { renewed, taken, view: self.view(by, now) }
    }

    fn held(&mut self, by: Process, fence: &Fence) -> Option<&mut ShardRow> {
        let row = &mut self.shards[usize::from(fence.shard.0)];
        (row.owner == Some(by) && row.epoch == fence.epoch).then_some(row)
    }

    fn renew(&mut self, by: Process, fence: &Fence, until: Timestamp) -> bool {
        self.held(by, fence).map(|row| row.lease_until = until).is_some()
    }

    fn release(&mut self, by: Process, fence: &Fence) {
        if let Some(row) = self.held(by, fence) {
            row.owner = None;
            row.lease_until = Timestamp::default();
        }
    }

    fn take(&mut self, by: Process, shard: Shard, now: Timestamp, until: Timestamp) -> Option<TakenShard> {
        let row = &mut self.shards[usize::from(shard.0)];
        let mine = row.owner == Some(by);
        if !mine && row.owner.is_some() && row.lease_until > now {
            return None;
        }
        let died = row.owner.is_some() && !mine;
        let epoch = Epoch(row.epoch.0 + 1);
        *row = ShardRow { epoch, owner: Some(by), lease_until: until, head: row.head };
        Some(TakenShard { shard, epoch, died })
    }

    fn view(&self, by: Process, now: Timestamp) -> LeaseView {
        let live = self.replicas.iter().filter(|(_, seen_until)| *seen_until > now);
        let mut view =
            LeaseView { replicas: live.map(|(replica, _)| replica.to_string()).collect(), ..LeaseView::default() };
        for (shard, row) in (0..).map(Shard).zip(&self.shards) {
            if row.owner == Some(by) {
                view.mine.push(Fence { shard, epoch: row.epoch });
            } else if row.owner.is_none() || row.lease_until <= now {
                view.free.push(shard);
            }
        }
        view
    }

    /// All of the batch, or nothing.
    ///
    /// # Errors
    ///
    /// When a shard has another epoch by now, or the data contradicts what is written.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let fenced = |fence: &&skald_core::shard::batch::Fence| self.shard(fence.shard).epoch != fence.epoch;
        let lost: Vec<Shard> = batch.fences.iter().filter(fenced).map(|fence| fence.shard).collect();
        if !lost.is_empty() && self.mutant != Some(Mutant::Fence) {
            return Err(CommitError::Fenced(lost));
        }
        if let Some(reason) = batch.transitions.iter().find_map(|transition| self.contradiction(transition)) {
            return Err(CommitError::Refused(reason));
        }
        for transition in &batch.transitions {
            self.write(transition, batch);
        }
        Ok(())
    }

    fn contradiction(&self, transition: &Transition) -> Option<String> {
        let id = transition.row.id;
        let next = self.version(id) + 1;
        if transition.events.first().map(|event| event.version) != Some(next)
            && self.mutant != Some(Mutant::VersionCheck)
        {
            return Some(format!("a version of {id} is taken"));
        }
        let key = transition.start_key.as_ref()?;
        let taken = self.keyed(&key.definition, &key.key).is_some_and(|holder| {
            // Without the check of versions nothing of the same saga is unique.
            holder != id || self.mutant != Some(Mutant::VersionCheck)
        });
        taken.then(|| format!("the start key {} is taken", key.key))
    }

    fn write(&mut self, transition: &Transition, batch: &Batch) {
        let id = transition.row.id;
        let fence = batch.fences.iter().find(|fence| fence.shard == transition.shard);
        let epoch = fence.expect("every shard of a batch has its fence").epoch;
        let as_text = self.as_text;
        let row = &mut self.shards[usize::from(transition.shard.0)];
        let first = row.head + 1;
        row.head += i64::try_from(transition.events.len()).expect("a transition has few events");
        let recorded = transition.events.iter().zip(first..).map(|(event, position)| Recorded {
            stream: id,
            version: event.version,
            shard: transition.shard,
            position,
            epoch,
            occurred_at: event.occurred_at,
            type_name: Arc::clone(&event.type_name),
            actor: event.actor.as_deref().map(str::to_owned),
            event: if as_text { reread(&event.event) } else { event.event.clone() },
        });
        let stored = self.sagas.entry(id).or_insert_with(|| Stored { row: transition.row.clone(), stream: Vec::new() });
        stored.stream.extend(recorded);
        stored.row = transition.row.clone();
        if let Some(key) = &transition.start_key {
            self.keys.insert((Arc::clone(&key.definition), key.key.clone()), id);
        }
    }
}

fn reread(event: &Event) -> Event {
    Event::parse(event.kind(), event.schema_version(), &event.data()).expect("what was written can be read")
}
