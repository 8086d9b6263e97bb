//! `GET /admin/pauses`: what is paused, by whom and why; and what pausing definitions and participants share.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        params::Params,
        problem::{Problem, problems},
        words::Moment,
    },
    order::Order,
};
use crate::{
    access::scope::Scope,
    app::{App, store_problem},
    storage::{Pause, PauseKind},
};

/// A pause.
#[derive(Debug, Serialize, ToSchema)]
pub struct PauseView {
    kind: PausedKind,
    #[schema(example = "checkout")]
    name: String,
    actor: String,
    reason: String,
    since: Moment,
}

/// What is paused: a definition, of which no saga starts, or a participant, whose calls wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PausedKind {
    Definition,
    Participant,
}

/// Everything that is paused.
#[derive(Debug, Serialize, ToSchema)]
pub struct PauseList {
    items: Vec<PauseView>,
}

impl From<Pause> for PauseView {
    fn from(pause: Pause) -> Self {
        let kind = match pause.kind {
            PauseKind::Definition => PausedKind::Definition,
            PauseKind::Participant => PausedKind::Participant,
        };
        Self { kind, name: pause.name, actor: pause.actor, reason: pause.reason, since: pause.since.into() }
    }
}

problems!(Problems, InvalidParameter, DatabaseUnavailable);

/// List pauses.
#[utoipa::path(
    get,
    path = "/admin/pauses",
    operation_id = "listPauses",
    tag = "admin",
    security(("bearer" = [Scope::SystemRead])),
    responses((status = 200, description = "Everything that is paused", body = PauseList), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let pauses = app.read(|store| async move { store.pauses().await }).await?;
    Ok(HttpResponse::Ok().json(PauseList { items: pauses.into_iter().map(PauseView::from).collect() }))
}

problems!(
    /// Of pausing and resuming a definition.
    pub DefinitionPauseProblems,
    InvalidJson,
    InvalidBody,
    InvalidParameter,
    DefinitionNotFound,
    RequestTimeout,
    BodyTooLarge,
    UnsupportedMediaType,
    DatabaseUnavailable,
);

problems!(
    /// Of pausing and resuming a participant.
    pub ParticipantPauseProblems,
    InvalidJson,
    InvalidBody,
    InvalidParameter,
    ParticipantNotFound,
    RequestTimeout,
    BodyTooLarge,
    UnsupportedMediaType,
    DatabaseUnavailable,
);

const fn word(kind: PauseKind) -> &'static str {
    match kind {
        PauseKind::Definition => "definition",
        PauseKind::Participant => "participant",
    }
}

/// Pauses, and answers the pause.
///
/// # Errors
///
/// When it cannot be stored.
pub async fn pause(
    app: &App,
    req: &HttpRequest,
    kind: PauseKind,
    name: String,
    order: Order,
) -> Result<HttpResponse, Problem> {
    let act = order.act(req, &format!("{}.pause", word(kind)), format!("/{}s/{name}", word(kind)));
    tracing::info!(?kind, name, actor = order.actor, reason = order.reason, "paused by an operator");
    let pause = Pause { kind, name, actor: order.actor, reason: order.reason, since: app.clock().now() };
    let (pauses, stored) = (app.pauses().clone(), pause.clone());
    let work = app.detached(async move { pauses.pause(stored).await });
    app.recorded(act, async { work.await?.map_err(|error| store_problem(&error)) }).await?;
    Ok(HttpResponse::Ok().json(PauseView::from(pause)))
}

/// Ends a pause; there need not be one.
///
/// # Errors
///
/// When it cannot be stored.
pub async fn resume(
    app: &App,
    req: &HttpRequest,
    kind: PauseKind,
    name: String,
    order: Order,
) -> Result<HttpResponse, Problem> {
    let act = order.act(req, &format!("{}.resume", word(kind)), format!("/{}s/{name}", word(kind)));
    tracing::info!(?kind, name, actor = order.actor, reason = order.reason, "resumed by an operator");
    let pauses = app.pauses().clone();
    let work = app.detached(async move { pauses.resume(kind, &name).await });
    app.recorded(act, async { work.await?.map_err(|error| store_problem(&error)) }).await?;
    Ok(HttpResponse::NoContent().finish())
}
