//! `DELETE /groups/{name}`: forgets a consumer group.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    super::{
        endpoint,
        params::Params,
        problem::{Problem, problems},
    },
    no_such_group, own_group_name,
};
use crate::{access::scope::Scope, app::App};

problems!(Problems, InvalidParameter, GroupNotFound, DatabaseUnavailable);

/// Forget a consumer group.
///
/// With its place in the log and whatever it has parked. The events stay.
#[utoipa::path(
    delete,
    path = "/groups/{name}",
    operation_id = "dropGroup",
    tag = "groups",
    security(("bearer" = [Scope::GroupsManage])),
    params(("name" = String, Path, description = "The group")),
    responses((status = 204, description = "It is gone"), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest, name: web::Path<String>) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let name = own_group_name(&name)?;
    let asked = name.clone();
    let act = endpoint::act(&req, "group.drop", format!("/groups/{name}"));
    match app.recorded(act, app.groups(move |groups| async move { groups.drop_group(&asked).await })).await? {
        true => Ok(HttpResponse::NoContent().finish()),
        false => Err(no_such_group(&name)),
    }
}
