//! Carrying out an operator's command on one saga, and answering with the saga.

use actix_web::{HttpRequest, HttpResponse, http::header};
use skald_core::{
    decide::{OperatorAction, OperatorCommand},
    ids::SagaId,
};

use super::{
    super::{
        headers,
        params::{Params, saga_id},
        problem::{Code, Problem, problems},
        refusal,
        request::RequestContext,
    },
    order::Order,
};
use crate::app::App;

problems!(
    /// Of every action on one saga.
    pub ActionProblems,
    InvalidJson,
    InvalidBody,
    InvalidParameter,
    SagaNotFound,
    SagaRemoved,
    StepNotFound,
    RequestTimeout,
    SagaEnded,
    NotPossible,
    RevisionMismatch,
    BodyTooLarge,
    UnsupportedMediaType,
    KeyReused,
    OutputRequired,
    Overloaded,
    NoOwner,
    InDoubt,
    DatabaseUnavailable,
);

/// Carries out the action, and answers the saga as it is then.
///
/// # Errors
///
/// When the saga does not exist, is at another revision, or does not allow the action as it is.
pub async fn carry_out(
    app: &App,
    context: &RequestContext,
    req: &HttpRequest,
    (id, order): (&str, Order),
    action: OperatorAction,
) -> Result<HttpResponse, Problem> {
    Params::of(req).finish()?;
    let saga = saga_id(id)?;
    let act = order.act(req, &format!("saga.{}", word(&action)), target(saga, &action));
    app.recorded(act, act_on(app, context, req, (saga, order), action)).await
}

/// What the audit log calls it.
pub const fn word(action: &OperatorAction) -> &'static str {
    match action {
        OperatorAction::Retry { .. } => "retry",
        OperatorAction::Compensate => "compensate",
        OperatorAction::Abandon => "abandon",
        OperatorAction::Skip { .. } => "skip",
        OperatorAction::Resolve { .. } => "resolve",
    }
}

fn target(saga: SagaId, action: &OperatorAction) -> String {
    match action {
        OperatorAction::Retry { step: Some(step) }
        | OperatorAction::Skip { step, .. }
        | OperatorAction::Resolve { step, .. } => format!("/sagas/{saga}/steps/{step}"),
        OperatorAction::Retry { step: None } | OperatorAction::Compensate | OperatorAction::Abandon => {
            format!("/sagas/{saga}")
        }
    }
}

async fn act_on(
    app: &App,
    context: &RequestContext,
    req: &HttpRequest,
    (saga, order): (SagaId, Order),
    action: OperatorAction,
) -> Result<HttpResponse, Problem> {
    let mut command = OperatorCommand {
        actor: order.actor,
        reason: order.reason,
        request_id: Some(order.request_id),
        correlation_id: Some(context.correlation_id.to_string()),
        expected_revision: headers::if_match(req.headers())?,
        action,
    };
    if let Some(sealing) = app.sealing_of(saga).await? {
        sealing.seal_command(&mut command);
    }
    if let Err(refused) = app.router().operate(saga, command).await {
        return Err(refusal::of_saga(app, saga, refused).await);
    }
    let saga = app.saga(saga).await.map_err(|problem| {
        let detail = "The change was made; the saga cannot be read at the moment.";
        let cause = problem.cause().unwrap_or_default().to_owned();
        Problem::new(Code::DatabaseUnavailable, detail).retry_after(1).caused_by(cause)
    })?;
    Ok(HttpResponse::Ok().insert_header((header::ETAG, headers::etag(saga.revision))).json(saga))
}
