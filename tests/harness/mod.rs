//! What the end-to-end tests stand on: servers that start on free ports and die with their test, a client, a checker.

pub mod checker;
pub mod client;
pub mod cluster;
pub mod database;
pub mod deployment;
pub mod effects;
mod eventually;
pub mod guard;
pub mod log;
pub mod participants;
pub mod postgres;
pub mod postgres_binaries;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod sample;
pub mod skald;
pub mod small_disk;
pub mod stub;

use std::path::Path;

pub use self::{
    checker::Checker,
    client::{Answer, Client},
    database::Backend::{self, Postgres, Sqlite},
    deployment::{Deployment, Folder},
    eventually::{eventually, met},
    skald::{SOON, Skald, order},
    stub::{Reply, Stub},
};

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the service lies in a folder of the workspace")
}
