//! The HTTP client of one participant: HTTP/1.1 over a pool of connections of its own. It follows no redirect, uses no
//! proxy, and adds nothing to a request but `Host` and the length of its body.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Response, Uri};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use reqwest::Url;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::config;

/// Its requests have bodies of this kind.
pub type Client<B> = legacy::Client<Connector, B>;

/// Common servers close a connection that was idle for five seconds; one that closes just as a request is put on it
/// leaves that request in doubt, so we are first.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// A call may take long: a participant's machine that is gone is noticed meanwhile.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 3;

/// A client for one participant, so that its pool of connections is as large as its calls in flight.
///
/// # Errors
///
/// When the machine's certificates cannot be read although a base URL is `https`.
pub fn client<B>(config: &config::Participant, urls: &[Url]) -> Result<Client<B>, rustls::Error>
where
    B: Body + Send,
    B::Data: Send,
{
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let tls = tls.with_safe_default_protocol_versions()?;
    let tls = match urls.iter().all(|url| url.scheme() == "http") {
        // Spares reading the machine's certificates, and needs none.
        true => tls.with_root_certificates(RootCertStore::empty()),
        false => tls.try_with_platform_verifier()?,
    };
    let timeout = Duration::from_millis(config.timeout.min(config.connect_timeout).0);
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    // Divided among the addresses of a name, so that one that does not answer leaves time for the others.
    tcp.set_connect_timeout(Some(timeout));
    let both = HttpsConnectorBuilder::new().with_tls_config(tls.with_no_client_auth()).https_or_http().enable_http1();
    Ok(legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(usize::try_from(config.max_concurrency).unwrap_or(usize::MAX))
        .build(Connector { connector: both.wrap_connector(tcp), timeout }))
}

/// Makes connections: name, TCP and TLS within one timeout.
#[derive(Clone, Debug)]
pub struct Connector {
    connector: HttpsConnector<HttpConnector>,
    timeout: Duration,
}

type Connection = MaybeHttpsStream<TokioIo<TcpStream>>;
type BoxError = Box<dyn Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Connection, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.timeout, self.connector.call(uri));
        Box::pin(async move { connecting.await? })
    }
}

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Request(#[from] legacy::Error),
    #[error(transparent)]
    Body(#[from] hyper::Error),
}

impl Failure {
    /// The whole chain of causes. None of them names the URL, which may hold what a saga's input holds.
    pub fn describe(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// The body of an answer; None if it is larger than `bytes_max`, of which no more is read than needed to know.
///
/// # Errors
///
/// When the connection ends before the body does.
pub async fn whole(response: Response<Incoming>, bytes_max: usize) -> Result<Option<Bytes>, Failure> {
    let mut body = response.into_body();
    if body.size_hint().lower() > bytes_max as u64 {
        return Ok(None);
    }
    // Most come in one piece.
    let (mut only, mut joined) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame?.into_data() else { continue };
        if only.len() + joined.len() + chunk.len() > bytes_max {
            return Ok(None);
        }
        if only.is_empty() && joined.is_empty() {
            only = chunk;
        } else {
            joined.extend_from_slice(&std::mem::take(&mut only));
            joined.extend_from_slice(&chunk);
        }
    }
    Ok(Some(if joined.is_empty() { only } else { joined.freeze() }))
}
