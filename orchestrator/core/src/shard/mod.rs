//! The log of a shard, and how the transitions of many sagas reach it together.
//!
//! [`batch`] says what one commit writes; [`writer`] is the replica's single writer: it decides, batches, fences,
//! recovers and evicts; [`leases`] decides which shards are its own. Both are state machines without IO that production
//! and the simulator drive alike.

pub mod batch;
mod commit;
mod drain;
pub mod leases;
mod recovery;
mod residence;
#[cfg(test)]
mod tests;
mod timers;
pub mod writer;
