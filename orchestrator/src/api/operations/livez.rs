//! `GET /livez`: whether the process serves requests at all. It asks nobody, so that a database that is down does not
//! get the process restarted.

use actix_web::HttpResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::problem::problems;

/// The process serves requests.
#[derive(Debug, Serialize, ToSchema)]
pub struct Liveness {
    /// `alive`.
    #[schema(example = "alive")]
    status: &'static str,
}

problems!(Problems);

/// Ask whether the process is alive.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "getLiveness",
    tag = "operations",
    security(()),
    responses((status = 200, description = "It is", body = Liveness), Problems),
)]
pub async fn handle() -> HttpResponse {
    HttpResponse::Ok().json(Liveness { status: "alive" })
}
