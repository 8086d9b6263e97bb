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

use actix_web::{http::Method, web};
use uuid::Uuid;

use super::{
    problem::{Code, Problem},
    resource,
};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let webhooks = web::scope("/webhooks")
        .service(resource("", [(Method::GET, web::to(list::handle)), (Method::POST, web::to(create::handle))]))
        .service(resource("/{id}", [(Method::GET, web::to(get::handle)), (Method::DELETE, web::to(delete::handle))]))
        .service(resource("/{id}/enable", [(Method::POST, web::to(enable::handle))]))
        .service(resource("/{id}/rotate", [(Method::POST, web::to(rotate::handle))]))
        .service(resource("/{id}/attempts", [(Method::GET, web::to(attempts::handle))]));
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
