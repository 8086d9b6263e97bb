//! `POST /sagas/{id}/steps/{step}/complete`: a participant tells how an operation ended that it had accepted (202).

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use skald_core::{
    decide::{Callback, CallbackOutcome},
    ids::{Operation, call_key},
};
use utoipa::ToSchema;

use super::super::{
    body::{Form, given},
    headers,
    params::{Params, saga_id},
    problem::{Code, Problem, problems},
    refusal,
    words::{SagaStatus, StepOperation},
};
use crate::app::App;

/// What a code or a reason of a participant is when it gives none.
const NO_CODE: &str = "rejected";

/// How an accepted operation ended.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CallbackRequest {
    operation: StepOperation,
    outcome: CallbackResult,
    /// What the answer's body would have been, if it succeeded.
    #[serde(default, deserialize_with = "given")]
    #[schema(required = false)]
    output: Option<Value>,
    /// Why it was rejected, for programs.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 100, example = "out_of_stock")]
    code: Option<String>,
    /// Why it was rejected, for people.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 1000)]
    reason: Option<String>,
}

/// How an operation ended: `rejected` had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallbackResult {
    Succeeded,
    Rejected,
}

/// The callback is durable.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallbackReceipt {
    #[schema(format = "uuid")]
    saga: String,
    step: String,
    operation: StepOperation,
    outcome: CallbackResult,
    /// Of the saga.
    status: SagaStatus,
    /// Of the saga.
    revision: u64,
}

problems!(
    Problems,
    InvalidJson,
    InvalidBody,
    InvalidParameter,
    MissingToken,
    WrongToken,
    SagaNotFound,
    SagaRemoved,
    StepNotFound,
    RequestTimeout,
    NotUnderWay,
    BodyTooLarge,
    UnsupportedMediaType,
    Overloaded,
    NoOwner,
    InDoubt,
    DatabaseUnavailable,
);

/// Complete an accepted step.
///
/// For a participant that answered a call with 202. The token came with the call, as `Saga-Callback-Token`. It may come
/// before the 202 did. A repetition is answered like the first; another outcome, or one that comes too late, 409.
#[utoipa::path(
    post,
    path = "/sagas/{id}/steps/{step}/complete",
    operation_id = "completeStep",
    tag = "callbacks",
    security(("callback_token" = [])),
    params(
        ("id" = String, Path, format = "uuid", description = "The saga"),
        ("step" = String, Path, description = "The step", example = "process_payment"),
        ("Saga-Callback-Token" = Option<String>, Header, nullable = false,
         description = "The token of the call; `Authorization: Bearer` does as well"),
    ),
    request_body(content = CallbackRequest),
    responses((status = 200, description = "It is durable", body = CallbackReceipt), Problems),
)]
pub async fn handle(
    app: web::Data<App>,
    req: HttpRequest,
    path: web::Path<(String, String)>,
    Form(request): Form<CallbackRequest>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let (id, step) = path.into_inner();
    let saga = saga_id(&id)?;
    let operation = Operation::from(request.operation);
    let token = headers::callback_token(req.headers())?;
    if !app.tokens().verify(&call_key(saga, &step, operation), token) {
        app.row(saga).await?;
        let detail = format!("The token is not that of the {operation} of step {} of this saga.", shown(&step));
        return Err(Problem::new(Code::WrongToken, detail));
    }
    let mut callback = Callback { step: step.clone(), operation, outcome: outcome(&request)? };
    if let Some(sealing) = app.sealing_of(saga).await? {
        sealing.seal_callback(&mut callback);
    }
    let row = match app.router().callback(saga, callback).await {
        Ok(row) => row,
        Err(refusal) => return Err(refusal::of_saga(&app, saga, refusal).await),
    };
    Ok(HttpResponse::Ok().json(CallbackReceipt {
        saga: saga.to_string(),
        step,
        operation: request.operation,
        outcome: request.outcome,
        status: row.status.into(),
        revision: row.version,
    }))
}

fn outcome(request: &CallbackRequest) -> Result<CallbackOutcome, Problem> {
    let misplaced = |field: &str, outcome: &str| {
        let reason = format!("belongs to the outcome {outcome} only");
        Err(Problem::in_field(Code::InvalidBody, field, reason))
    };
    match request.outcome {
        CallbackResult::Succeeded if request.code.is_some() => misplaced("/code", "rejected"),
        CallbackResult::Succeeded if request.reason.is_some() => misplaced("/reason", "rejected"),
        CallbackResult::Succeeded => {
            Ok(CallbackOutcome::Succeeded { output: request.output.clone().unwrap_or(Value::Null) })
        }
        CallbackResult::Rejected if request.output.is_some() => misplaced("/output", "succeeded"),
        CallbackResult::Rejected => Ok(CallbackOutcome::Rejected {
            code: text("/code", request.code.as_deref(), 100)?.unwrap_or_else(|| NO_CODE.to_owned()),
            reason: text("/reason", request.reason.as_deref(), 1000)?
                .unwrap_or_else(|| "the participant gave no reason".to_owned()),
        }),
    }
}

