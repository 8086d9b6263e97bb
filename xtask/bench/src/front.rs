//! What many write first: a service that makes the calls itself and keeps nothing.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};

use crate::{order::Order, services::Services};

pub const PATH: &str = "/checkout";

pub async fn checkout(services: Data<Services>, order: Json<Order>) -> HttpResponse {
    match services.checkout(&order).await {
        Ok(ending) => HttpResponse::Created().json(ending),
        Err(error) => HttpResponse::BadGateway().body(format!("{error:#}")),
    }
}
