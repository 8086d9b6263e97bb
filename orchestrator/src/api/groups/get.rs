//! `GET /groups/{name}`: a consumer group, and how far it is behind.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    super::{
        params::Params,
        problem::{Problem, problems},
    },
    definition::GroupView,
    group_name, no_such_group,
};
use crate::{access::scope::Scope, app::App};

problems!(Problems, InvalidParameter, GroupNotFound, DatabaseUnavailable);

/// Show a consumer group.
///
/// What it wants, and how far it is behind.
#[utoipa::path(
    get,
    path = "/groups/{name}",
    operation_id = "getGroup",
    tag = "groups",
    security(("bearer" = [Scope::GroupsRead])),
    params(("name" = String, Path, description = "The group")),
    responses((status = 200, description = "The group", body = GroupView), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest, name: web::Path<String>) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    Ok(HttpResponse::Ok().json(view(&app, group_name(&name)?).await?))
}

/// # Errors
///
/// When there is no such group, or the database does not answer.
pub(super) async fn view(app: &App, name: String) -> Result<GroupView, Problem> {
    let asked = name.clone();
    let found = app
        .groups(move |groups| async move { Ok((groups.group(&asked).await?, groups.lags(Some(&asked)).await?)) })
        .await?;
    let (group, mut lags) = found;
    let lag = lags.remove(&name).unwrap_or_default();
    group.map(|group| GroupView::new(group, lag)).ok_or_else(|| no_such_group(&name))
}
