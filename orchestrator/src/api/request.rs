//! What surrounds every request: its correlation id, its span, its metrics, and that whatever goes wrong is answered as
//! a problem: an error of the framework, a panic of a handler.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use actix_web::{
    Error, FromRequest, HttpMessage, HttpRequest,
    body::{BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::{
        StatusCode,
        header::{CONTENT_TYPE, HeaderMap, HeaderValue},
    },
    middleware::Next,
    web,
};
use futures_util::FutureExt;
use tracing::Instrument;
use uuid::Uuid;

use super::{
    endpoint, headers,
    problem::{CORRELATION_ID, Code, Problem},
};
use crate::app::App;

/// What belongs to a request, wherever it leads.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The client's, or one made here.
    pub correlation_id: Arc<str>,
    /// The client's W3C trace context, if it is well-formed.
    pub traceparent: Option<String>,
}

impl RequestContext {
    /// Of this request, if it has come this far.
    pub fn correlation_id(req: &HttpRequest) -> Option<String> {
        req.extensions().get::<Self>().map(|context| context.correlation_id.to_string())
    }
}

impl FromRequest for RequestContext {
    type Error = Error;
    type Future = std::future::Ready<Result<Self, Error>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let context = req.extensions().get::<Self>().cloned();
        std::future::ready(context.ok_or_else(|| Problem::internal("the request has no context").into()))
    }
}

/// The outermost layer. Everything that leaves it carries the correlation id; every error is a problem.
///
/// # Errors
///
/// When a handler panicked; the error renders as a problem.
pub async fn surround(
    req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let begun = Instant::now();
    let (correlation_id, refusal) = correlation_id(req.headers());
    let app = req.app_data::<web::Data<App>>().cloned();
    let method = req.method().clone();
    let span = tracing::info_span!("http", %method, path = req.path(), %correlation_id);
    let context = RequestContext {
        correlation_id: Arc::from(correlation_id.as_str()),
        traceparent: headers::traceparent(req.headers()),
    };
    req.extensions_mut().insert(context);

    let answered = match refusal {
        Some(problem) => Ok(Ok(req.error_response(problem))),
        None => {
            let answer = async { next.call(req).await.map(ServiceResponse::map_into_boxed_body) };
            AssertUnwindSafe(answer).catch_unwind().instrument(span.clone()).await
        }
    };
    let _entered = span.enter();
    let answered = match answered {
        Ok(Ok(response)) => {
            let mut response = finish(response, &correlation_id);
            endpoint::tell_allowance(&mut response);
            Ok(response)
        }
        Ok(Err(error)) => Err(as_problem(Some(&error), StatusCode::INTERNAL_SERVER_ERROR)),
        Err(panic) => Err(Problem::internal(format_args!("a handler panicked: {}", panic_text(&*panic)))),
    };
    let (route, status) = match &answered {
        Ok(response) => (response.request().match_pattern(), response.status().as_u16()),
        Err(problem) => (None, problem.code().status()),
    };
    if let Some(app) = app {
        super::observe::request_ended(app.metrics(), &method, route.as_deref(), status, begun.elapsed());
    }
    answered.map_err(|problem| {
        log(&problem);
        problem.with_correlation_id(&correlation_id).into()
    })
}

/// The client's correlation id, or a new one with what is wrong with the client's.
#[expect(clippy::disallowed_methods, reason = "a correlation id is no saga's id")]
fn correlation_id(headers: &HeaderMap) -> (String, Option<Problem>) {
    let made = || Uuid::now_v7().to_string();
    match headers::correlation_id(headers) {
        Ok(Some(id)) => (id, None),
        Ok(None) => (made(), None),
        Err(problem) => (made(), Some(problem)),
    }
}

/// Adds the correlation id, and makes a problem of any error that is not one yet.
fn finish(mut response: ServiceResponse<BoxBody>, correlation_id: &str) -> ServiceResponse<BoxBody> {
    let status = response.status();
    // An endpoint may have said all there is to say, as readiness does; the framework's bare answers have no content.
    let is_bare = response.response().error().is_some() || !response.headers().contains_key(CONTENT_TYPE);
    if is_bare && (status.is_client_error() || status.is_server_error()) {
        let problem = as_problem(response.response().error(), status).with_correlation_id(correlation_id);
        log(&problem);
        endpoint::note_refusal(response.request(), &problem);
        return response.into_response(problem.response());
    }
    let value = HeaderValue::from_str(correlation_id).expect("a correlation id is visible ASCII");
    response.headers_mut().insert(CORRELATION_ID, value);
    response
}

