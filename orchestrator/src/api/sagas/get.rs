//! `GET /sagas/{id}`: a saga as it is now.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, http::header, web};

use super::{
    super::{
        headers,
        params::{Params, saga_id},
        problem::{Problem, problems},
        view::Saga,
    },
    settled,
};
use crate::{access::scope::Scope, app::App};

problems!(Problems, InvalidParameter, SagaNotFound, SagaRemoved, DatabaseUnavailable);

/// Get a saga.
///
/// With `If-None-Match` and the `ETag` of an earlier answer: 304 while nothing has changed. With `Prefer: wait=N` the answer
/// comes when the saga has ended or is parked, or after N seconds.
#[utoipa::path(
    get,
    path = "/sagas/{id}",
    operation_id = "getSaga",
    tag = "sagas",
    security(("bearer" = [Scope::SagasRead])),
    params(
        ("id" = String, Path, format = "uuid", description = "The saga", example = "01890a5d-ac96-774b-bcce-b302099a8057"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` that is known already", example = "\"12\""),
        ("Prefer" = Option<String>, Header, nullable = false,
         description = "`wait=N`: wait at most N seconds (at most 60) until the saga has ended or is parked",
         example = "wait=20"),
    ),
    responses(
        (status = 200, description = "The saga", body = Saga, headers(
            ("ETag" = String, description = "The revision"),
            ("Preference-Applied" = String, description = "`wait=N`, if that was preferred"),
        )),
        (status = 304, description = "It is still at this revision", headers(("ETag" = String))),
        Problems,
    ),
)]
pub async fn handle(app: web::Data<App>, req: HttpRequest, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let id = saga_id(&id)?;
    let wait = headers::prefer(req.headers()).wait;
    if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
        settled::wait(&app, id, wait).await;
    }
    if req.headers().contains_key(header::IF_NONE_MATCH) {
        let revision = app.row(id).await?.version;
        if headers::if_none_match(req.headers(), revision) {
            return Ok(with(HttpResponse::NotModified(), revision, wait).finish());
        }
    }
    let saga = app.saga(id).await?;
    Ok(with(HttpResponse::Ok(), saga.revision, wait).json(saga))
}

fn with(mut response: HttpResponseBuilder, revision: u64, waited: Option<Duration>) -> HttpResponseBuilder {
    response.insert_header((header::ETAG, headers::etag(revision)));
    if let Some(wait) = waited {
        response.insert_header(("Preference-Applied", format!("wait={}", wait.as_secs())));
    }
    response
}

#[cfg(test)]
mod tests {
    use reqwest::Method;
    use serde_json::json;

    use super::super::super::testing::{TestServer, answered};

    #[actix_web::test]
    async fn a_look_waits_for_the_end_through_any_replica() {
        let (owner, other) = TestServer::pair().await;
        for server in [&owner, &other] {
            owner.participants.hold("publish:action");
            let id = owner.start_note().await;
            let look = |wait: &str| server.request(Method::GET, &format!("/sagas/{id}")).header("Prefer", wait);
            let early = server.send(look("wait=0")).await;
            assert_eq!((early.status, early.header("preference-applied")), (200, "wait=0"), "{}", early.text);
            let early = server.send(look("wait=1")).await;
            assert_eq!(early.body["status"], "running");
            let unchanged = look("wait=1").header("If-None-Match", early.header("etag"));
            let unchanged = server.send(unchanged).await;
            assert_eq!((unchanged.status, unchanged.header("preference-applied")), (304, "wait=1"));
            let known = look("wait=60").header("If-None-Match", early.header("etag"));
            let releasing = async { owner.participants.release("publish:action") };
            let (ended, ()) = tokio::join!(server.send(known), releasing);
            assert_eq!((ended.status, &ended.body["status"]), (200, &json!("completed")), "{}", ended.text);
            assert_eq!(ended.header("preference-applied"), "wait=60");
        }
    }

    #[actix_web::test]
    async fn a_look_does_not_wait_for_what_only_an_operator_moves_on_or_what_does_not_exist() {
        let server = TestServer::start().await;
        server.participants.answer("publish:action", answered(422, json!({"code": "no", "reason": "no"})));
        server.participants.answer("write:compensation", answered(410, json!({"code": "gone"})));
        let id = server.start_note().await;
        let look = |id: &str| server.request(Method::GET, &format!("/sagas/{id}")).header("Prefer", "wait=60");
        assert_eq!(server.send(look(&id)).await.body["status"], "parked");
        let nobody = server.send(look("01890a5d-ac96-774b-bcce-b302099a8057")).await;
        nobody.problem(404, "saga_not_found");
    }
}
