//! The log of a shard, and how the transitions of many sagas reach it together.
//!
//! [`batch`] says what one commit writes; [`writer`] is the replica's single writer: it decides, batches, fences,
//! recovers and evicts, and takes [`appends`] to streams that are no sagas; [`leases`] decides which shards are its own. Both are state machines without IO that production
//! and the simulator drive alike.

pub mod appends;
pub mod batch;
mod commit;
mod drain;
pub mod leases;
mod queue;
mod recovery;
mod residence;
#[cfg(test)]
mod tests;
mod timers;
mod unhurried;
pub mod writer;
