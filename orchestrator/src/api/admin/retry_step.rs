//! `POST /admin/sagas/{id}/steps/{step}/retry`: tries one step again.

use actix_web::{HttpRequest, HttpResponse, web};
use skald_core::decide::OperatorAction;

use super::{
    super::{body::Form, problem::Problem, request::RequestContext, view::Saga},
    answer::{ActionProblems, carry_out},
    order::{OperatorRequest, Order, OrderHeaders, RepeatHeader},
};
use crate::{access::scope::Scope, app::App};

/// Retry a step.
///
/// As `retrySaga` with this step.
#[utoipa::path(
    post,
    path = "/admin/sagas/{id}/steps/{step}/retry",
    operation_id = "retryStep",
    tag = "admin",
    security(("bearer" = [Scope::SagasOperate])),
    params(
        ("id" = String, Path, format = "uuid", description = "The saga"),
        ("step" = String, Path, description = "The step", example = "process_payment"),
        OrderHeaders,
        RepeatHeader,
    ),
    request_body(content = OperatorRequest),
    responses(
        (status = 200, description = "The saga as it is then", body = Saga, headers(("ETag" = String))),
        ActionProblems,
    ),
)]
pub async fn handle(
    app: web::Data<App>,
    context: RequestContext,
    req: HttpRequest,
    path: web::Path<(String, String)>,
    Form(request): Form<OperatorRequest>,
) -> Result<HttpResponse, Problem> {
    let (id, step) = path.into_inner();
    let order = Order::given(&req, &request.reason, request.actor)?;
    carry_out(&app, &context, &req, (&id, order), OperatorAction::Retry { step: Some(step) }).await
}
