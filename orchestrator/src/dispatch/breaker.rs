//! The circuit breaker: stops calling a participant that fails, and tries it again later.
//!
//! | state | success | failure | neutral | a call asks |
//! | --- | --- | --- | --- | --- |
//! | closed, `n` failures in a row | closed, 0 | closed, `n + 1`; at `failures` open | as it was | admitted |
//! | open until `t` | as it was | as it was | as it was | before `t` refused until `t`; then half open, admitted |
//! | half open | one more; at `probes` closed | open, twice as long | frees its place | admitted while fewer than `probes` are out |
//!
//! A failure is a call that ended without an answer (nothing sent, timeout, connection lost) or with 5xx. Any other
//! answer is a success: a refusal shows a working participant. Neutral are 429 and a 503 that names `Retry-After`,
//! which is a participant that is up and says when it has room (the engine keeps to that time, so no breaker is
//! needed), and calls that were cancelled.
//!
//! Pure: time and chance are arguments. What was admitted before a change of state says nothing about the new state,
//! so a [`Ticket`] carries the state's number and an old one is ignored.

use std::time::{Duration, Instant};

use crate::config::Breaker as Settings;

#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    state: State,
    /// Counts changes of state.
    term: u64,
    /// How often it opened since it was last closed.
    openings: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { out: u32, successes: u32 },
}

/// The state's name, with its value in the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    Closed = 0,
    HalfOpen = 1,
    Open = 2,
}

/// Permission for one call. Must be given back by [`Breaker::record`], whatever became of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    term: u64,
}

/// What a finished call says about the participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Success,
    Failure,
    Neutral,
}

/// Why a call is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Open {
        until: Instant,
    },
    /// Half open, and all probes are out.
    Probing,
}

