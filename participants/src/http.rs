//! Between actix-web and the kit: what every call of a saga goes through, and how answers go out.
//!
//! A handler sees a parsed request and a transaction, nothing of HTTP. Faults made on purpose
//! happen here, around the barrier, where a network or a crashing service would make them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse, Resource,
    http::{StatusCode, header},
    web,
};
use chrono::Utc;
use serde::de::DeserializeOwned;
use serde_json::Value;
use skald_kit::{Answer, Barrier, CallContext, Problem, Reply, SigningSecrets, Tell, Tx, TxFuture, reactor::Teller};
use tokio::sync::watch;

use crate::{
    body::Id,
    codes,
    faults::{self, Connection, Faults, Plan},
    metrics::Metrics,
    offer::{Asked, Operation},
};

const BODY_BYTES_MAX: usize = 1 << 20;
const HANG_MAX: Duration = Duration::from_secs(600);

/// What all endpoints of a service share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) service: &'static str,
    pub(crate) barrier: Barrier,
    pub(crate) metrics: Metrics,
    /// `None` when the service was started without `--faults`.
    pub(crate) faults: Option<Faults>,
    pub(crate) hold_grace: Duration,
    /// Calls must be signed with one of these.
    pub(crate) signing: Option<SigningSecrets>,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// A call as a handler gets it.
#[derive(Debug, Clone)]
pub(crate) struct Given<B> {
    pub(crate) call: CallContext,
    /// The `{id}` of the path, if it has one.
    pub(crate) path_id: Option<Id>,
    pub(crate) body: B,
    pub(crate) hold_grace: Duration,
}

/// Carries out an action or undoes one, inside the barrier's transaction.
pub(crate) type Handler<B> = for<'a> fn(&'a mut Tx, Given<B>) -> TxFuture<'a, Reply>;

/// A path of the API, which answers a problem to methods other than those in `allow`.
pub(crate) fn resource(path: &'static str, allow: impl Into<String>) -> Resource {
    let allow = allow.into();
    web::resource(path).default_service(web::to(move |request: HttpRequest| {
        let allow = allow.clone();
        async move {
            let detail = format!("{} takes {allow}", request.path());
            let mut response = send(&request, Problem::new(codes::WRONG_METHOD, detail).into());
            if let Ok(allow) = header::HeaderValue::from_str(&allow) {
                response.headers_mut().insert(header::ALLOW, allow);
            }
            response
        }
    }))
}

/// A call of a saga over HTTP.
pub(crate) async fn saga_call(
    request: HttpRequest,
    payload: web::Payload,
    shared: Arc<Shared>,
    operation: Operation,
) -> HttpResponse {
    let started = Instant::now();
    let answer = match read_call(&request, payload, shared.signing.as_ref()).await {
        Ok(asked) => {
            let call = asked.call.clone();
            let answer = operation.run(shared.clone(), asked).await;
            tracing::debug!(
                service = shared.service, operation = operation.name(), saga = %call.saga_id(), step = call.step(),
                key = %call.key, correlation_id = call.correlation_id, status = answer.status, "call answered"
            );
            answer
        }
        Err(problem) => problem.into(),
    };
    shared.metrics.called(operation.name(), answer.status, started.elapsed());
    send(&request, answer)
}

async fn read_call(
    request: &HttpRequest,
    payload: web::Payload,
    signing: Option<&SigningSecrets>,
) -> Result<Asked, Problem> {
    let body = read_body(payload).await?;
    let headers = || request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let call = CallContext::parse(request.method().as_str(), request.path(), headers(), &body)?;
    if let Some(secrets) = signing {
        secrets
            .verify_call(&call, headers(), &body, Utc::now())
            .map_err(|error| Problem::new(codes::UNSIGNED, error.to_string()))?;
    }
    Ok(Asked {
        call,
        path_id: path_id(request)?,
        body,
        tell: Arc::new(|_| Tell::Nothing),
        connection: request.conn_data::<Connection>().cloned(),
    })
}

