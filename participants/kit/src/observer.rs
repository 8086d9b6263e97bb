//! What a service counts of its events, without the kit knowing how.

use std::fmt;

use crate::{bus::Settled, events::Event, outbox::Outgoing};

/// Hears of every event that leaves and of every one that was handled. The methods must be quick.
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// The store has an event; `replayed` when it had it before.
    fn published(&self, event: &Outgoing, replayed: bool) {
        let _ = (event, replayed);
    }

    /// A consumer or reactor is through with an event.
    fn consumed(&self, consumer: &str, event: &Event, settled: &Settled) {
        let _ = (consumer, event, settled);
    }
}

/// Counts nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}
