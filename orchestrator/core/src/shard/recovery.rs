//! When the sagas that were due at a takeover begin again: spread out, so that participants are not overrun by a replica
//! that takes over many at once, and scattered, so that several replicas doing so do not march in step.

use crate::{
    ids::{Epoch, SagaId},
    time::{Millis, Timestamp},
};

/// How long the sagas taken over so far take to begin.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    until: Timestamp,
}

/// The times at which the sagas of one shard may begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    from: Timestamp,
    length: Millis,
}

impl Recovery {
    /// Makes room for `due` more sagas: a millisecond for each, and at most `ramp` in all.
    pub fn widen(&mut self, due: usize, ramp: Millis, now: Timestamp) -> Window {
        self.until = self.until.max(now).plus(Millis(due as u64)).min(now.plus(ramp));
        Window { from: now, length: now.until(self.until) }
    }
}

impl Window {
    /// Scattered by the saga and the epoch, so that a history can be repeated.
    pub fn place(self, saga: SagaId, epoch: Epoch) -> Timestamp {
        let (high, low) = saga.as_uuid().as_u64_pair();
        let drawn = scatter(high ^ scatter(low ^ epoch.0.unsigned_abs()));
        self.from.plus(Millis(drawn % (self.length.0 + 1)))
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the input moves about half of the output's.
const fn scatter(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeSet, vec::Vec};

    use super::*;
    use crate::{decide::tests::T0, ids::Shard};

    fn sagas(count: u8) -> Vec<SagaId> {
        (0..count).map(|n| SagaId::new(T0, [n; 10], Shard(0), 1)).collect()
    }

    #[test]
    fn sagas_begin_within_a_millisecond_for_each_and_not_all_at_once() {
        let window = Recovery::default().widen(100, Millis(5_000), T0);
        let places: Vec<Timestamp> = sagas(100).into_iter().map(|saga| window.place(saga, Epoch(3))).collect();
        assert!(places.iter().all(|at| (T0..=T0.plus(Millis(100))).contains(at)));
        assert!(places.iter().collect::<BTreeSet<_>>().len() > 50, "scattered: {places:?}");
        let others: Vec<Timestamp> = sagas(100).into_iter().map(|saga| window.place(saga, Epoch(4))).collect();
        assert_ne!(places, others, "another replica goes by another order");
    }

    #[test]
    fn shards_taken_together_share_the_room_and_the_ramp_bounds_it() {
        let mut recovery = Recovery::default();
        for (due, ramp, expected) in [(300, 1_000, 300), (300, 1_000, 600), (1_000, 1_000, 1_000), (5, 0, 0)] {
            assert_eq!(recovery.widen(due, Millis(ramp), T0).length, Millis(expected));
        }
        let later = T0.plus(Millis(60_000));
        assert_eq!(recovery.widen(7, Millis(1_000), later).length, Millis(7), "what began long ago takes no room");
        assert_eq!(recovery.widen(0, Millis(1_000), later.plus(Millis(7))).length, Millis(0));
    }
}
