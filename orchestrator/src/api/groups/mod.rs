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

use actix_web::web;

use super::{
    endpoint::{endpoint, resource},
    problem::{Code, Problem},
};
use crate::webhooks::registry::GROUP_PREFIX;

const NAME_CHARS_MAX: usize = 63;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let groups = web::scope("/groups")
        .service(resource("", [endpoint::<list::__path_handle>(web::to(list::handle))]))
        .service(resource(
            "/{name}",
            [
                endpoint::<get::__path_handle>(web::to(get::handle)),
                endpoint::<put::__path_handle>(web::to(put::handle)),
                endpoint::<drop::__path_handle>(web::to(drop::handle)),
            ],
        ))
        .service(resource("/{name}/poll", [endpoint::<poll::__path_handle>(web::to(poll::handle))]))
        .service(resource("/{name}/settle", [endpoint::<settle::__path_handle>(web::to(settle::handle))]))
        .service(resource("/{name}/stream", [endpoint::<stream::__path_handle>(web::to(stream::handle))]))
        .service(resource("/{name}/parked", [endpoint::<parked::__path_list>(web::to(parked::list))]))
        .service(resource(
            "/{name}/parked/{shard}/{position}",
            [endpoint::<parked::__path_drop>(web::to(parked::drop))],
        ))
        .service(resource(
            "/{name}/parked/{shard}/{position}/replay",
            [endpoint::<parked::__path_replay>(web::to(parked::replay))],
        ));
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
