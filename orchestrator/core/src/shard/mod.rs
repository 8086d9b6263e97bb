//! The log of a shard, and how the transitions of many sagas reach it together.
//!
//! [`batch`] says what one commit writes; [`writer`] is the replica's single writer: it decides, batches, fences,
//! recovers and evicts, as a state machine without IO that production and the simulator drive alike.

pub mod batch;
mod commit;
mod recovery;
mod residence;
#[cfg(test)]
mod tests;
mod timers;
pub mod writer;