impl Breaker {
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self { settings, state: State::Closed { failures: 0 }, term: 0, openings: 0 }
    }

    /// May a call be made now?
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn admit(&mut self, now: Instant) -> Result<Ticket, Refused> {
        match &mut self.state {
            State::Closed { .. } => {}
            State::Open { until } if now < *until => return Err(Refused::Open { until: *until }),
            State::Open { .. } => self.change(State::HalfOpen { out: 1, successes: 0 }),
            State::HalfOpen { out, .. } if *out >= self.settings.probes => return Err(Refused::Probing),
            State::HalfOpen { out, .. } => *out += 1,
        }
        Ok(Ticket { term: self.term })
    }

    /// As [`Breaker::admit`] would answer, without taking a place.
    #[must_use]
    pub fn refusal(&self, now: Instant) -> Option<Refused> {
        match self.state {
            State::Open { until } if now < until => Some(Refused::Open { until }),
            State::HalfOpen { out, .. } if out >= self.settings.probes => Some(Refused::Probing),
            State::Closed { .. } | State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// A call that was admitted has ended. `chance` in `0.0..1.0` spreads how long an opened circuit stays open.
    pub fn record(&mut self, ticket: Ticket, health: Health, now: Instant, chance: f64) {
        if ticket.term != self.term {
            return;
        }
        match (&mut self.state, health) {
            (State::Closed { .. } | State::Open { .. }, Health::Neutral) => {}
            (State::Closed { failures }, Health::Success) => *failures = 0,
            (State::Closed { failures }, Health::Failure) => {
                *failures += 1;
                if *failures >= self.settings.failures {
                    self.open(now, chance);
                }
            }
            // No ticket is given out while it is open.
            (State::Open { .. }, Health::Success | Health::Failure) => {}
            (State::HalfOpen { .. }, Health::Failure) => self.open(now, chance),
            (State::HalfOpen { out, .. }, Health::Neutral) => *out -= 1,
            (State::HalfOpen { out, successes }, Health::Success) => {
                *out -= 1;
                *successes += 1;
                if *successes >= self.settings.probes {
                    self.openings = 0;
                    self.change(State::Closed { failures: 0 });
                }
            }
        }
    }

    #[must_use]
    pub const fn circuit(&self) -> Circuit {
        match self.state {
            State::Closed { .. } => Circuit::Closed,
            State::Open { .. } => Circuit::Open,
            State::HalfOpen { .. } => Circuit::HalfOpen,
        }
    }

    fn open(&mut self, now: Instant, chance: f64) {
        let doubled = self.settings.open_for.0.saturating_mul(1_u64.checked_shl(self.openings).unwrap_or(u64::MAX));
        let span = Duration::from_millis(doubled.min(self.settings.open_for_max.0));
        // Between four fifths and six fifths, so that replicas do not all probe at once.
        let span = span.mul_f64(0.4_f64.mul_add(chance, 0.8));
        self.openings = self.openings.saturating_add(1);
        self.change(State::Open { until: now + span });
    }

    const fn change(&mut self, state: State) {
        self.state = state;
        self.term += 1;
    }
}

#[cfg(test)]
mod tests {
    use skald_core::time::Millis;

    use super::*;

    const SETTINGS: Settings = Settings { failures: 3, open_for: Millis(1000), open_for_max: Millis(3000), probes: 2 };

    /// In the middle of the spread: spans are exact.
    const MIDDLE: f64 = 0.5;

    struct Run {
        breaker: Breaker,
        start: Instant,
        now_ms: u64,
    }

    impl Run {
        fn new() -> Self {
            Self { breaker: Breaker::new(SETTINGS), start: Instant::now(), now_ms: 0 }
        }

        fn now(&self) -> Instant {
            self.start + Duration::from_millis(self.now_ms)
        }

        fn admit(&mut self) -> Result<Ticket, Refused> {
            let now = self.now();
            assert_eq!(self.breaker.refusal(now), self.breaker.refusal(now));
            let foretold = self.breaker.refusal(now);
            let answer = self.breaker.admit(now);
            assert_eq!(answer.err(), foretold);
            answer
        }

        fn record(&mut self, ticket: Ticket, health: Health) {
            let now = self.now();
            self.breaker.record(ticket, health, now, MIDDLE);
        }

        fn call(&mut self, health: Health) {
            let ticket = self.admit().unwrap();
            self.record(ticket, health);
        }

        fn calls(&mut self, healths: &[Health]) {
            healths.iter().for_each(|health| self.call(*health));
        }

        /// Milliseconds from the start until which it is open.
        fn open_until(&mut self) -> u64 {
            match self.admit() {
                Err(Refused::Open { until }) => u64::try_from((until - self.start).as_millis()).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }

    use Health::{Failure, Neutral, Success};

    #[test]
    fn it_opens_at_so_many_failures_in_a_row() {
        for (calls, circuit) in [
            (&[Failure, Failure][..], Circuit::Closed),
            (&[Failure, Failure, Failure], Circuit::Open),
            (&[Failure, Failure, Success, Failure, Failure], Circuit::Closed),
            (&[Failure, Neutral, Failure, Neutral, Failure], Circuit::Open),
            (&[Neutral, Neutral, Neutral, Neutral], Circuit::Closed),
        ] {
            let mut run = Run::new();
            run.calls(calls);
            assert_eq!(run.breaker.circuit(), circuit, "{calls:?}");
        }
    }

    #[test]
    fn while_it_is_open_it_says_until_when_and_then_lets_probes_through() {
        let mut run = Run::new();
        run.calls(&[Failure; 3]);
        assert_eq!(run.open_until(), 1000);
        run.now_ms = 999;
        assert_eq!(run.open_until(), 1000);
        run.now_ms = 1000;
        let (first, second) = (run.admit().unwrap(), run.admit().unwrap());
        assert_eq!(run.breaker.circuit(), Circuit::HalfOpen);
        assert_eq!(run.admit(), Err(Refused::Probing));
        run.record(first, Success);
        assert_eq!(run.breaker.circuit(), Circuit::HalfOpen);
        run.record(second, Success);
        assert_eq!(run.breaker.circuit(), Circuit::Closed);
    }

    #[test]
    fn a_probe_that_says_nothing_gives_its_place_to_another() {
        let mut run = Run::new();
        run.calls(&[Failure; 3]);
        run.now_ms = 1000;
        run.calls(&[Neutral, Neutral, Neutral, Success]);
        assert_eq!(run.breaker.circuit(), Circuit::HalfOpen);
        run.call(Success);
        assert_eq!(run.breaker.circuit(), Circuit::Closed);
    }

    #[test]
    fn it_stays_open_twice_as_long_each_time_up_to_the_most_and_starts_over_once_closed() {
        let mut run = Run::new();
        run.calls(&[Failure; 3]);
        for span in [1000, 2000, 3000, 3000] {
            let until = run.open_until();
            assert_eq!(until - run.now_ms, span);
            run.now_ms = until;
            run.call(Failure);
        }
        run.now_ms = run.open_until();
        run.calls(&[Success; 2]);
        run.calls(&[Failure; 3]);
        assert_eq!(run.open_until() - run.now_ms, 1000);
    }

    #[test]
    fn what_was_admitted_before_it_opened_changes_nothing() {
        let mut run = Run::new();
        let late: Vec<Ticket> = (0..4).map(|_| run.admit().unwrap()).collect();
        run.calls(&[Failure; 3]);
        run.now_ms = 1000;
        let probe = run.admit().unwrap();
        for (ticket, health) in late.into_iter().zip([Success, Success, Failure, Neutral]) {
            run.record(ticket, health);
        }
        assert_eq!(run.breaker.state, State::HalfOpen { out: 1, successes: 0 });
        run.record(probe, Success);
        assert_eq!(run.breaker.state, State::HalfOpen { out: 0, successes: 1 });
    }

    #[test]
    fn chance_spreads_the_time_it_is_open_by_a_fifth() {
        for (chance, span_ms) in [(0.0, 800), (0.5, 1000), (1.0, 1200)] {
            let now = Instant::now();
            let mut breaker = Breaker::new(Settings { failures: 1, ..SETTINGS });
            let ticket = breaker.admit(now).unwrap();
            breaker.record(ticket, Failure, now, chance);
            let Some(Refused::Open { until }) = breaker.refusal(now) else { panic!("not open") };
            assert_eq!((until - now).as_millis(), span_ms);
        }
    }
}
