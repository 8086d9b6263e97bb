//! Client of Skald: every call, typed ([`apis`], [`models`]), and what calls need besides ([`Skald`]).
//!
//! The calls are functions over [`Skald::configuration`]. Starts get an idempotency key, and refusals for now are repeated,
//! for every call that is made through it.

// The generated code wants one function of the crate `serde_with`, which would bring a dozen others: it gets ours.
extern crate self as serde_with;

#[allow(warnings, clippy::all, clippy::unwrap_used, clippy::unimplemented, rustdoc::all, reason = "generated as it is")]
pub mod apis;
mod client;
#[allow(warnings, clippy::all, rustdoc::all, reason = "generated as it is")]
pub mod models;
mod repeat;
#[doc(hidden)]
pub mod rust;
pub mod webhook;

pub use client::{CallFailed, Options, Skald, StartOptions};
