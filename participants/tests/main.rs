//! The demo services over real HTTP, on both databases.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod bad_input;
mod catalog;
mod faults;
mod process;
mod sales_and_orders;
mod support;
