//! What time it is: engine time, which is the database's.
//!
//! Deadlines and retry times are stored and compared by the database's clock, so that replicas whose own clocks
//! disagree agree on them. [`DatabaseClock`] carries the database's time forward on the monotonic clock, so a step of
//! the machine's wall clock changes nothing.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant},
};

use skald_core::time::Timestamp;

/// Tells engine time. Passed in wherever time matters, so that tests can set it.
pub trait Clock: Send + Sync + std::fmt::Debug {
    fn now(&self) -> Timestamp;
}

/// The database's clock, as last asked, carried forward on the monotonic clock.
///
/// Between two syncs it never goes back. A sync may set it back by as much as the database's clock drifted meanwhile.
#[derive(Debug)]
pub struct DatabaseClock {
    origin: Instant,
    /// Engine time at `origin`, in microseconds since the Unix epoch.
    micros_at_origin: AtomicI64,
}

impl DatabaseClock {
    /// A clock that shows `database_now`, for the moment it is called.
    #[must_use]
    pub fn starting_at(database_now: Timestamp) -> Self {
        Self { origin: Instant::now(), micros_at_origin: AtomicI64::new(database_now.as_micros()) }
    }

    /// Takes over the database's time. It was asked at `asked` and the answer is here now; the database is taken to
    /// have looked at its clock halfway between, so the error is at most half of that round trip.
    pub fn sync(&self, database_now: Timestamp, asked: Instant) {
        let looked = asked + asked.elapsed() / 2;
        let since_origin = micros(looked.saturating_duration_since(self.origin));
        self.micros_at_origin.store(database_now.as_micros().saturating_sub(since_origin), Ordering::Relaxed);
    }
}

impl Clock for DatabaseClock {
    fn now(&self) -> Timestamp {
        let since_origin = micros(self.origin.elapsed());
        Timestamp::from_micros(self.micros_at_origin.load(Ordering::Relaxed).saturating_add(since_origin))
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn the_clock_shows_the_databases_time_and_runs_on() {
        let start = Timestamp::from_micros(1_700_000_000 * SECOND);
        let clock = DatabaseClock::starting_at(start);
        let (first, second) = (clock.now(), clock.now());
        assert!(start <= first && first <= second, "{first:?} then {second:?}");
        assert!(second.as_micros() < start.as_micros() + 10 * SECOND, "{second:?}");
    }

    #[test]
    fn a_sync_moves_the_clock_both_ways() {
        let clock = DatabaseClock::starting_at(Timestamp::from_micros(0));
        for target in [1_900_000_000 * SECOND, 1_600_000_000 * SECOND] {
            clock.sync(Timestamp::from_micros(target), Instant::now());
            let off = clock.now().as_micros() - target;
            assert!((0..10 * SECOND).contains(&off), "off by {off} us");
        }
    }

    #[test]
    fn half_of_the_round_trip_is_added_to_the_answer() {
        let Some(asked) = Instant::now().checked_sub(Duration::from_secs(2)) else { return };
        let target = 1_700_000_000 * SECOND;
        let clock = DatabaseClock { origin: asked, micros_at_origin: AtomicI64::new(0) };
        clock.sync(Timestamp::from_micros(target), asked);
        let off = clock.now().as_micros() - target;
        assert!((SECOND..SECOND + SECOND / 2).contains(&off), "off by {off} us");
    }
}
