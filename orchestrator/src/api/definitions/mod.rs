//! `/definitions`: what sagas there can be.

pub mod get;
pub mod list;
pub mod register;
pub mod schema;
pub mod version;
pub mod view;

use actix_web::web;

use super::endpoint::{endpoint, resource};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(resource("/definitions", [endpoint::<list::__path_handle>(web::to(list::handle))]))
        .service(resource("/definitions/schema", [endpoint::<schema::__path_handle>(web::to(schema::handle))]))
        .service(resource(
            "/definitions/{name}",
            [
                endpoint::<get::__path_handle>(web::to(get::handle)),
                endpoint::<register::__path_handle>(web::to(register::handle)),
            ],
        ))
        .service(resource(
            "/definitions/{name}/versions/{version}",
            [endpoint::<version::__path_handle>(web::to(version::handle))],
        ));
}
