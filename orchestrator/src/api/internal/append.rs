//! `POST /internal/appends`: an append that another replica received and does not own the shard of.

use actix_web::{HttpRequest, HttpResponse, web};
use skald_core::shard::appends::AppendRequest;

use super::{
    super::{params::Params, problem::Problem},
    FromReplica, answered,
};
use crate::app::App;

pub async fn handle(
    app: web::Data<App>,
    req: HttpRequest,
    FromReplica(request): FromReplica<AppendRequest>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    Ok(answered(&app.engine().append(request).await))
}
