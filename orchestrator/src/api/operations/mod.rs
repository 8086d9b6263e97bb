//! For whoever operates the service: is it alive, is it ready, what does it count, what can it do.

pub mod docs;
pub mod index;
pub mod livez;
pub mod metrics;
pub mod readyz;
pub mod specification;

use actix_web::{http::Method, web};

use super::resource;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(resource("/", [(Method::GET, web::to(index::handle))]))
        .service(resource("/livez", [(Method::GET, web::to(livez::handle))]))
        .service(resource("/readyz", [(Method::GET, web::to(readyz::handle))]))
        .service(resource("/metrics", [(Method::GET, web::to(metrics::handle))]))
        .service(resource("/openapi.json", [(Method::GET, web::to(specification::handle))]))
        .service(resource("/docs", [(Method::GET, web::to(docs::redirect))]))
        .service(resource("/docs/{file:.*}", [(Method::GET, web::to(docs::handle))]));
}
