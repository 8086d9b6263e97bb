//! The demo's consumers: services that live on Skald's events, each with a database of its own.
//!
//! | worker | what it makes of the log | takes events by |
//! | --- | --- | --- |
//! | [`audit`] | every event once, to be searched | a consumer group |
//! | [`notification`] | messages to customers: order confirmed, order failed, payment refunded | a consumer group |
//! | [`views`] | read models: orders, sales, sagas, carts | reading the log from its own checkpoints |
//!
//! No saga calls them: take them away and every saga still ends as before.

mod audit;
mod metrics;
mod notification;
mod views;
mod worker;

pub use self::{
    notification::SmtpOptions,
    worker::{Worker, WorkerError, WorkerKind, WorkerOptions},
};
