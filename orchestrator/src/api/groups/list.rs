//! `GET /groups`: the consumer groups, and how far each is behind.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        params::Params,
        problem::{Problem, problems},
    },
    definition::GroupView,
};
use crate::{access::scope::Scope, app::App, storage::groups::Group};

problems!(Problems, InvalidParameter, DatabaseUnavailable);

/// Every consumer group, by name.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupList {
    pub items: Vec<GroupView>,
}

/// List consumer groups.
#[utoipa::path(
    get,
    path = "/groups",
    operation_id = "listGroups",
    tag = "groups",
    security(("bearer" = [Scope::GroupsRead])),
    responses((status = 200, description = "Every group", body = GroupList), Problems),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let (groups, mut lags) = app
        .groups(|groups| async move {
            let found = groups.groups().await?;
            Ok((found, groups.lags(None).await?))
        })
        .await?;
    let view = |group: Group| {
        let lag = lags.remove(&group.name).unwrap_or_default();
        GroupView::new(group, lag)
    };
    Ok(HttpResponse::Ok().json(GroupList { items: groups.into_iter().map(view).collect() }))
}
