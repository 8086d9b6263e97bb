//! A participant's reactor: what it knows of streams, which dies with its process, and the outbox, which does not. What
//! it did stands in the books of [`participants`](crate::participants), as of any call.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use skald_core::{
    choreography::{Duty, Followed, Follower},
    decide::Report,
    definition::Definition,
    event::Recorded,
    ids::{Operation, SagaId},
    time::Timestamp,
};

use crate::mutants::Mutant;

/// The event that a reactor is told of, by saga and version; delivered again until it is dealt with.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub reactor: usize,
    pub saga: SagaId,
    pub version: u64,
}

/// A report that waits to be taken.
#[derive(Clone, Debug)]
pub struct Entry {
    pub saga: SagaId,
    pub report: Report,
}

/// What a worker of a reactor is at: the saga, the step, and what for.
pub type Task = (SagaId, String, &'static str);

#[derive(Debug)]
pub struct Reactor {
    pub service: &'static str,
    /// How often it was started; what belongs to an earlier run finds nobody.
    pub run: u64,
    pub runs: bool,
    followers: BTreeMap<SagaId, Follower>,
    /// What its workers are at.
    pub at_work: BTreeSet<Task>,
    /// Durable, by the order in which it came.
    pub outbox: BTreeMap<u64, Entry>,
    entries: u64,
    /// When something last went wrong for it.
    pub troubled_at: Timestamp,
    /// It is not started again before the faults stop.
    pub gone_for_long: bool,
}

impl Reactor {
    #[must_use]
    pub fn new(service: &'static str, now: Timestamp) -> Self {
        Self {
            service,
            run: 0,
            runs: true,
            followers: BTreeMap::new(),
            at_work: BTreeSet::new(),
            outbox: BTreeMap::new(),
            entries: 0,
            troubled_at: now,
            gone_for_long: false,
        }
    }

    /// The process is gone, and its memory with it. How many reports went with it: none, unless that is broken on
    /// purpose.
    pub fn die(&mut self, now: Timestamp, mutant: Option<Mutant>) -> u64 {
        self.run += 1;
        self.runs = false;
        self.followers.clear();
        self.at_work.clear();
        self.troubled_at = now;
        if mutant != Some(Mutant::Outbox) {
            return 0;
        }
        core::mem::take(&mut self.outbox).len() as u64
    }

    /// Takes in one event of a stream, as it comes over HTTP: as kind and text.
    ///
    /// # Errors
    ///
    /// When the follower cannot read what the engine wrote.
    pub fn follow(&mut self, definition: &Arc<Definition>, recorded: &Recorded) -> Result<Followed, String> {
        let saga = recorded.stream;
        let follower = self.followers.entry(saga).or_insert_with(|| Follower::new(saga, Arc::clone(definition)));
        let event = &recorded.event;
        let followed = follower.follow(recorded.version, event.kind(), &event.data(), recorded.occurred_at);
        followed.map_err(|error| error.to_string())
    }

    #[must_use]
    pub fn version(&self, saga: SagaId) -> u64 {
        self.followers.get(&saga).map_or(0, Follower::version)
    }

    #[must_use]
    pub fn follower(&self, saga: SagaId) -> Option<&Follower> {
        self.followers.get(&saga)
    }

    #[must_use]
    pub fn duties(&self, saga: SagaId) -> Vec<Duty> {
        self.followers.get(&saga).map(|follower| follower.duties(self.service)).unwrap_or_default()
    }

    /// Keeps a report until it is taken.
    pub fn keep(&mut self, entry: Entry) -> u64 {
        self.entries += 1;
        self.outbox.insert(self.entries, entry);
        self.entries
    }
}

/// What a duty is, for those who look after its worker.
#[must_use]
pub fn task(saga: SagaId, duty: &Duty) -> Task {
    let what = match duty {
        Duty::Act { .. } => "act",
        Duty::Skip { .. } => "skip",
        Duty::Reject { .. } => "reject",
        Duty::Cancel { .. } => "cancel",
        Duty::Undo { .. } => "undo",
    };
    debug_assert!((duty.operation() == Operation::Compensation) == (what == "undo"));
    (saga, duty.step().to_owned(), what)
}
