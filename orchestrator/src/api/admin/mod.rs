//! `/admin`: what operators do. Each action needs who and why, and is recorded with both.

pub mod abandon;
mod answer;
pub mod audit;
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

use actix_web::web;

use super::endpoint::{endpoint, resource};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let mut at = |path: &str, endpoint| {
        config.service(resource(path, [endpoint]));
    };
    at("/admin/sagas/retry", endpoint::<bulk::__path_retry>(web::to(bulk::retry)));
    at("/admin/sagas/compensate", endpoint::<bulk::__path_compensate>(web::to(bulk::compensate)));
    at("/admin/sagas/abandon", endpoint::<bulk::__path_abandon>(web::to(bulk::abandon)));
    at("/admin/sagas/{id}/retry", endpoint::<retry::__path_handle>(web::to(retry::handle)));
    at("/admin/sagas/{id}/compensate", endpoint::<compensate::__path_handle>(web::to(compensate::handle)));
    at("/admin/sagas/{id}/abandon", endpoint::<abandon::__path_handle>(web::to(abandon::handle)));
    at("/admin/sagas/{id}/steps/{step}/retry", endpoint::<retry_step::__path_handle>(web::to(retry_step::handle)));
    at("/admin/sagas/{id}/steps/{step}/skip", endpoint::<skip::__path_handle>(web::to(skip::handle)));
    at("/admin/sagas/{id}/steps/{step}/resolve", endpoint::<resolve::__path_handle>(web::to(resolve::handle)));
    at("/admin/definitions/{name}/pause", endpoint::<definitions::__path_pause>(web::to(definitions::pause)));
    at("/admin/definitions/{name}/resume", endpoint::<definitions::__path_resume>(web::to(definitions::resume)));
    at("/admin/participants/{name}/pause", endpoint::<participants::__path_pause>(web::to(participants::pause)));
    at("/admin/participants/{name}/resume", endpoint::<participants::__path_resume>(web::to(participants::resume)));
    at("/admin/subjects/{id}/erase", endpoint::<subjects::__path_erase>(web::to(subjects::erase)));
    at("/admin/pauses", endpoint::<pauses::__path_handle>(web::to(pauses::handle)));
    at("/admin/subjects/{id}", endpoint::<subjects::__path_get>(web::to(subjects::get)));
    at("/admin/audit", endpoint::<audit::__path_handle>(web::to(audit::handle)));
    at("/admin/replicas", endpoint::<replicas::__path_handle>(web::to(replicas::handle)));
}
