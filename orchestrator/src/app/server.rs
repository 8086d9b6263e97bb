//! The HTTP server around the API: connections, TLS, and what every answer has, whichever endpoint gives it.

use std::{net::TcpListener, sync::Arc, time::Duration};

use actix_cors::Cors;
use actix_web::{
    HttpServer,
    dev::Server,
    http::header,
    middleware::{Compress, Condition, DefaultHeaders, from_fn},
    web,
};
use rustls::ServerConfig;

use super::App;
use crate::api;

/// How the server takes connections.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Threads.
    pub workers: usize,
    /// Open connections, over all threads; more wait to be accepted.
    pub connections_max: usize,
    /// How long requests may go on once the server is told to stop.
    pub stop_grace: Duration,
    /// None: HTTP.
    pub tls: Option<ServerConfig>,
    /// Origins whose pages may ask.
    pub cors_origins: Vec<String>,
}

/// A client must have sent a request's head by then.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a browser need not ask again whether it may ask.
const PREFLIGHT_AGE_S: usize = 3600;
/// Nothing that is answered is a page, but for the documentation, which has a policy of its own.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// A server on the listener. It runs while it is polled, and stops by its handle, after [`App::close`]; it listens to no
/// signals itself.
///
/// # Errors
///
/// When the listener cannot be used.
pub fn serve(listener: TcpListener, app: Arc<App>, options: ServeOptions) -> std::io::Result<Server> {
    let data = web::Data::from(app);
    let ServeOptions { workers, connections_max, stop_grace, tls, cors_origins } = options;
    let is_tls = tls.is_some();
    let server = HttpServer::new(move || {
        actix_web::App::new()
            .app_data(data.clone())
            .configure(api::routes)
            .default_service(web::to(api::nothing_here))
            .wrap(from_fn(api::request::surround))
            .wrap(headers(is_tls))
            .wrap(Condition::new(!cors_origins.is_empty(), cors(&cors_origins)))
            .wrap(Compress::default())
    });
    let server = server
        .workers(workers)
        .max_connections(connections_max.div_ceil(workers.max(1)))
        .client_request_timeout(HEAD_TIME_MAX)
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(stop_grace.as_secs().max(1))
        .disable_signals();
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls)?,
        None => server.listen(listener)?,
    };
    Ok(server.run())
}

/// What browsers are to know of every answer that does not say otherwise.
fn headers(is_tls: bool) -> DefaultHeaders {
    let headers = DefaultHeaders::new()
        .add((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .add((header::CONTENT_SECURITY_POLICY, POLICY))
        .add((header::REFERRER_POLICY, "no-referrer"))
        .add((header::CACHE_CONTROL, "no-store"));
    if is_tls { headers.add((header::STRICT_TRANSPORT_SECURITY, "max-age=31536000")) } else { headers }
}

/// For pages of these origins. They show a key or token like anybody else: cookies play no part.
fn cors(origins: &[String]) -> Cors {
    let cors = Cors::default()
        .allowed_methods(["GET", "POST", "PUT", "DELETE"])
        .allowed_headers([
            "Authorization",
            "Content-Type",
            "Idempotency-Key",
            "If-Match",
            "If-None-Match",
            "Last-Event-ID",
            "Prefer",
            "X-Actor",
            "X-Correlation-Id",
            "traceparent",
        ])
        .expose_headers([
            "ETag",
            "Idempotent-Replayed",
            "Location",
            "RateLimit",
            "RateLimit-Policy",
            "Retry-After",
            "X-Correlation-Id",
        ])
        .max_age(PREFLIGHT_AGE_S);
    origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
}

#[cfg(test)]
mod tests {
    use reqwest::Method;
    use serde_json::json;

    use crate::api::testing::TestServer;

    #[actix_web::test]
    async fn a_server_that_stops_answers_those_who_wait() {
        let server = TestServer::start().await;
        server.participants.hold("publish:action");
        let waiting = server.request(Method::POST, "/sagas/note").header("Prefer", "wait=60").json(&json!({}));
        let stopping = async {
            while server.participants.calls.lock().unwrap().len() < 2 {
                tokio::task::yield_now().await;
            }
            server.stop().await;
        };
        let (reply, ()) = tokio::join!(server.send(waiting), stopping);
        assert_eq!((reply.status, &reply.body["status"]), (202, &json!("running")), "{}", reply.text);
        server.participants.release("publish:action");
    }
}
