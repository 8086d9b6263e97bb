//! Changes that belong to no saga: someone manages products, stock or customers.
//!
//! They need no `Idempotency-Key`. With one, in the form that sagas use, they go through the barrier
//! and their effects into the ledger; without one they are plain transactions.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::de::DeserializeOwned;
use skald_kit::{Answer, CallContext, Failure, Problem, Rejection, Reply, Tx, TxFuture};

use crate::{
    body::{self, Id},
    codes,
    http::{self, Shared},
};

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked<B> {
    /// The `{id}` of the path, if it has one.
    pub(crate) path_id: Option<Id>,
    pub(crate) body: B,
}

/// Makes a change, inside a transaction.
pub(crate) type Change<B> = for<'a> fn(&'a mut Tx, Asked<B>) -> TxFuture<'a, Reply>;

/// Refuses a value.
pub(crate) fn invalid(field: &str, reason: String) -> Failure {
    Failure::Rejected(Rejection::new(codes::INVALID_VALUE, format!("{field}: {reason}")).with("field", field))
}

/// Reads a request and makes its change.
pub(crate) async fn change<B>(
    request: &HttpRequest,
    payload: web::Payload,
    shared: &Shared,
    change: Change<B>,
) -> HttpResponse
where
    B: DeserializeOwned + Send + 'static,
{
    let answer = make(request, payload, shared, change).await.unwrap_or_else(Answer::from);
    http::send(request, answer)
}

async fn make<B>(
    request: &HttpRequest,
    payload: web::Payload,
    shared: &Shared,
    change: Change<B>,
) -> Result<Answer, Problem>
where
    B: DeserializeOwned + Send + 'static,
{
    let bytes = http::read_body(payload).await?;
    let asked = Asked { path_id: http::path_id(request)?, body: body::parse::<B>(&bytes)? };
    if request.headers().contains_key("idempotency-key") {
        let headers = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let call = CallContext::parse(request.method().as_str(), request.path(), headers, &bytes)?;
        return Ok(shared.barrier.run(call, move |tx| change(tx, asked)).await);
    }
    let reply = shared.barrier.db().transaction(move |tx| change(tx, asked)).await?;
    Ok(reply.into())
}
