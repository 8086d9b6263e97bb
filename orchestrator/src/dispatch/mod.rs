//! Calling participants over HTTP.
//!
//! [`HttpParticipants`] makes one call at a time: it asks the participant's gate (pause, circuit, permits, rate), sends
//! the request of the contract, reads the answer within its limits, and reports what happened. It does not retry, does
//! not read meaning into an answer, and knows no saga beyond the call: that is the engine's.
//!
//! What a report promises: `NotSent` is provable (see [`sent`]); `MaybeSent` is everything else without a whole
//! answer; a call that was cancelled by dropping its future frees its permit and says nothing about the participant.

mod body;
mod breaker;
mod callback;
mod client;
mod gate;
mod headers;
mod http;
mod ledger;
mod participant;
mod retry_after;
mod sent;
mod target;
mod term;
#[cfg(test)]
mod tests;
mod trace;

use futures_util::future::BoxFuture;
use skald_core::{classify::CallReport, decide::Invoke};

pub use self::{
    breaker::Circuit,
    callback::CallbackTokens,
    client::{HttpParticipants, ParticipantHealth},
    ledger::{Ledger, LedgerEntry, LedgerPage},
    participant::Context,
    term::{Lease, Term},
    trace::TraceParent,
};

/// Makes one call and reports how it ended. Implemented by the HTTP dispatcher, and by simulated participants.
pub trait Participants: Send + Sync + std::fmt::Debug + 'static {
    /// Never fails: whatever happens is a report. Returns within the invoke's timeout plus the waiting for a permit,
    /// which is bounded by it too. No request is sent when the term is over: that is looked at as the first
    /// byte is about to be written.
    fn call<'a>(&'a self, invoke: &'a Invoke, term: &'a Term) -> BoxFuture<'a, CallReport>;
}
