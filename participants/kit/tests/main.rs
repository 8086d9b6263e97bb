//! The barrier held to its promises, on both databases.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod barrier;
mod consumer;
mod failures;
mod fixture;
mod histories;
mod outbox;
mod redis_server;
#[allow(dead_code, reason = "the demo services' tests share it, and use the rest")]
mod store;
mod support;
