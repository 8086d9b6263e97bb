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

use actix_web::web;

use super::endpoint::{endpoint, resource};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let streams = web::scope("/streams")
        .service(resource(
            "/{id}/events",
            [
                endpoint::<stream_events::__path_handle>(web::to(stream_events::handle)),
                endpoint::<append::__path_handle>(web::to(append::handle)),
            ],
        ))
        .service(resource("/{id}/state", [endpoint::<state::__path_handle>(web::to(state::handle))]));
    config
        .service(resource(
            "/events",
            [
                endpoint::<list::__path_handle>(web::to(list::handle)),
                endpoint::<append_many::__path_handle>(web::to(append_many::handle)),
            ],
        ))
        .service(resource("/events/tail", [endpoint::<tail::__path_handle>(web::to(tail::handle))]))
        .service(resource("/events/stats", [endpoint::<stats::__path_handle>(web::to(stats::handle))]))
        .service(resource("/events/replay", [endpoint::<replay::__path_handle>(web::to(replay::handle))]))
        .service(streams);
}
