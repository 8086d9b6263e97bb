//! What a call must pass before it is made: pause, circuit, permit, rate, in this order.
//!
//! Whoever cannot pass at once waits in memory, first come first served, for a bounded time and in a bounded queue.
//! Past that the call is put off: [`Held`] says for how long, spread by chance so that those put off together do not
//! come back together.
//!
//! The permit comes before the rate, so that a call which has its turn is made at that moment: turns that were handed
//! out to calls still waiting for a permit would be used later in one burst. The circuit is asked first, so that
//! nothing queues for a participant that is down, and last, because the queue takes time.

use std::{
    num::NonZeroU32,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, MonotonicClock},
    state::{InMemoryState, NotKeyed},
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::breaker::{Breaker, Circuit, Health, Refused, Ticket};
use crate::{
    config,
    metrics::{DeferReason, ServiceMetrics},
};

/// The limits of one participant.
#[derive(Debug)]
pub struct Gate {
    service: String,
    permits: Semaphore,
    /// Calls in the queue for a permit or the rate.
    waiting: AtomicUsize,
    waiting_max: usize,
    wait_max: Duration,
    rate: Option<Rate>,
    breaker: Mutex<Breaker>,
    paused: AtomicBool,
    pub metrics: ServiceMetrics,
}

/// A call is put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub reason: DeferReason,
    /// From now.
    pub wait: Duration,
}

impl Held {
    const fn new(reason: DeferReason, wait: Duration) -> Self {
        Self { reason, wait }
    }

    /// Why, for people.
    #[must_use]
    pub const fn text(&self) -> &'static str {
        match self.reason {
            DeferReason::Paused => "the participant is paused",
            DeferReason::CircuitOpen => "the participant's circuit is open: it failed too often",
            DeferReason::QueueFull => "too many calls wait for the participant",
            DeferReason::NoPermit => "the participant has as many calls in flight as it may",
            DeferReason::RateSpent => "the participant's rate is spent",
        }
    }
}

/// Permission for one call. Dropped without [`Pass::settle`], the call was cancelled; the permit is free either way.
#[derive(Debug)]
pub struct Pass<'gate> {
    gate: &'gate Gate,
    ticket: Ticket,
    health: Health,
    _permit: SemaphorePermit<'gate>,
}

impl Pass<'_> {
    /// The call has ended.
    pub const fn settle(&mut self, health: Health) {
        self.health = health;
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.metrics.in_flight.dec();
        self.gate.record(self.ticket, self.health);
    }
}

/// How long calls of a paused participant are put off. It cannot be known when the pause ends; this is how late a
/// call may be after it.
const PAUSE: Duration = Duration::from_secs(5);
/// How long to put off when it cannot be known when there is room.
const CROWDED: Duration = Duration::from_secs(1);

impl Gate {
    #[must_use]
    pub fn new(service: &str, limits: &config::Participant, metrics: ServiceMetrics) -> Self {
        Self {
            service: service.to_owned(),
            permits: Semaphore::new(usize::try_from(limits.max_concurrency).unwrap_or(Semaphore::MAX_PERMITS)),
            waiting: AtomicUsize::new(0),
            waiting_max: usize::try_from(limits.max_waiting).unwrap_or(usize::MAX),
            wait_max: Duration::from_millis(limits.max_wait.0),
            rate: limits.rate_limit.map(Rate::new),
            breaker: Mutex::new(Breaker::new(limits.breaker)),
            paused: AtomicBool::new(false),
            metrics,
        }
    }

