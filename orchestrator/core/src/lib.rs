//! The saga engine as a pure function.
//!
//! [`definition`] parses and checks what a saga is; [`decide`] turns a state and an input into events and commands;
//! [`state`] folds events back into a state; [`shard`] batches the transitions of many sagas into commits, fences them
//! and recovers them. Nothing here does IO, reads a clock or draws a random number: the crate is `no_std`, so `std`'s
//! clocks, files, sockets and threads cannot even be named. Time and identity arrive as arguments.
#![no_std]

extern crate alloc;

pub mod choreography;
pub mod classify;
pub mod decide;
pub mod definition;
pub mod event;
pub mod expr;
pub mod ids;
pub mod json;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod personal;
pub mod retry;
pub mod shard;
pub mod state;
pub mod time;
