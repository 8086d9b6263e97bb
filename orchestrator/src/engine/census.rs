//! How many sagas of the owned shards are unfinished, and which need an operator, by mode: for the metrics.

use std::collections::{BTreeMap, HashMap};

use skald_core::{
    event::Mode,
    ids::{SagaId, Shard},
    shard::batch::Transition,
    state::{SagaRow, Status},
};

use crate::storage::Unfinished;

/// See the module. It counts what it is told: the shell tells it of every shard that comes and goes, and of every commit.
#[derive(Debug)]
pub(super) struct Census {
    /// Shards of the database.
    shards: u16,
    unfinished: HashMap<Shard, Counts>,
    /// Of all owned shards.
    in_all: Counts,
    parked: BTreeMap<SagaId, Mode>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    orchestrated: usize,
    choreographed: usize,
}

impl Counts {
    const fn get(self, mode: Mode) -> usize {
        match mode {
            Mode::Orchestrated => self.orchestrated,
            Mode::Choreographed => self.choreographed,
        }
    }

    /// After one part of it went from `before` to `after`.
    const fn changed(self, before: Self, after: Self) -> Self {
        Self {
            orchestrated: self.orchestrated - before.orchestrated + after.orchestrated,
            choreographed: self.choreographed - before.choreographed + after.choreographed,
        }
    }

    const fn of(&mut self, mode: Mode) -> &mut usize {
        match mode {
            Mode::Orchestrated => &mut self.orchestrated,
            Mode::Choreographed => &mut self.choreographed,
        }
    }
}

impl Census {
    pub fn new(shards: u16) -> Self {
        Self { shards, unfinished: HashMap::new(), in_all: Counts::default(), parked: BTreeMap::new() }
    }

    /// The shard is owned from now on, with all that is unfinished in it.
    pub fn own(&mut self, shard: Shard, unfinished: &[Unfinished]) {
        let mut counts = Counts::default();
        for saga in unfinished {
            *counts.of(saga.mode) += 1;
            if saga.status == Status::Parked {
                self.parked.insert(saga.id, saga.mode);
            }
        }
        let before = self.unfinished.insert(shard, counts).unwrap_or_default();
        self.in_all = self.in_all.changed(before, counts);
    }

    /// The shards are not owned any more.
    pub fn forget(&mut self, shards: &[Shard]) {
        for shard in shards {
            let before = self.unfinished.remove(shard).unwrap_or_default();
            self.in_all = self.in_all.changed(before, Counts::default());
        }
        self.parked.retain(|saga, _| !shards.contains(&saga.shard(self.shards)));
    }

    pub fn committed(&mut self, transition: &Transition) {
        self.count(transition.shard, &transition.row, transition.creates());
    }

    fn count(&mut self, shard: Shard, row: &SagaRow, created: bool) {
        match row.status {
            Status::Parked => self.parked.insert(row.id, row.mode),
            _ => self.parked.remove(&row.id),
        };
        if let Some(counts) = self.unfinished.get_mut(&shard) {
            let before = *counts;
            let count = counts.of(row.mode);
            *count = (*count + usize::from(created)).saturating_sub(usize::from(row.status.is_ended()));
            self.in_all = self.in_all.changed(before, *counts);
        }
    }

    pub const fn unfinished(&self, mode: Mode) -> usize {
        self.in_all.get(mode)
    }

    pub fn parked(&self, mode: Mode) -> usize {
        self.parked.values().filter(|parked| **parked == mode).count()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use skald_core::time::Timestamp;

    use super::*;

    const SHARDS: u16 = 4;
    const OTHER: Shard = Shard(3);
    const AT: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn unfinished(number: u8, shard: Shard, status: Status, mode: Mode) -> Unfinished {
        Unfinished { id: SagaId::new(AT, [number; 10], shard, SHARDS), status, mode, wake_at: None }
    }

    fn row(saga: Unfinished) -> SagaRow {
        SagaRow {
            id: saga.id,
            definition: Arc::from("checkout"),
            definition_version: 1,
            mode: saga.mode,
            status: saga.status,
            state: String::new(),
            version: 1,
            correlation_id: Arc::from(""),
            failure: None,
            created_at: AT,
            updated_at: AT,
            ended_at: None,
            deadline_at: None,
            wake_at: None,
        }
    }

    fn counts(census: &Census) -> [usize; 4] {
        let (orchestrated, choreographed) = (Mode::Orchestrated, Mode::Choreographed);
        [
            census.unfinished(orchestrated),
            census.unfinished(choreographed),
            census.parked(orchestrated),
            census.parked(choreographed),
        ]
    }

    #[test]
    fn sagas_are_counted_by_mode_while_their_shard_is_owned() {
        let mut census = Census::new(SHARDS);
        let one = Shard(1);
        census.own(
            one,
            &[
                unfinished(1, one, Status::Parked, Mode::Choreographed),
                unfinished(2, one, Status::Running, Mode::Choreographed),
                unfinished(3, one, Status::Running, Mode::Orchestrated),
            ],
        );
        census.own(OTHER, &[unfinished(4, OTHER, Status::Parked, Mode::Orchestrated)]);
        assert_eq!(counts(&census), [2, 2, 1, 1]);

        let begun = row(unfinished(5, one, Status::Running, Mode::Choreographed));
        census.count(one, &begun, true);
        assert_eq!(counts(&census), [2, 3, 1, 1]);
        let parked = SagaRow { status: Status::Parked, ..begun.clone() };
        census.count(one, &parked, false);
        assert_eq!(counts(&census), [2, 3, 1, 2]);
        census.count(one, &SagaRow { status: Status::Completed, ..begun }, false);
        assert_eq!(counts(&census), [2, 2, 1, 1]);

        census.forget(&[one]);
        assert_eq!(counts(&census), [1, 0, 1, 0]);
    }
}
