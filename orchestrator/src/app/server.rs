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

    use crate::{access::scope::Role, api::testing::TestServer, config};

    #[actix_web::test]
    async fn browsers_are_told_to_trust_nothing() {
        let server = TestServer::start().await;
        for path in ["/livez", "/sagas", "/nowhere"] {
            let reply = server.get(path).await;
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("content-security-policy", super::POLICY),
                ("referrer-policy", "no-referrer"),
                ("cache-control", "no-store"),
                ("strict-transport-security", ""),
                ("access-control-allow-origin", ""),
            ] {
                assert_eq!(reply.header(name), value, "{path}: {name}");
            }
        }
    }

    #[actix_web::test]
    async fn only_pages_of_the_configured_origins_may_ask() {
        let cors_origins = vec!["https://console.example.com".to_owned()];
        let server = TestServer::guarded(config::Access { cors_origins, ..config::Access::default() }).await;
        let ask = |method: Method, origin: &str| {
            let request = server.request_as(Role::Viewer, method, "/sagas").header("Origin", origin);
            request
                .header("Access-Control-Request-Method", "GET")
                .header("Access-Control-Request-Headers", "authorization")
        };
        let preflight = server.send(ask(Method::OPTIONS, "https://console.example.com")).await;
        assert_eq!(preflight.status, 200, "{}", preflight.text);
        assert_eq!(preflight.header("access-control-allow-origin"), "https://console.example.com");
        assert!(preflight.header("access-control-allow-headers").to_lowercase().contains("authorization"));
        let asked = server.send(ask(Method::GET, "https://console.example.com")).await;
        assert_eq!((asked.status, asked.header("access-control-allow-origin")), (200, "https://console.example.com"));
        assert!(asked.header("access-control-expose-headers").to_lowercase().contains("ratelimit"));
        // Also what is refused can be read.
        let refused = server.request(Method::GET, "/sagas").header("Origin", "https://console.example.com");
        let refused = server.send(refused).await;
        assert_eq!(
            (refused.status, refused.header("access-control-allow-origin")),
            (401, "https://console.example.com")
        );
        let elsewhere = server.send(ask(Method::OPTIONS, "https://evil.example.com")).await;
        assert_eq!(elsewhere.header("access-control-allow-origin"), "", "{}", elsewhere.text);
    }

    #[actix_web::test]
    async fn answers_are_compressed_when_asked_and_streams_never() {
        let server = TestServer::start().await;
        let gzip = |path: &str| server.request(Method::GET, path).header("Accept-Encoding", "gzip");
        let compressed = gzip("/openapi.json").send().await.unwrap();
        assert_eq!(compressed.headers()["content-encoding"], "gzip");
        let (bytes, plain) = (compressed.bytes().await.unwrap(), server.get("/openapi.json").await.text);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut text).unwrap();
        assert!(text == plain && bytes.len() * 5 < plain.len(), "{} of {} bytes", bytes.len(), plain.len());
        let problem = gzip("/nowhere").send().await.unwrap();
        assert_eq!(
            (problem.status().as_u16(), &problem.headers()["content-encoding"]),
            (404, &"gzip".parse().unwrap())
        );
        let id = server.start_note().await;
        for path in [format!("/sagas/{id}/stream"), "/events/tail".to_owned()] {
            let stream = gzip(&path).send().await.unwrap();
            assert_eq!(
                (stream.status().as_u16(), &stream.headers()["content-encoding"]),
                (200, &"identity".parse().unwrap())
            );
        }
    }

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
