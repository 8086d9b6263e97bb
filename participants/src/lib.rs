//! Skald's demo participants: catalog (products, stock), sales (payments), orders.
//!
//! Each is a small HTTP service with a database of its own, built on [`skald_kit`]. They show what a
//! participant looks like, and their ledgers and fault switches make them the yardstick of the
//! end-to-end and chaos tests. They know nothing of the orchestrator.
//!
//! Beside them are [workers](Worker), which live on the orchestrator's events: audit, notification, views.

mod body;
mod catalog;
mod codes;
mod faults;
mod http;
mod ledger;
mod management;
mod metrics;
mod orders;
mod paging;
mod sales;
mod service;
mod upkeep;
mod workers;

pub use service::{Kind, Service, ServiceError, ServiceOptions, UnknownKind};
pub use workers::{SkaldOptions, SmtpOptions, Worker, WorkerError, WorkerKind, WorkerOptions};
