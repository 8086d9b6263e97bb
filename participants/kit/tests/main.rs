//! The barrier held to its promises, on both databases.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod barrier;
mod consumer;
mod failures;
mod fixture;
mod histories;
mod key;
mod outbox;
mod redis_server;
mod replicas;
mod store;
mod support;
