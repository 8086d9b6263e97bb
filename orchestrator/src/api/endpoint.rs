//! Endpoints: what their annotation says, held against who asks.
//!
//! An endpoint's `security` says which scope it needs. That one place makes the specification, the guard before the
//! handler, and what the tests walk through.

use std::sync::Arc;

use actix_web::{
    Error, HttpMessage as _, HttpRequest, Resource, Route,
    body::BoxBody,
    dev::{ServiceRequest, ServiceResponse},
    guard,
    http::{Method, header},
    middleware::{Next, from_fn},
    web,
};
use utoipa::openapi::{HttpMethod, path::Operation};

use super::{
    problem::{Code, Problem},
    request::RequestContext,
};
use crate::{
    access::{Caller, Unknown, limits::Allowance, scope::Scope},
    app::App,
    audit::Act,
};

/// The security scheme whose scopes are [`Scope`]s.
pub const BEARER: &str = "bearer";

/// A method of a path.
pub struct Endpoint {
    method: Method,
    route: Route,
}

/// An endpoint with the method and the scope of its annotation.
pub fn endpoint<P: utoipa::Path>(route: Route) -> Endpoint {
    let method = match P::methods().first() {
        Some(HttpMethod::Get) => Method::GET,
        Some(HttpMethod::Put) => Method::PUT,
        Some(HttpMethod::Post) => Method::POST,
        Some(HttpMethod::Delete) => Method::DELETE,
        _ => unreachable!("{}: no endpoint has another method", P::path()),
    };
    let route = match scope(&P::operation()) {
        Some(scope) => route.wrap(from_fn(move |req, next| enforce(scope, req, next))),
        None => route,
    };
    Endpoint { method, route }
}

/// One that is not for clients of the API, and open to everybody, or guarded by itself.
pub fn unlisted(method: Method, route: Route) -> Endpoint {
    Endpoint { method, route }
}

/// What an operation needs. None: nothing that can be shown in this way.
///
/// # Panics
///
/// When its annotation does not say. That is found at start, before anybody can ask.
pub fn scope(operation: &Operation) -> Option<Scope> {
    let security = operation.security.as_ref().expect("every endpoint says what it needs, or security(())");
    let requirements = serde_json::to_value(security).expect("requirements have string keys");
    // More than one: the first is for whoever shows nothing.
    let [requirement] = requirements.as_array()?.as_slice() else { return None };
    let word = requirement[BEARER].as_array()?.first()?.as_str()?;
    Some(word.parse().expect("annotations name scopes by their type"))
}

/// One path with its methods. Whatever else is asked of it is answered 405 with `Allow`; a path that has GET has HEAD.
pub fn resource<const N: usize>(path: &str, endpoints: [Endpoint; N]) -> Resource {
    let mut allowed: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.method.as_str()).collect();
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    allowed.sort_unstable();
    let allow = allowed.join(", ");
    let refuse = move || std::future::ready(Err::<actix_web::HttpResponse, Problem>(method_not_allowed(&allow)));
    let resource = web::resource(path).default_service(web::to(refuse));
    endpoints.into_iter().fold(resource, |resource, endpoint| resource.route(endpoint.into_route()))
}

impl Endpoint {
    /// The route, for requests by its method.
    pub fn into_route(self) -> Route {
        match self.method {
            Method::GET => self.route.guard(guard::Any(guard::Get()).or(guard::Head())),
            method => self.route.method(method),
        }
    }
}

/// The answer where there is something, but not with this method.
pub fn method_not_allowed(allowed: &str) -> Problem {
    let value = header::HeaderValue::from_str(allowed).expect("methods are ASCII");
    Problem::new(Code::MethodNotAllowed, format!("The path has only {allowed}.")).with_header(header::ALLOW, value)
}

