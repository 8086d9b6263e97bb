//! `/events` and `/streams`: the log as an event store.

pub mod append;
pub mod append_many;
pub mod cloud_event;
pub mod list;
pub mod query;
pub mod replay;
mod reports;
pub mod state;
pub mod stats;
pub mod stream_events;
pub mod tail;
#[cfg(test)]
mod tests;
pub mod wake;

use actix_web::{http::Method, web};

use super::resource;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let streams = web::scope("/streams")
        .service(resource(
            "/{id}/events",
            [(Method::GET, web::to(stream_events::handle)), (Method::POST, web::to(append::handle))],
        ))
        .service(resource("/{id}/state", [(Method::GET, web::to(state::handle))]));
    config
        .service(resource(
            "/events",
            [(Method::GET, web::to(list::handle)), (Method::POST, web::to(append_many::handle))],
        ))
        .service(resource("/events/tail", [(Method::GET, web::to(tail::handle))]))
        .service(resource("/events/stats", [(Method::GET, web::to(stats::handle))]))
        .service(resource("/events/replay", [(Method::POST, web::to(replay::handle))]))
        .service(streams);
}