/// An error as it is, when it is ours; else what its status says. The framework's own text is not for clients.
fn as_problem(error: Option<&Error>, status: StatusCode) -> Problem {
    if let Some(problem) = error.and_then(Error::as_error::<Problem>) {
        return problem.clone();
    }
    match status {
        StatusCode::NOT_FOUND => Problem::new(Code::NotFound, "There is nothing at this path."),
        StatusCode::METHOD_NOT_ALLOWED => Problem::new(Code::MethodNotAllowed, "The path does not have this method."),
        StatusCode::REQUEST_TIMEOUT => Problem::new(Code::RequestTimeout, "The request took too long to arrive."),
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::BodyTooLarge, "The body is too large."),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(Code::UnsupportedMediaType, "The body cannot be read."),
        status if status.is_client_error() => Problem::new(Code::BadRequest, "The request cannot be understood."),
        status => Problem::internal(error.map_or_else(|| status.to_string(), Error::to_string)),
    }
}

/// Once per request, here: what the client did wrong at a low level, what went wrong inside loudly.
fn log(problem: &Problem) {
    let (code, detail) = (problem.code().as_str(), problem.detail());
    match problem.cause() {
        Some(cause) if problem.code() == Code::Internal => tracing::error!(code, cause, "a request failed"),
        Some(cause) => tracing::warn!(code, cause, "a request failed"),
        None => tracing::debug!(code, detail, "a request was refused"),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}

#[cfg(test)]
mod tests {
    use actix_web::{
        App as Service, HttpResponse,
        middleware::from_fn,
        test::{TestRequest, init_service, try_call_service},
        web,
    };
    use reqwest::Method;

    use super::*;
    use crate::api::testing::TestServer;

    async fn panics() -> HttpResponse {
        panic!("a secret")
    }

    #[actix_web::test]
    async fn a_panic_is_a_problem_without_its_text() {
        let service = init_service(Service::new().wrap(from_fn(surround)).route("/", web::get().to(panics))).await;
        let error = try_call_service(&service, TestRequest::get().to_request()).await.unwrap_err();
        let response = error.error_response();
        assert_eq!(response.status(), 500);
        assert!(response.headers().contains_key(CORRELATION_ID));
        let body = actix_web::body::to_bytes(response.into_body()).await.unwrap();
        let text = std::str::from_utf8(&body).unwrap();
        assert!(text.contains("internal_error") && !text.contains("secret"), "{text}");
    }

    #[actix_web::test]
    async fn a_correlation_id_is_taken_kept_and_given_back() {
        let server = TestServer::start().await;
        let start = server.request(Method::POST, "/sagas/note").header("X-Correlation-Id", "corr-1").body("{}");
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let reply = server.send(start.header("traceparent", trace)).await;
        assert_eq!((reply.header("x-correlation-id"), &reply.body["correlation_id"]), ("corr-1", &"corr-1".into()));
        let calls = server.participants.calls.lock().unwrap().clone();
        assert!(calls.iter().all(|call| &*call.correlation_id == "corr-1"));
        assert!(calls.iter().all(|call| call.traceparent.as_deref() == Some(trace)));
        let made = server.get("/livez").await;
        assert_eq!(Uuid::parse_str(made.header("x-correlation-id")).unwrap().get_version_num(), 7);
        let bad = server.request(Method::GET, "/livez").header("X-Correlation-Id", "two words");
        let bad = server.send(bad).await;
        bad.problem(400, "invalid_header");
        assert_eq!(bad.body["errors"][0]["place"], "X-Correlation-Id");
    }

    #[actix_web::test]
    async fn a_method_that_a_path_lacks_is_told_which_it_has() {
        let server = TestServer::start().await;
        for (method, path, allow) in [
            (Method::DELETE, "/sagas", "GET, HEAD, POST"),
            (Method::GET, "/sagas/checkout", "POST"),
            (Method::PUT, "/sagas/checkout", "POST"),
            (Method::POST, "/sagas/01890a5d-ac96-774b-bcce-b302099a8057", "GET, HEAD"),
            (Method::POST, "/livez", "GET, HEAD"),
            (Method::GET, "/admin/sagas/retry", "POST"),
            (Method::PATCH, "/definitions/note", "GET, HEAD, PUT"),
        ] {
            let reply = server.send(server.request(method, path)).await;
            reply.problem(405, "method_not_allowed");
            assert_eq!(reply.header("allow"), allow, "{path}");
        }
        let head = server.send(server.request(Method::HEAD, "/definitions/note")).await;
        assert_eq!((head.status, &*head.text), (200, ""));
        assert_eq!(server.get("/definitions/note").await.header("content-length"), head.header("content-length"));
    }
}
