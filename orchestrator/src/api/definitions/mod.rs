//! `/definitions`: what sagas there can be.

pub mod get;
pub mod list;
pub mod register;
pub mod schema;
pub mod version;
pub mod view;

use actix_web::{http::Method, web};

use super::resource;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(resource("/definitions", [(Method::GET, web::to(list::handle))]))
        .service(resource("/definitions/schema", [(Method::GET, web::to(schema::handle))]))
        .service(resource(
            "/definitions/{name}",
            [(Method::GET, web::to(get::handle)), (Method::PUT, web::to(register::handle))],
        ))
        .service(resource("/definitions/{name}/versions/{version}", [(Method::GET, web::to(version::handle))]));
}
