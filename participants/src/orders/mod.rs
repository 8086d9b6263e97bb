//! Orders: confirmed, and maybe cancelled.
//!
//! A saga may begin with the order or end with it:
//!
//! | state       | confirm `PUT` | place     | confirm     | reopen    | cancel      |
//! | ----------- | ------------- | --------- | ----------- | --------- | ----------- |
//! | (none)      | `confirmed`   | `pending` | refused     | refused   | refused     |
//! | pending     | refused       | refused   | `confirmed` | nothing   | `cancelled` |
//! | confirmed   | refused       | refused   | refused     | `pending` | `cancelled` |
//! | cancelled   | refused       | refused   | refused     | refused   | nothing     |
//!
//! Cancel undoes `PUT` and place; reopen undoes confirm.

mod changes;
mod pending;
mod queries;
mod tables;

use actix_web::{http::Method, web};

use crate::offer::Offer;

pub(crate) use tables::prepare;

pub(crate) fn offer() -> Offer {
    Offer::default()
        .operation(Method::PUT, "/orders/{id}", "orders", changes::confirm)
        .operation(Method::POST, "/orders/{id}/cancel", "cancel", changes::cancel)
        .operation(Method::POST, "/orders/{id}/place", "place", pending::place)
        .operation(Method::POST, "/orders/{id}/confirm", "confirm", pending::confirm)
        .operation(Method::POST, "/orders/{id}/reopen", "reopen", pending::reopen)
        .other(Method::GET, "/orders", || web::get().to(queries::list))
        .other(Method::GET, "/orders/{id}", || web::get().to(queries::show))
}