/// Lets through who has the scope, and everybody while no key is needed.
async fn enforce(scope: Scope, req: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse<BoxBody>, Error> {
    match admit(req.request(), scope).await {
        Ok(()) => next.call(req).await,
        Err(problem) => Ok(req.error_response(problem)),
    }
}

/// Finds out who asks, notes it in the request, and whether they may.
///
/// # Errors
///
/// When they may not.
pub async fn admit(req: &HttpRequest, scope: Scope) -> Result<(), Problem> {
    let app = req.app_data::<web::Data<App>>().ok_or_else(|| Problem::internal("the request has no app"))?;
    let access = app.access();
    if access.is_open() {
        return Ok(());
    }
    let caller = match access.caller(req.headers(), app.clock().now()).await {
        Ok(caller) => caller,
        Err(unknown) => return Err(unauthenticated(&unknown)),
    };
    req.extensions_mut().insert(Arc::clone(&caller));
    if let Some(allowance) = access.allowance(&caller) {
        let (allowed, seconds) = (allowance.allowed, allowance.retry_after());
        req.extensions_mut().insert(allowance);
        if !allowed {
            let detail = "The requests of this key or token come too fast.";
            return Err(Problem::new(Code::RateLimited, detail).retry_after(seconds));
        }
    }
    if !caller.scopes.has(scope) {
        let detail = format!("This needs {scope}, which {} does not have.", caller.name);
        return Err(Problem::new(Code::Forbidden, detail));
    }
    Ok(())
}

fn unauthenticated(unknown: &Unknown) -> Problem {
    let (code, detail) = match unknown {
        Unknown::Nothing => (Code::Unauthenticated, "Show a key: Authorization: Bearer skald_..".to_owned()),
        Unknown::WrongKey => (Code::InvalidCredentials, "The key or token is not known.".to_owned()),
        Unknown::ExpiredKey => (Code::InvalidCredentials, "The key has expired.".to_owned()),
        Unknown::RevokedKey => (Code::InvalidCredentials, "The key was revoked.".to_owned()),
        Unknown::Token(reason) => (Code::InvalidCredentials, format!("The token is not acceptable: {reason}.")),
    };
    let challenge = match code {
        Code::Unauthenticated => "Bearer realm=\"skald\"",
        _ => "Bearer realm=\"skald\", error=\"invalid_token\"",
    };
    Problem::new(code, detail).with_header(header::WWW_AUTHENTICATE, header::HeaderValue::from_static(challenge))
}

/// Notes a refusal for the audit log, if this is one.
pub fn note_refusal(req: &HttpRequest, problem: &Problem) {
    let Some(app) = req.app_data::<web::Data<App>>().filter(|_| matches!(problem.code().status(), 401 | 403)) else {
        return;
    };
    let asked = format!("{} {}", req.method(), req.match_pattern().unwrap_or_default());
    let (caller, correlation_id) = (caller(req), RequestContext::correlation_id(req).unwrap_or_default());
    app.access().refusals().note(caller.as_deref(), asked, problem.code().as_str(), &correlation_id);
}

/// Who asks, as far as the endpoint needs to know and the request shows it.
pub fn caller(req: &HttpRequest) -> Option<Arc<Caller>> {
    req.extensions().get::<Arc<Caller>>().cloned()
}

/// What the audit log is to say of what this request does, which gives no reason.
pub fn act(req: &HttpRequest, action: &str, target: String) -> Act {
    let (caller, correlation_id) = (caller(req), RequestContext::correlation_id(req));
    Act {
        actor: caller.as_ref().map(|caller| caller.name.clone()),
        credential: caller.map(|caller| caller.credential.clone()),
        action: action.to_owned(),
        target,
        reason: None,
        request_id: correlation_id.clone().unwrap_or_default(),
        correlation_id,
    }
}

/// Tells the client what its rate leaves, if it is limited.
pub fn tell_allowance(response: &mut ServiceResponse<BoxBody>) {
    let allowance = response.request().extensions().get::<Allowance>().cloned();
    if let Some(allowance) = allowance {
        allowance.tell(response.headers_mut());
    }
}

#[cfg(test)]
mod tests;
