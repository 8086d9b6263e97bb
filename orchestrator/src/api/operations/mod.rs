//! For whoever operates the service: is it alive, is it ready, what does it count, what can it do.

pub mod docs;
pub mod index;
pub mod livez;
pub mod metrics;
pub mod readyz;
pub mod specification;

use actix_web::{http::Method, web};

use super::endpoint::{endpoint, resource, unlisted};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(resource("/", [unlisted(Method::GET, web::to(index::handle))]))
        .service(resource("/livez", [endpoint::<livez::__path_handle>(web::to(livez::handle))]))
        .service(resource("/readyz", [endpoint::<readyz::__path_handle>(web::to(readyz::handle))]))
        .service(resource("/metrics", [endpoint::<metrics::__path_handle>(web::to(metrics::handle))]))
        .service(resource("/openapi.json", [endpoint::<specification::__path_handle>(web::to(specification::handle))]))
        .service(resource("/docs", [unlisted(Method::GET, web::to(docs::redirect))]))
        .service(resource("/docs/{file:.*}", [unlisted(Method::GET, web::to(docs::handle))]));
}
