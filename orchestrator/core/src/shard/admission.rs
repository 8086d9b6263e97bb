//! How many sagas may be active before further starts are refused: as many as the writer keeps up with.
//!
//! What tells is how long a start waits for its commit, since no participant has a part in that. When the quickest start of a
//! while waited too long, there are too many sagas, and the limit goes below what is there; when not, it rises again. So under
//! more starts than can be carried out, most are refused at once, and those that are accepted end about as soon as ever. Sagas
//! that are many because their participants are slow cost the writer nothing, and are not limited.

use crate::time::{Millis, Timestamp};

/// Over so long the quickest start is looked for.
const WINDOW: Millis = Millis(50);

/// Waiting for longer is too long, unless the database always takes its time.
const WAIT_US_MAX: i64 = 5_000;

/// So many times the usual wait is too long in any case.
const OF_USUAL: i64 = 2;

/// So few sagas are never too many: two processors carry them out in a tenth of a second.
const FEW: usize = 256;

/// So many more than there were may come at once. Whatever comes on top of that is to wait until it is known how the first ones
/// fare, as those who were accepted cannot be refused any more.
pub(super) const BURST: usize = 700;

/// While there are no more than this, a wait that is longer than the usual one may be the usual one from now on.
const QUIET: usize = 64;

/// By at most this part of itself the usual wait grows in a window: a single long wait does not make the next ones usual.
const USUAL_PART: i64 = 16;

/// By at most this part of itself the limit grows in a window; by less, the less the quickest start was below what is enough.
const LIMIT_PART: i64 = 4;

#[derive(Debug)]
pub(super) struct Admission {
    limit: usize,
    window_ends: Timestamp,
    /// Of the starts that became durable in this window, in microseconds.
    quickest: Option<i64>,
    /// How long the quickest starts wait when there is little to do, in microseconds.
    usual: Option<i64>,
}

impl Default for Admission {
    fn default() -> Self {
        Self { limit: BURST, window_ends: Timestamp::default(), quickest: None, usual: None }
    }
}

impl Admission {
    /// Whether one more may begin beside so many.
    pub const fn admits(&self, active: usize) -> bool {
        active < self.limit
    }

    /// A start became durable after this time, while so many sagas were active.
    pub fn acknowledged(&mut self, began: Timestamp, active: usize, now: Timestamp) {
        if now >= self.window_ends {
            self.adjust(active);
            self.window_ends = now.plus(WINDOW);
        }
        let waited = now.as_micros() - began.as_micros();
        self.quickest = Some(self.quickest.map_or(waited, |quickest| quickest.min(waited)));
    }

    fn adjust(&mut self, active: usize) {
        let Some(quickest) = self.quickest.take() else { return };
        let is_quiet = active <= QUIET;
        self.usual = match self.usual {
            Some(usual) if is_quiet => Some(quickest.min(usual + usual / USUAL_PART + 1)),
            Some(usual) => Some(quickest.min(usual)),
            None => is_quiet.then_some(quickest),
        };
        let enough = WAIT_US_MAX.max(self.usual.unwrap_or_default().saturating_mul(OF_USUAL));
        self.limit = if quickest > enough {
            // The wait grows with the number of sagas, and is to shrink to what is enough; by no more than half at once.
            share(self.limit.min(active), enough, quickest.min(enough.saturating_mul(2))).max(FEW)
        } else {
            let base = self.limit.max(active);
            let more = share(base, enough - quickest, enough.saturating_mul(LIMIT_PART));
            (base + more).min(active.saturating_mul(2).max(BURST))
        };
    }
}

/// So many sagas, times `part`, divided by `whole`.
const fn share(sagas: usize, part: i64, whole: i64) -> usize {
    (sagas as u128 * part.unsigned_abs() as u128 / whole.unsigned_abs() as u128) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer that makes a start wait for a millisecond per `per_ms` sagas and as many starts as it admits; a tenth of the
    /// sagas end in each window. Returns how many sagas there are in the end.
    fn settles_at(per_ms: usize, base_ms: u64) -> usize {
        let (mut admission, mut now, mut active) = (Admission::default(), Timestamp::from_micros(1), 0_usize);
        for _ in 0..400 {
            active -= active / 10;
            for _ in 0..1_000 {
                if admission.admits(active) && active < 10_000 {
                    active += 1;
                }
            }
            let began = now;
            now = now.plus(Millis(100 + base_ms + (active / per_ms) as u64));
            admission.acknowledged(began.plus(Millis(100)), active, now);
        }
        active
    }

    #[test]
    fn there_are_as_many_as_the_writer_keeps_up_with() {
        let settled = settles_at(100, 0);
        assert!((375..=625).contains(&settled), "{settled} sagas, where 500 take 5 ms");
        assert_eq!(settles_at(1, 0), FEW);
    }

    #[test]
    fn not_many_more_come_than_there_were_while_all_went_well() {
        let mut admission = Admission::default();
        assert!(admission.admits(BURST - 1) && !admission.admits(BURST));
        for (at, active) in [(1_000, 5_000), (1_100, 5_000), (1_200, 5_000), (1_300, 5_000), (1_400, 5_000)] {
            let now = Timestamp::from_micros(at * 1_000);
            admission.acknowledged(now, active, now);
        }
        assert!(admission.admits(9_999) && !admission.admits(10_000));
    }

    #[test]
    fn who_waits_for_participants_is_no_load() {
        assert!(settles_at(1_000_000, 1) >= 9_000);
    }

    #[test]
    fn a_database_that_always_takes_its_time_is_no_reason() {
        let mut admission = Admission::default();
        let mut now = Timestamp::from_micros(1);
        for active in [10, 10, 5_000, 5_000] {
            let began = now;
            now = now.plus(Millis(120));
            admission.acknowledged(began, active, now);
        }
        assert!(admission.admits(5_000));
    }

    #[test]
    fn a_single_long_wait_while_it_is_quiet_does_not_become_the_usual_one() {
        let mut admission = Admission::default();
        let mut now = Timestamp::from_micros(1);
        for (active, waited) in [(10, 2), (10, 2), (10, 100), (10, 2), (500, 20), (500, 20), (500, 20), (500, 20)] {
            let began = now.plus(Millis(100));
            now = began.plus(Millis(waited));
            admission.acknowledged(began, active, now);
        }
        assert!(!admission.admits(500));
    }

    #[test]
    fn a_database_that_has_become_slow_is_no_reason_after_a_while() {
        let mut admission = Admission::default();
        let mut now = Timestamp::from_micros(1);
        for waited in [2].into_iter().chain([50; 200]) {
            let began = now.plus(Millis(100));
            now = began.plus(Millis(waited));
            admission.acknowledged(began, 10, now);
        }
        assert!(admission.admits(BURST - 1));
    }

    #[test]
    fn a_single_quick_start_in_a_window_says_that_all_is_well() {
        let mut admission = Admission::default();
        for (at, waited) in [(1_000, 300), (1_010, 1), (1_200, 300)] {
            let now = Timestamp::from_micros(at * 1_000);
            admission.acknowledged(Timestamp::from_micros(now.as_micros() - waited * 1_000), 5_000, now);
        }
        assert!(admission.admits(5_000));
    }
}
