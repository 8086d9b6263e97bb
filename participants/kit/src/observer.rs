//! What a service counts of its events, without the kit knowing how.

use std::{fmt, time::Duration};

use crate::{bus::Settled, events::Event, outbox::Outgoing};

/// Hears of every event that leaves and of every one that was handled. The methods must be quick.
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// The store has an event; `replayed` when it had it before.
    fn published(&self, event: &Outgoing, replayed: bool) {
        let _ = (event, replayed);
    }

    /// The store took events, all or some of those in a request.
    fn posted(&self, took: Duration) {
        let _ = took;
    }

    /// The store did not take so many of the events of a request.
    fn not_posted(&self, events: usize) {
        let _ = events;
    }

    /// A consumer or reactor asked for events, and got no answer.
    fn not_polled(&self, consumer: &str) {
        let _ = consumer;
    }

    /// What a saga asks of a reactor could not be done now.
    fn put_off(&self, consumer: &str) {
        let _ = consumer;
    }

    /// A consumer or reactor is through with an event.
    fn consumed(&self, consumer: &str, event: &Event, handled: &Handled<'_>) {
        let _ = (consumer, event, handled);
    }
}

/// How handling an event went.
#[derive(Debug, Clone, Copy)]
pub struct Handled<'s> {
    pub settled: &'s Settled,
    /// The handling itself; of events that were handled together, all of it.
    pub took: Duration,
}

/// Counts nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}
