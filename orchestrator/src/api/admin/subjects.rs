//! `GET /admin/subjects/{id}` and `POST /admin/subjects/{id}/erase`: whose personal data is held, and destroying it.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        body::Form,
        params::Params,
        problem::{Code, FieldProblem, Problem, problems},
        words::Moment,
    },
    order::{ActorHeader, OperatorRequest, Order},
};
use crate::{
    access::scope::Scope,
    app::App,
    storage::subjects::{Erased, SubjectRow},
};

/// A person whose data is, or was, held.
#[derive(Debug, Serialize, ToSchema)]
pub struct SubjectView {
    /// As the definitions' `personal.subject` gives it.
    #[schema(example = "customer-7")]
    id: String,
    state: SubjectState,
    /// When the first of what can be read now was sealed; absent when nothing can.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    since: Option<Moment>,
    /// Sagas that hold data that can be read now.
    #[schema(example = 3)]
    sagas: u64,
    /// The oldest first.
    erasures: Vec<SubjectErasure>,
}

/// Whether there is something to erase.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubjectState {
    /// Data of theirs can be read.
    Held,
    /// Nothing can be read any more.
    Erased,
}

/// An erasure that was carried out.
#[derive(Debug, Serialize, ToSchema)]
pub struct SubjectErasure {
    at: Moment,
    #[schema(example = "jane")]
    actor: String,
    #[schema(example = "asked for by the customer")]
    reason: String,
    /// Sagas whose data cannot be read since; those that retention removed do not count.
    #[schema(example = 3)]
    sagas: u64,
}

problems!(ReadProblems, InvalidParameter, SubjectNotFound, DatabaseUnavailable);

problems!(
    EraseProblems,
    InvalidJson,
    InvalidBody,
    InvalidParameter,
    SubjectNotFound,
    RequestTimeout,
    SubjectInUse,
    BodyTooLarge,
    UnsupportedMediaType,
    DatabaseUnavailable,
);

/// Show a subject.
///
/// Whether personal data of this person is held, and when it was erased.
#[utoipa::path(
    get,
    path = "/admin/subjects/{id}",
    operation_id = "getSubject",
    tag = "admin",
    security(("bearer" = [Scope::SubjectsRead])),
    params(("id" = String, Path, description = "As the definitions' `personal.subject` gives it", example = "customer-7")),
    responses((status = 200, description = "The subject", body = SubjectView), ReadProblems),
)]
pub async fn get(app: web::Data<App>, req: HttpRequest, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let id = id.into_inner();
    let rows = rows(&app, &id).await?;
    Ok(HttpResponse::Ok().json(view(id, rows)?))
}

/// Erase a subject.
///
/// Destroys the key under which this person's data is sealed: in sagas, events and archives it can be read by nobody any more.
/// Not while one of their sagas is unfinished. A repetition changes nothing.
#[utoipa::path(
    post,
    path = "/admin/subjects/{id}/erase",
    operation_id = "eraseSubject",
    tag = "admin",
    security(("bearer" = [Scope::SubjectsErase])),
    params(
        ("id" = String, Path, description = "As the definitions' `personal.subject` gives it", example = "customer-7"),
        ActorHeader,
    ),
    request_body(content = OperatorRequest),
    responses((status = 200, description = "It is erased", body = SubjectView), EraseProblems),
)]
pub async fn erase(
    app: web::Data<App>,
    req: HttpRequest,
    id: web::Path<String>,
    Form(request): Form<OperatorRequest>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let id = id.into_inner();
    let order = Order::given(&req, &request.reason, request.actor)?;
    let subject = app.sealing().subject(&id);
    // The audit log must not keep the name that is to be forgotten.
    let act = order.act(&req, "subject.erase", format!("/subjects/{subject}"));
    let sealing = Arc::clone(app.sealing());
    let erase = |store: Arc<dyn crate::storage::Store>| async move {
        let erased = store.erase(&subject, &order.actor, &order.reason).await;
        // Also when nobody knows how it ended.
        sealing.forget(&subject);
        erased
    };
    match app.recorded(act, app.read(erase)).await? {
        Erased::Unknown => Err(not_found(&id)),
        Erased::InUse(sagas) => {
            let in_use = |(saga, status): (skald_core::ids::SagaId, skald_core::state::Status)| {
                FieldProblem::new(format!("/sagas/{saga}"), format!("is {status}"))
            };
            Err(Problem::at(Code::SubjectInUse, sagas.into_iter().map(in_use).collect()))
        }
        Erased::Done(_) => {
            let rows = rows(&app, &id).await?;
            Ok(HttpResponse::Ok().json(view(id, rows)?))
        }
    }
}

async fn rows(app: &App, id: &str) -> Result<Vec<SubjectRow>, Problem> {
    let subject = app.sealing().subject(id);
    app.read(|store| async move { store.subject(&subject).await }).await
}

fn view(id: String, rows: Vec<SubjectRow>) -> Result<SubjectView, Problem> {
    if rows.is_empty() {
        return Err(not_found(&id));
    }
    let live = rows.iter().find(|row| row.erasure.is_none());
    let (since, sagas) = live.map_or((None, 0), |row| (Some(row.created_at.into()), row.sagas));
    let state = if live.is_some() { SubjectState::Held } else { SubjectState::Erased };
    let erasures = rows.into_iter().filter_map(|row| {
        let sagas = row.sagas;
        row.erasure.map(|by| SubjectErasure { at: by.at.into(), actor: by.actor, reason: by.reason, sagas })
    });
    Ok(SubjectView { id, state, since, sagas, erasures: erasures.collect() })
}

fn not_found(id: &str) -> Problem {
    let id: String = id.chars().filter(|c| !c.is_control()).take(64).collect();
    Problem::new(Code::SubjectNotFound, format!("No personal data of {id} was ever held."))
}

#[cfg(test)]
mod tests;
