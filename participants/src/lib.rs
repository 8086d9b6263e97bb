//! Skald's demo participants: catalog (products, stock), sales (payments), orders.
//!
//! Each is a small HTTP service with a database of its own, built on [`skald_kit`]. They show what a
//! participant looks like, and their ledgers and fault switches make them the yardstick of the
//! end-to-end and chaos tests. They know nothing of the orchestrator,
//! unless they are told to take part in its choreographed sagas.
//!
//! Beside them are [workers](Worker), which live on the orchestrator's events: audit, notification, views.

mod body;
mod catalog;
mod choreography;
mod codes;
mod event_metrics;
mod faults;
mod http;
mod ledger;
mod management;
mod metrics;
mod offer;
mod orders;
mod paging;
mod sales;
mod service;
mod upkeep;
mod workers;

pub use choreography::{ChoreographyError, SkaldOptions};
pub use service::{Kind, Service, ServiceError, ServiceOptions, UnknownKind};
pub use skald_kit::events::ApiKey;
pub use workers::{SmtpOptions, Worker, WorkerError, WorkerKind, WorkerOptions};
