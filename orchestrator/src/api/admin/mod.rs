//! `/admin`: what operators do. Each action needs who and why, and is recorded with both.

pub mod abandon;
mod answer;
pub mod bulk;
pub mod compensate;
pub mod definitions;
pub mod order;
pub mod participants;
pub mod pauses;
pub mod replicas;
pub mod resolve;
pub mod retry;
pub mod retry_step;
pub mod skip;
pub mod subjects;

use actix_web::{http::Method, web};

use super::resource;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let mut post = |path: &str, route| {
        config.service(resource(path, [(Method::POST, route)]));
    };
    post("/admin/sagas/retry", web::to(bulk::retry));
    post("/admin/sagas/compensate", web::to(bulk::compensate));
    post("/admin/sagas/abandon", web::to(bulk::abandon));
    post("/admin/sagas/{id}/retry", web::to(retry::handle));
    post("/admin/sagas/{id}/compensate", web::to(compensate::handle));
    post("/admin/sagas/{id}/abandon", web::to(abandon::handle));
    post("/admin/sagas/{id}/steps/{step}/retry", web::to(retry_step::handle));
    post("/admin/sagas/{id}/steps/{step}/skip", web::to(skip::handle));
    post("/admin/sagas/{id}/steps/{step}/resolve", web::to(resolve::handle));
    post("/admin/definitions/{name}/pause", web::to(definitions::pause));
    post("/admin/definitions/{name}/resume", web::to(definitions::resume));
    post("/admin/participants/{name}/pause", web::to(participants::pause));
    post("/admin/participants/{name}/resume", web::to(participants::resume));
    post("/admin/subjects/{id}/erase", web::to(subjects::erase));
    config.service(resource("/admin/pauses", [(Method::GET, web::to(pauses::handle))]));
    config.service(resource("/admin/subjects/{id}", [(Method::GET, web::to(subjects::get))]));
    config.service(resource("/admin/replicas", [(Method::GET, web::to(replicas::handle))]));
}