    /// Waits until a call may be made: at most `patience`, and at most the configured time.
    ///
    /// # Errors
    ///
    /// Why it may not be made now, and when to ask again.
    pub async fn enter(&self, patience: Duration) -> Result<Pass<'_>, Held> {
        self.look()?;
        let deadline = tokio::time::Instant::now() + patience.min(self.wait_max);
        let mut place = None;
        let permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                place = Some(self.queue()?);
                tokio::time::timeout_at(deadline, self.permits.acquire())
                    .await
                    .map_err(|_| Held::new(DeferReason::NoPermit, spread(CROWDED)))?
                    .expect("the semaphore is never closed")
            }
        };
        if let Some(rate) = &self.rate
            && !rate.turn_now()
        {
            if place.is_none() {
                place = Some(self.queue()?);
            }
            rate.turn_by(deadline).await.map_err(|next| {
                let ahead = u32::try_from(self.waiting.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
                Held::new(DeferReason::RateSpent, spread(next + rate.interval.saturating_mul(ahead).min(RATE_WAIT_MAX)))
            })?;
        }
        drop(place);
        if self.paused() {
            return Err(Held::new(DeferReason::Paused, spread(PAUSE)));
        }
        let ticket = self.admit()?;
        self.metrics.in_flight.inc();
        Ok(Pass { gate: self, ticket, health: Health::Neutral, _permit: permit })
    }

    /// Calls wait from now on, or no longer. Those in flight go on.
    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    #[must_use]
    pub fn paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn circuit(&self) -> Circuit {
        self.breaker().circuit()
    }

    /// What is known without waiting.
    fn look(&self) -> Result<(), Held> {
        if self.paused() {
            return Err(Held::new(DeferReason::Paused, spread(PAUSE)));
        }
        let now = Instant::now();
        let refusal = self.breaker().refusal(now);
        refusal.map_or(Ok(()), |refused| Err(circuit_open(refused, now)))
    }

    fn queue(&self) -> Result<Place<'_>, Held> {
        let place = Place::take(self);
        if place.number > self.waiting_max {
            return Err(Held::new(DeferReason::QueueFull, spread(CROWDED)));
        }
        Ok(place)
    }

    fn admit(&self) -> Result<Ticket, Held> {
        let now = Instant::now();
        let mut breaker = self.breaker();
        let before = breaker.circuit();
        let admitted = breaker.admit(now);
        self.note_change(before, breaker.circuit());
        admitted.map_err(|refused| circuit_open(refused, now))
    }

    fn record(&self, ticket: Ticket, health: Health) {
        let mut breaker = self.breaker();
        let before = breaker.circuit();
        breaker.record(ticket, health, Instant::now(), rand::random());
        self.note_change(before, breaker.circuit());
    }

    /// Called with the breaker locked, so that the gauge shows the last change.
    fn note_change(&self, before: Circuit, after: Circuit) {
        if before == after {
            return;
        }
        self.metrics.circuit.set(after as i64);
        match after {
            Circuit::Open => tracing::warn!(service = %self.service, "circuit opened: the participant fails"),
            Circuit::HalfOpen => tracing::info!(service = %self.service, "circuit half open: trying again"),
            Circuit::Closed => tracing::info!(service = %self.service, "circuit closed: the participant answers"),
        }
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        // Nothing in the breaker panics halfway through a change.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Half to one and a half of `span`.
fn spread(span: Duration) -> Duration {
    span.mul_f64(0.5 + rand::random::<f64>())
}

fn circuit_open(refused: Refused, now: Instant) -> Held {
    let wait = match refused {
        // Up to a quarter later than the half-open time: those who come first find the probes' places taken.
        Refused::Open { until } => {
            let left = until.saturating_duration_since(now);
            left + left.max(CROWDED).mul_f64(rand::random::<f64>() / 4.0)
        }
        Refused::Probing => spread(CROWDED),
    };
    Held::new(DeferReason::CircuitOpen, wait)
}

/// A place in the queue, given up when dropped.
#[derive(Debug)]
struct Place<'gate> {
    gate: &'gate Gate,
    /// From 1.
    number: usize,
}

impl<'gate> Place<'gate> {
    fn take(gate: &'gate Gate) -> Self {
        gate.metrics.waiting.inc();
        Self { gate, number: gate.waiting.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.gate.waiting.fetch_sub(1, Ordering::Relaxed);
        self.gate.metrics.waiting.dec();
    }
}

/// No call is put off for longer because of the rate; the queue at that time decides again.
const RATE_WAIT_MAX: Duration = Duration::from_secs(30);

/// So many calls a second. The limiter alone would wake all who wait at each turn; only the holder of the turnstile
/// asks it, and the turnstile is first come, first served.
#[derive(Debug)]
struct Rate {
    limiter: RateLimiter<NotKeyed, InMemoryState, MonotonicClock>,
    turnstile: tokio::sync::Mutex<()>,
    interval: Duration,
}

impl Rate {
    fn new(limit: config::RateLimit) -> Self {
        let per_second = NonZeroU32::new(limit.per_second).unwrap_or(NonZeroU32::MIN);
        let burst = limit.burst.and_then(NonZeroU32::new).unwrap_or(per_second);
        Self {
            limiter: RateLimiter::direct_with_clock(Quota::per_second(per_second).allow_burst(burst), MonotonicClock),
            turnstile: tokio::sync::Mutex::new(()),
            interval: Duration::from_secs(1) / per_second.get(),
        }
    }

    fn turn_now(&self) -> bool {
        self.turnstile.try_lock().is_ok_and(|_turn| self.limiter.check().is_ok())
    }

    /// Waits for a turn. The error is how long the next turn is away, when that is past the deadline.
    async fn turn_by(&self, deadline: tokio::time::Instant) -> Result<(), Duration> {
        let _turn = tokio::time::timeout_at(deadline, self.turnstile.lock()).await.map_err(|_| self.interval)?;
        loop {
            let Err(early) = self.limiter.check() else { return Ok(()) };
            let wait = early.wait_time_from(self.limiter.clock().now());
            if tokio::time::Instant::now() + wait > deadline {
                return Err(wait);
            }
            tokio::time::sleep(wait).await;
        }
    }
}