fn text(place: &str, text: Option<&str>, chars_max: usize) -> Result<Option<String>, Problem> {
    match text {
        Some(text) if text.is_empty() || text.chars().count() > chars_max => {
            Err(Problem::in_field(Code::InvalidBody, place, format!("must have 1 to {chars_max} characters")))
        }
        text => Ok(text.map(str::to_owned)),
    }
}

/// Of what a client sent, so much as an answer may repeat.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use reqwest::Method;
    use serde_json::{Value, json};
    use skald_core::classify::{Answer, Body, CallResult};

    use super::super::super::testing::{Reply, TestServer};

    fn accepted() -> CallResult {
        CallResult::Answered(Answer { status: 202, retry_after: None, location: None, body: Body::Empty })
    }

    fn token(server: &TestServer, id: &str, operation: &str) -> String {
        String::from_utf8(server.tokens.issue(&format!("{id}:publish:{operation}")).to_vec()).unwrap()
    }

    async fn call_back(server: &TestServer, id: &str, token: &str, body: Value) -> Reply {
        let request = server.request(Method::POST, &format!("/sagas/{id}/steps/publish/complete")).json(&body);
        server.send(request.header("Saga-Callback-Token", token)).await
    }

    #[actix_web::test]
    async fn a_callback_ends_the_step_and_its_repetition_is_answered_the_same() {
        let server = TestServer::start().await;
        server.participants.answer("publish:action", accepted());
        let id = server.start_note().await;
        let token = token(&server, &id, "action");
        let done = json!({"operation": "action", "outcome": "succeeded", "output": {"n": 7}});
        let mut first = call_back(&server, &id, &token, done.clone()).await;
        while first.status == 409 {
            // The step before may still be under way.
            first = call_back(&server, &id, &token, done.clone()).await;
        }
        assert_eq!(first.status, 200, "{}", first.text);
        let saga = server.until(&id, "completed").await;
        assert_eq!(saga.body["steps"][1]["output"], json!({"n": 7}));
        let again = call_back(&server, &id, &token, done).await;
        assert_eq!((again.status, &again.body["outcome"]), (200, &json!("succeeded")));
        let late = json!({"operation": "action", "outcome": "rejected", "code": "late"});
        call_back(&server, &id, &token, late).await.problem(409, "not_under_way");
    }

    #[actix_web::test]
    async fn a_rejecting_callback_undoes_the_saga() {
        let server = TestServer::start().await;
        server.participants.answer("publish:action", accepted());
        let id = server.start_note().await;
        while server.get(&format!("/sagas/{id}")).await.body["steps"][1]["attempts"][0].is_null() {}
        let rejected = json!({"operation": "action", "outcome": "rejected", "code": "no_room", "reason": "all full"});
        assert_eq!(call_back(&server, &id, &token(&server, &id, "action"), rejected).await.status, 200);
        let saga = server.until(&id, "compensated").await;
        assert_eq!(saga.body["failure"], json!({"step": "publish", "code": "no_room", "reason": "all full"}));
    }

    #[actix_web::test]
    async fn a_callback_needs_the_token_of_its_own_operation() {
        let server = TestServer::start().await;
        server.participants.answer("publish:action", accepted());
        let id = server.start_note().await;
        let done = json!({"operation": "action", "outcome": "succeeded"});
        let path = format!("/sagas/{id}/steps/publish/complete");
        server.post(&path, &done).await.problem(401, "missing_token");
        call_back(&server, &id, "guessed", done.clone()).await.problem(403, "wrong_token");
        let other = token(&server, &id, "compensation");
        call_back(&server, &id, &other, done.clone()).await.problem(403, "wrong_token");
        let nobody = "01890a5d-ac96-774b-bcce-b302099a8057";
        call_back(&server, nobody, &other, done.clone()).await.problem(404, "saga_not_found");
        let its_own = token(&server, nobody, "action");
        call_back(&server, nobody, &its_own, done).await.problem(404, "saga_not_found");
        for (body, place) in [
            (json!({"outcome": "succeeded"}), "/operation"),
            (json!({"operation": "action", "outcome": "unknown"}), "/outcome"),
            (json!({"operation": "action", "outcome": "succeeded", "code": "x"}), "/code"),
            (json!({"operation": "action", "outcome": "rejected", "output": 1}), "/output"),
            (json!({"operation": "action", "outcome": "rejected", "surprise": 1}), "/surprise"),
        ] {
            let reply = call_back(&server, &id, &token(&server, &id, "action"), body).await;
            reply.problem(400, "invalid_body");
            assert_eq!(reply.body["errors"][0]["place"], place);
        }
    }
}
