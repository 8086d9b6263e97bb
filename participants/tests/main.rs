//! The demo services and the workers over real HTTP, on both databases.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod bad_input;
mod catalog;
mod choreographed;
mod faults;
mod process;
#[path = "../kit/tests/redis_server/mod.rs"]
mod redis_server;
mod sales_and_orders;
#[path = "../kit/tests/store/mod.rs"]
mod store;
mod support;
mod workers;