/// Carries out one call of a saga: maybe fail on purpose, run behind the barrier. A reply that is to be lost cuts its
/// connection; without one the answer says nothing.
pub(crate) async fn carry_out<B>(
    shared: &Shared,
    operation: &'static str,
    handler: Handler<B>,
    given: Given<B>,
    tell: Teller,
    connection: Option<&Connection>,
) -> Answer
where
    B: Clone + Send + 'static,
{
    let plan = shared.faults.as_ref().map_or_else(Plan::default, |faults| faults.draw(operation));
    plan.names().for_each(|fault| shared.metrics.fault(operation, fault));
    if plan.hang {
        hang(shared).await;
        return Problem::new(codes::INJECTED_HANG, "this call hung until it was given up").into();
    }
    if let Some(delay) = plan.delay {
        tokio::time::sleep(delay).await;
    }
    if plan.error_500 {
        return Problem::new(codes::INJECTED_ERROR, "failed on purpose, without effect").into();
    }
    if let Some(pause) = plan.unavailable {
        return Problem::new(codes::INJECTED_UNAVAILABLE, "unavailable on purpose, without effect")
            .retry_after(pause)
            .into();
    }
    let handler = if plan.refuse { faults::refuse::<B> } else { handler };
    let run = |given: Given<B>| {
        let tell = tell.clone();
        shared.barrier.run_telling(given.call.clone(), move |tx| handler(tx, given), move |answer| tell(answer))
    };
    let mut answer = run(given.clone()).await;
    if plan.duplicate {
        answer = run(given).await;
    }
    if plan.lose_reply {
        match connection {
            Some(connection) => connection.cut(),
            None => return Problem::new(codes::INJECTED_ERROR, "the reply was lost on purpose").into(),
        }
    }
    answer
}

/// Actix drops this future when the client leaves.
async fn hang(shared: &Shared) {
    let mut stopping = shared.stopping.clone();
    let stop = stopping.wait_for(|stopping| *stopping);
    // Whichever comes first, the call is over: there is nothing to tell apart.
    let _ = tokio::time::timeout(HANG_MAX, stop).await;
}

/// # Errors
/// The body is over the limit or breaks off.
pub(crate) async fn read_body(payload: web::Payload) -> Result<web::Bytes, Problem> {
    match payload.to_bytes_limited(BODY_BYTES_MAX).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(Problem::new(codes::BODY_UNREADABLE, error.to_string())),
        Err(_) => Err(Problem::new(codes::TOO_LARGE, format!("a body may have {BODY_BYTES_MAX} bytes"))),
    }
}

/// The `{id}` of the path.
///
/// # Errors
/// It is empty, too long, or has control characters.
pub(crate) fn path_id(request: &HttpRequest) -> Result<Option<Id>, Problem> {
    request.match_info().get("id").map(|text| id_in_path(text.to_owned())).transpose()
}

/// # Errors
/// It is empty, too long, or has control characters.
pub(crate) fn id_in_path(text: String) -> Result<Id, Problem> {
    Id::try_from(text).map_err(|error| Problem::new(codes::INVALID_PATH, error.to_string()))
}

/// # Errors
/// A problem that names the unknown, missing or ill-typed parameter.
pub(crate) fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, Problem> {
    web::Query::<T>::from_query(request.query_string())
        .map(web::Query::into_inner)
        .map_err(|error| Problem::new(codes::INVALID_QUERY, error.to_string()))
}

/// Answers a query or a management call.
pub(crate) fn respond(request: &HttpRequest, result: Result<Value, Problem>) -> HttpResponse {
    send(request, result.map_or_else(Answer::from, |body| Answer::json(200, &body)))
}

/// Sends an answer, with the request's correlation id.
pub(crate) fn send(request: &HttpRequest, answer: Answer) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    response.insert_header((header::CONTENT_TYPE, answer.content_type));
    for (name, value) in answer.headers {
        response.insert_header((name, value));
    }
    if let Some(correlation_id) = request.headers().get("x-correlation-id") {
        response.insert_header(("x-correlation-id", correlation_id.clone()));
    }
    response.body(answer.body)
}

pub(crate) async fn no_such_path(request: HttpRequest) -> HttpResponse {
    send(&request, Problem::new(codes::NO_ROUTE, format!("there is nothing at {}", request.path())).into())
}

pub(crate) async fn livez(request: HttpRequest) -> HttpResponse {
    respond(&request, Ok(serde_json::json!({"status": "live"})))
}

pub(crate) async fn metrics(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    match shared.metrics.render() {
        Ok(text) => HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text),
        Err(error) => {
            tracing::error!(%error, "metrics can't be rendered");
            send(&request, Problem::new(skald_kit::problems::INTERNAL, "metrics can't be rendered").into())
        }
    }
}
