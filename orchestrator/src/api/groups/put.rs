//! `PUT /groups/{name}`: makes a consumer group, or changes it.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    super::{
        body::Form,
        params::Params,
        problem::{Problem, problems},
    },
    definition::{GroupRequest, GroupView},
    get, own_group_name,
};
use crate::{access::scope::Scope, app::App, storage::groups::PutGroup};

problems!(
    Problems,
    InvalidJson,
    InvalidBody,
    InvalidParameter,
    RequestTimeout,
    BodyTooLarge,
    UnsupportedMediaType,
    DatabaseUnavailable,
);

/// Make or change a consumer group.
///
/// Each event that a group wants is handled, or parked, at least once, each stream in order, however many consumers share
/// the work. A change is for whatever the group looks at from then on.
#[utoipa::path(
    put,
    path = "/groups/{name}",
    operation_id = "putGroup",
    tag = "groups",
    security(("bearer" = [Scope::GroupsConsume])),
    params(("name" = String, Path, description = "A lower case letter and up to 62 of a-z, 0-9, _ and -")),
    request_body(content = GroupRequest),
    responses(
        (status = 200, description = "The group as it is now", body = GroupView),
        (status = 201, description = "The group is new", body = GroupView),
        Problems,
    ),
)]
pub async fn handle(
    app: web::Data<App>,
    req: HttpRequest,
    name: web::Path<String>,
    Form(request): Form<GroupRequest>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let group = request.checked(own_group_name(&name)?)?;
    let name = group.name.clone();
    let put = app.groups(move |groups| async move { groups.put_group(&group).await }).await?;
    let view = get::view(&app, name).await?;
    let mut response = match put {
        PutGroup::Created => HttpResponse::Created(),
        PutGroup::Changed | PutGroup::Unchanged => HttpResponse::Ok(),
    };
    Ok(response.json(view))
}
