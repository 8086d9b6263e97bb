//! The HTTP API: one endpoint per file, found by its path; errors from one table of codes ([`problem`]).
//!
//! The API knows the engine's handle and the store's reading side. It decides nothing about sagas.

mod admin;
#[cfg(test)]
mod bad_input;
mod body;
pub mod cursor;
mod definitions;
mod endpoint;
pub mod events;
mod groups;
mod headers;
pub mod heads;
mod internal;
mod observe;
pub mod openapi;
mod operations;
mod params;
pub mod pauses;
pub mod problem;
mod refusal;
pub mod request;
mod sagas;
#[cfg(test)]
pub mod testing;
pub mod view;
mod webhooks;
mod words;

use actix_web::{HttpRequest, HttpResponse, error::PathError, web};

use self::problem::{Code, Problem};
pub use self::words::Moment;

/// Every path of the API.
pub fn routes(config: &mut web::ServiceConfig) {
    config.app_data(web::PathConfig::default().error_handler(bad_path));
    // A request's path is held against one pattern after the other: those asked for most come first, and are in scopes, so
    // that a word spares the patterns behind it.
    events::routes(config);
    groups::routes(config);
    sagas::routes(config);
    admin::routes(config);
    definitions::routes(config);
    webhooks::routes(config);
    operations::routes(config);
    internal::routes(config);
}

/// The answer where there is nothing.
pub async fn nothing_here(req: HttpRequest) -> Result<HttpResponse, Problem> {
    let path: String = req.path().chars().take(200).collect();
    Err(Problem::new(Code::NotFound, format!("There is nothing at {path}.")))
}

fn bad_path(_: PathError, _: &HttpRequest) -> actix_web::Error {
    Problem::new(Code::BadRequest, "The path holds characters that cannot be read.").into()
}
