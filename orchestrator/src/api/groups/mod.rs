//! `/groups`: consumer groups, through which services in any language handle events.

pub mod definition;
pub mod drop;
pub mod get;
pub mod list;
pub mod parked;
pub mod poll;
pub mod put;
pub mod settle;
pub mod stream;
#[cfg(test)]
mod tests;

use actix_web::{http::Method, web};

use super::{
    problem::{Code, Problem},
    resource,
};
use crate::webhooks::registry::GROUP_PREFIX;

const NAME_CHARS_MAX: usize = 63;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let groups = web::scope("/groups")
        .service(resource("", [(Method::GET, web::to(list::handle))]))
        .service(resource(
            "/{name}",
            [
                (Method::GET, web::to(get::handle)),
                (Method::PUT, web::to(put::handle)),
                (Method::DELETE, web::to(drop::handle)),
            ],
        ))
        .service(resource("/{name}/poll", [(Method::POST, web::to(poll::handle))]))
        .service(resource("/{name}/settle", [(Method::POST, web::to(settle::handle))]))
        .service(resource("/{name}/stream", [(Method::GET, web::to(stream::handle))]))
        .service(resource("/{name}/parked", [(Method::GET, web::to(parked::list))]))
        .service(resource("/{name}/parked/{shard}/{position}", [(Method::DELETE, web::to(parked::drop))]))
        .service(resource("/{name}/parked/{shard}/{position}/replay", [(Method::POST, web::to(parked::replay))]));
    config.service(groups);
}

/// The group's name in a path.
///
/// # Errors
///
/// When it cannot be one.
pub(super) fn group_name(text: &str) -> Result<String, Problem> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if !begins || text.len() > NAME_CHARS_MAX || !text.bytes().all(allowed) {
        let reason = "must be a lower case letter and up to 62 of a-z, 0-9, _ and -";
        return Err(Problem::in_field(Code::InvalidParameter, "name", reason));
    }
    Ok(text.to_owned())
}

/// The name of a group in a path that clients may make, change and drop.
///
/// # Errors
///
/// When it cannot be one, or is a webhook's.
fn own_group_name(text: &str) -> Result<String, Problem> {
    if text.starts_with(GROUP_PREFIX) {
        return Err(Problem::in_field(Code::InvalidParameter, "name", "belongs to a webhook: change it by /webhooks"));
    }
    group_name(text)
}

pub(super) fn no_such_group(name: &str) -> Problem {
    Problem::new(Code::GroupNotFound, format!("There is no group {name}. Make it with PUT /groups/{name}."))
}
