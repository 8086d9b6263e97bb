//! `/internal`: what replicas ask of each other. Not for clients, and not in the specification.
//!
//! A request must be sealed ([`crate::forward::seal`]); whatever is not is refused before its body is read. It is
//! carried out by this replica's own engine or not at all: nothing is forwarded twice.

mod append;
mod input;
mod start;
#[cfg(test)]
mod tests;

use std::time::Duration;

use actix_web::{FromRequest, HttpRequest, HttpResponse, dev::Payload, http::Method, web};
use futures_util::future::LocalBoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use skald_core::shard::writer::Refusal;

use super::{
    body::receive,
    endpoint::{resource, unlisted},
    headers::WAIT_MAX,
    problem::{Code, Problem},
};
use crate::{
    app::App,
    forward::seal::{BadSeal, HEADER, Target},
};

/// What a message has around what the client sent, at most.
const ENVELOPE_BYTES_MAX: usize = 64 * 1024;
/// How much longer a client's JSON can become when it is written again: `1e15` as `1000000000000000.0`.
const GROWTH_MAX: usize = 4;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(resource("/internal/appends", [unlisted(Method::POST, web::to(append::handle))]))
        .service(resource("/internal/sagas", [unlisted(Method::POST, web::to(start::handle))]))
        .service(resource("/internal/sagas/{id}/inputs", [unlisted(Method::POST, web::to(input::handle))]));
}

/// A message of another replica.
#[derive(Debug)]
pub struct FromReplica<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for FromReplica<T> {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (req, payload) = (req.clone(), payload.take());
        Box::pin(async move { Ok(Self(message(&req, payload).await?)) })
    }
}

async fn message<T: DeserializeOwned>(req: &HttpRequest, payload: Payload) -> Result<T, Problem> {
    let app = req.app_data::<web::Data<App>>().ok_or_else(|| Problem::internal("the request has no app"))?;
    let target = Target { method: req.method().as_str(), path: req.path() };
    let header = req.headers().get(HEADER).and_then(|value| value.to_str().ok());
    let seal = app.router().seals().check(target, header, app.clock().now()).map_err(refused)?;
    let body = receive(req, payload, GROWTH_MAX * app.body_bytes_max() + ENVELOPE_BYTES_MAX).await?;
    if !seal.covers(&body.bytes) {
        return Err(refused(BadSeal::Wrong));
    }
    tracing::debug!(replica = seal.sender, "a request was forwarded to here");
    serde_json::from_slice(&body.bytes).map_err(|error| {
        tracing::warn!(replica = seal.sender, %error, "another replica's message cannot be read");
        Problem::new(Code::InvalidBody, "The message cannot be read: the replicas may be of different versions.")
    })
}

fn refused(bad: BadSeal) -> Problem {
    let text = match bad {
        BadSeal::Missing => "The request does not show that it comes from a replica of this database.",
        BadSeal::Wrong => "The seal is not of a replica of this database, or not for this request.",
        BadSeal::Stale => "The seal was not made just now.",
    };
    Problem::new(Code::NotAReplica, text)
}

/// The engine's answer, whatever it is: what it means to the client, the sender knows.
fn answered<T: Serialize>(answer: &Result<T, Refusal>) -> HttpResponse {
    HttpResponse::Ok().json(answer)
}

/// How long to wait for a forwarded start; not at all while the server stops.
fn wait(app: &App, wait_ms: u64) -> Option<Duration> {
    let wait = Duration::from_millis(wait_ms).min(WAIT_MAX);
    (!wait.is_zero() && !*app.closing().borrow()).then_some(wait)
}
