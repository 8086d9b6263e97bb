//! `/sagas`: starting sagas and looking at them.

pub mod complete;
mod described;
pub mod events;
mod filled_in;
pub mod get;
mod keyed;
pub mod list;
mod settled;
pub mod start;
pub mod start_any;
mod starting;
pub mod stream;

use actix_web::{
    guard::{self, GuardContext},
    web,
};
use skald_core::ids::SagaId;

use super::endpoint::{endpoint, resource};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let sagas = web::scope("/sagas")
        .service(resource(
            "",
            [
                endpoint::<list::__path_handle>(web::to(list::handle)),
                endpoint::<start_any::__path_handle>(web::to(start_any::handle)),
            ],
        ))
        // What follows is a definition's name, or a saga's id.
        .service(
            web::resource("/{definition}")
                .guard(guard::Not(guard::fn_guard(ends_with_an_id)))
                .route(endpoint::<start::__path_handle>(web::to(start::handle)).into_route())
                .default_service(web::to(start::not_a_saga)),
        )
        .service(resource("/{id}", [endpoint::<get::__path_handle>(web::to(get::handle))]))
        .service(resource("/{id}/events", [endpoint::<events::__path_handle>(web::to(events::handle))]))
        .service(resource("/{id}/stream", [endpoint::<stream::__path_handle>(web::to(stream::handle))]))
        .service(resource(
            "/{id}/steps/{step}/complete",
            [endpoint::<complete::__path_handle>(web::to(complete::handle))],
        ));
    config.service(sagas);
}

fn ends_with_an_id(context: &GuardContext<'_>) -> bool {
    let last = context.head().uri.path().rsplit('/').next();
    last.is_some_and(|last| last.parse::<SagaId>().is_ok())
}
