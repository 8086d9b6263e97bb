//! `/webhooks`: whom to tell when a saga ends or parks.

pub mod attempts;
pub mod create;
pub mod delete;
pub mod enable;
pub mod get;
pub mod list;
pub mod rotate;
#[cfg(test)]
mod tests;
pub mod view;

use actix_web::web;
use uuid::Uuid;

use super::{
    endpoint::{endpoint, resource},
    problem::{Code, Problem},
};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let webhooks = web::scope("/webhooks")
        .service(resource(
            "",
            [
                endpoint::<list::__path_handle>(web::to(list::handle)),
                endpoint::<create::__path_handle>(web::to(create::handle)),
            ],
        ))
        .service(resource(
            "/{id}",
            [
                endpoint::<get::__path_handle>(web::to(get::handle)),
                endpoint::<delete::__path_handle>(web::to(delete::handle)),
            ],
        ))
        .service(resource("/{id}/enable", [endpoint::<enable::__path_handle>(web::to(enable::handle))]))
        .service(resource("/{id}/rotate", [endpoint::<rotate::__path_handle>(web::to(rotate::handle))]))
        .service(resource("/{id}/attempts", [endpoint::<attempts::__path_handle>(web::to(attempts::handle))]));
    config.service(webhooks);
}

/// The id in a path. What is no id names no webhook.
fn webhook_id(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| no_such_webhook(text))
}

fn no_such_webhook(id: impl std::fmt::Display) -> Problem {
    let id: String = id.to_string().chars().take(100).collect();
    Problem::new(Code::WebhookNotFound, format!("There is no webhook {id}."))
}
