//! What a service offers: the operations that sagas call, listed once for HTTP and for the reactor, and what is only for
//! HTTP.

use std::{pin::Pin, sync::Arc};

use actix_web::{HttpRequest, Route, http::Method, web};
use serde::de::DeserializeOwned;
use skald_kit::{Answer, CallContext, Problem, reactor::Teller};

use crate::{
    body::{self, Id},
    codes,
    faults::Connection,
    http::{self, Given, Handler, Shared},
};

/// A call of an operation, from wherever it came.
pub(crate) struct Asked {
    pub(crate) call: CallContext,
    /// The `{id}` of the path, if it has one.
    pub(crate) path_id: Option<Id>,
    pub(crate) body: web::Bytes,
    /// What is told of the answer.
    pub(crate) tell: Teller,
    /// To be cut when the reply is to be lost.
    pub(crate) connection: Option<Connection>,
}

type Run = dyn Fn(Arc<Shared>, Asked) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync;

/// Something that sagas have done or undone.
#[derive(Clone)]
pub(crate) struct Operation {
    method: Method,
    path: &'static str,
    /// In metrics and faults.
    name: &'static str,
    run: Arc<Run>,
}

impl Operation {
    fn new<B>(method: Method, path: &'static str, name: &'static str, handler: Handler<B>) -> Self
    where
        B: DeserializeOwned + Clone + Send + 'static,
    {
        let run = move |shared: Arc<Shared>, asked: Asked| -> Pin<Box<dyn Future<Output = Answer> + Send>> {
            Box::pin(async move {
                let Asked { call, path_id, body, tell, connection } = asked;
                let body: B = match body::parse(&body) {
                    Ok(body) => body,
                    Err(problem) => return problem.into(),
                };
                let given = Given { call, path_id, body, hold_grace: shared.hold_grace };
                http::carry_out(&shared, name, handler, given, tell, connection.as_ref()).await
            })
        };
        Self { method, path, name, run: Arc::new(run) }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) async fn run(&self, shared: Arc<Shared>, asked: Asked) -> Answer {
        (self.run)(shared, asked).await
    }

    fn route(&self) -> Route {
        let operation = self.clone();
        web::method(self.method.clone()).to(
            move |request: HttpRequest, payload: web::Payload, shared: web::Data<Shared>| {
                let operation = operation.clone();
                async move { http::saga_call(request, payload, shared.into_inner(), operation).await }
            },
        )
    }
}

/// An endpoint that belongs to no saga.
struct Other {
    method: Method,
    path: &'static str,
    route: fn() -> Route,
}

#[derive(Default)]
pub(crate) struct Offer {
    operations: Vec<Operation>,
    others: Vec<Other>,
}

impl Offer {
    /// A call of sagas; `name` is what metrics and faults call it.
    pub(crate) fn operation<B>(
        mut self,
        method: Method,
        path: &'static str,
        name: &'static str,
        handler: Handler<B>,
    ) -> Self
    where
        B: DeserializeOwned + Clone + Send + 'static,
    {
        self.operations.push(Operation::new(method, path, name, handler));
        self
    }

    pub(crate) fn other(mut self, method: Method, path: &'static str, route: fn() -> Route) -> Self {
        self.others.push(Other { method, path, route });
        self
    }

    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.operations.iter().map(Operation::name).collect()
    }

    /// Everything over HTTP.
    pub(crate) fn routes(&self, app: &mut web::ServiceConfig) {
        let operations = self.operations.iter().map(|operation| (operation.path, &operation.method));
        let endpoints: Vec<_> = operations.chain(self.others.iter().map(|other| (other.path, &other.method))).collect();
        let mut paths: Vec<&'static str> = endpoints.iter().map(|(path, _)| *path).collect();
        paths.sort_unstable();
        paths.dedup();
        for path in paths {
            let mut allowed: Vec<&str> =
                endpoints.iter().filter(|(of, _)| *of == path).map(|(_, method)| method.as_str()).collect();
            allowed.sort_unstable();
            let mut resource = http::resource(path, allowed.join(", "));
            for operation in self.operations.iter().filter(|operation| operation.path == path) {
                resource = resource.route(operation.route());
            }
            for other in self.others.iter().filter(|other| other.path == path) {
                resource = resource.route((other.route)());
            }
            app.service(resource);
        }
    }

    /// The operation at a path, and the path's `{id}`.
    ///
    /// # Errors
    /// There is none, or the id can't exist.
    pub(crate) fn find(&self, method: &str, path: &str) -> Result<(&Operation, Option<Id>), Problem> {
        for operation in self.operations.iter().filter(|operation| operation.method.as_str() == method) {
            if let Some(id) = matched(operation.path, path) {
                return Ok((operation, id.map(http::id_in_path).transpose()?));
            }
        }
        Err(Problem::new(codes::NO_ROUTE, format!("{method} {path} is no operation of this service")))
    }
}

/// Whether a path is of a pattern, and what stands in the place of `{id}`.
fn matched(pattern: &str, path: &str) -> Option<Option<String>> {
    let (pattern, path): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    if pattern.len() != path.len() {
        return None;
    }
    let mut id = None;
    for (wanted, given) in pattern.into_iter().zip(path) {
        match wanted {
            "{id}" => id = Some(decoded(given)?),
            _ if wanted == given => {}
            _ => return None,
        }
    }
    Some(id)
}

/// A segment without its percent-encoding.
fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
        bytes.push(high * 16 + low);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_matched_by_segments_and_its_id_decoded() {
        for (pattern, path, id) in [
            ("/stock/reserve", "/stock/reserve", Some(None)),
            ("/orders/{id}", "/orders/o-1", Some(Some("o-1"))),
            ("/orders/{id}/cancel", "/orders/a%2Fb%20c/cancel", Some(Some("a/b c"))),
            ("/orders/{id}", "/orders/o-1/cancel", None),
            ("/orders/{id}", "/orders", None),
            ("/stock/reserve", "/stock/release", None),
            ("/orders/{id}", "/orders/%zz", None),
        ] {
            assert_eq!(matched(pattern, path), id.map(|id: Option<&str>| id.map(str::to_owned)), "{path}");
        }
    }
}
