//! The client of Skald's event API: read a stream, read on from a place in the log.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{
    Method, RequestBuilder, StatusCode, Url,
    header::{AUTHORIZATION, HeaderValue, RETRY_AFTER},
    redirect, retry,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};
use thiserror::Error;

use super::Event;

/// Less than the time after which Skald closes an idle connection, so that none is closed under a request.
const IDLE_MAX: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer may take, beyond what the request itself asks to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The most that the store gives at once.
const PAGE: u32 = 250;
const DETAIL_CHARS_MAX: usize = 500;

/// Reads from and appends to one Skald, through any of its replicas. Cloning gives another handle on the same connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    key: Option<ApiKey>,
    replicas: Arc<Replicas>,
}

/// What shows Skald who asks: one of its keys, or a token of the issuer that it trusts. Never shown in `Debug`.
#[derive(Debug, Clone)]
pub struct ApiKey(HeaderValue);

impl ApiKey {
    /// # Errors
    /// The text has characters that no header can carry.
    pub fn new(text: &str) -> Result<Self, ClientError> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", text.trim())).map_err(|_| ClientError::Key)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

/// Where Skald can be asked. All ask the same one, until that one cannot answer.
#[derive(Debug)]
struct Replicas {
    urls: Vec<Url>,
    /// Counts on with each change; the remainder says which is asked.
    turn: AtomicUsize,
}

impl Replicas {
    fn turn(&self) -> usize {
        self.turn.load(Ordering::Relaxed)
    }

    fn url(&self, turn: usize) -> &Url {
        &self.urls[turn % self.urls.len()]
    }

    /// From now on the next one is asked, unless somebody has moved on since `turn`.
    fn move_on_from(&self, turn: usize) {
        // Whoever was first has done it.
        let _ = self.turn.compare_exchange(turn, turn.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Why a request to Skald failed.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("`{0}` is not a URL that begins with http:// or https://")]
    Url(String),
    #[error("the key for Skald has characters that no header can carry")]
    Key,
    #[error("cannot set up the HTTP client: {0}")]
    Setup(#[source] reqwest::Error),
    /// No whole answer, or one that says "not now": the same request may well succeed later.
    #[error("skald cannot answer now: {reason}")]
    Unavailable {
        reason: String,
        retry_after: Option<Duration>,
        /// Whether the request may have been carried out all the same.
        unclear: bool,
    },
    /// The request will never succeed as it is.
    #[error("skald refuses: {0}")]
    Refused(Refusal),
    #[error("skald's answer is not readable: {0}")]
    Unreadable(#[source] serde_json::Error),
}

/// An answer that is final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// Of the problem, e.g. `version_conflict`; empty when there was none.
    pub code: String,
    pub detail: String,
    /// Of a version conflict: the stream's last version.
    pub actual_version: Option<u64>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.detail)
    }
}

/// Which events to read; what is left out does not restrict.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// A cursor given out before, or `end`: from now on.
    pub after: Option<String>,
    pub limit: Option<u32>,
    /// Any of these.
    pub types: Vec<String>,
    pub category: Option<String>,
    pub stream: Option<String>,
    pub mode: Option<String>,
    pub correlation_id: Option<String>,
}

impl EventQuery {
    fn pairs(&self) -> impl Iterator<Item = (&'static str, String)> {
        let types = (!self.types.is_empty()).then(|| self.types.join(","));
        [
            ("after", self.after.clone()),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("type", types),
            ("category", self.category.clone()),
            ("stream", self.stream.clone()),
            ("mode", self.mode.clone()),
            ("correlation_id", self.correlation_id.clone()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// A page of the log.
#[derive(Debug, Deserialize)]
pub struct EventPage {
    pub items: Vec<Event>,
    /// Where to go on from, also when there is nothing more now.
    pub next_cursor: String,
}

#[derive(Deserialize)]
struct StreamPage {
    items: Vec<Event>,
    next_cursor: Option<String>,
}

impl Client {
    /// `urls` is Skald's URL, e.g. `http://127.0.0.1:7070`, or those of several replicas, separated by commas: when one
    /// cannot answer, the next request goes to the next.
    ///
    /// # Errors
    /// One is no such URL, or TLS cannot be set up.
    pub fn new(urls: &str) -> Result<Self, ClientError> {
        let parse = |text: &str| {
            let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            url.ok_or_else(|| ClientError::Url(text.to_owned()))
        };
        let urls = urls.split(',').map(|url| parse(url.trim())).collect::<Result<Vec<_>, _>>()?;
        // The first client of a process sets it; the later ones find it set.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .no_proxy()
            .http1_only()
            .tcp_nodelay(true)
            .tcp_keepalive(IDLE_MAX)
            .pool_idle_timeout(IDLE_MAX)
            .connect_timeout(CONNECT_TIMEOUT);
        if urls.iter().all(|url| url.scheme() == "http") {
            // Spares reading the machine's certificates, and needs none.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(ClientError::Setup)?;
        Ok(Self { http, key: None, replicas: Arc::new(Replicas { urls, turn: AtomicUsize::new(0) }) })
    }

    /// The same client, showing this key with every request.
    #[must_use]
    pub fn with_key(self, key: ApiKey) -> Self {
        Self { key: Some(key), ..self }
    }

    /// All events of a stream after a version, in order; empty when there is no such stream.
    ///
    /// # Errors
    /// The store cannot be reached, or refuses.
    pub async fn stream(&self, stream: &str, after: u64) -> Result<Vec<Event>, ClientError> {
        let mut events = Vec::new();
        let mut after = after.to_string();
        loop {
            let path = format!("/streams/{}/events?after={}&limit={PAGE}", segment(stream), segment(&after));
            let page: StreamPage = match self.get(&path, Duration::ZERO).await {
                Err(ClientError::Refused(refusal)) if refusal.status == 404 => return Ok(events),
                other => other?,
            };
            let last = page.items.is_empty();
            events.extend(page.items);
            match page.next_cursor {
                Some(next) if !last => after = next,
                _ => return Ok(events),
            }
        }
    }

    /// A page of the log; at its end, waits up to `wait` for more.
    ///
    /// # Errors
    /// The store cannot be reached, or refuses.
    pub async fn events(&self, query: &EventQuery, wait: Duration) -> Result<EventPage, ClientError> {
        let mut pairs: Vec<String> = query.pairs().map(|(name, value)| format!("{name}={}", segment(&value))).collect();
        if !wait.is_zero() {
            pairs.push(format!("wait={}ms", wait.as_millis()));
        }
        self.get(&format!("/events?{}", pairs.join("&")), wait).await
    }

    /// The document of a definition.
    ///
    /// # Errors
    /// The store cannot be reached, or has no such version.
    pub async fn definition(&self, name: &str, version: u32) -> Result<Box<RawValue>, ClientError> {
        #[derive(Deserialize)]
        struct Shown {
            document: Box<RawValue>,
        }
        let path = format!("/definitions/{}/versions/{version}", segment(name));
        let shown: Shown = self.get(&path, Duration::ZERO).await?;
        Ok(shown.document)
    }

    /// A saga as it is now, with its personal data: [`ERASED`](super::ERASED) where that was erased.
    ///
    /// # Errors
    /// The store cannot be reached, or has no such saga.
    pub async fn saga(&self, id: &str) -> Result<Value, ClientError> {
        self.get(&format!("/sagas/{}", segment(id)), Duration::ZERO).await
    }

    pub(crate) async fn put<B: Serialize>(&self, path: &str, body: &B) -> Result<(), ClientError> {
        self.send(Method::PUT, path, Some(body), Duration::ZERO).await.map(drop)
    }

    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        wait: Duration,
    ) -> Result<T, ClientError> {
        let (_, body) = self.send(Method::POST, path, Some(body), wait).await?;
        read(&body)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, wait: Duration) -> Result<T, ClientError> {
        let (_, body) = self.send(Method::GET, path, None::<&()>, wait).await?;
        read(&body)
    }

    /// Sends it to the replica whose turn it is; one that cannot answer has had its turn.
    pub(super) async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        wait: Duration,
    ) -> Result<(StatusCode, Vec<u8>), ClientError> {
        let turn = self.replicas.turn();
        let base = self.replicas.url(turn).as_str().trim_end_matches('/');
        let request = self.http.request(method, format!("{base}{path}"));
        let request = self.key.iter().fold(request, |request, ApiKey(key)| request.header(AUTHORIZATION, key));
        let result = send(body.into_iter().fold(request, RequestBuilder::json), wait).await;
        if matches!(result, Err(ClientError::Unavailable { .. })) {
            self.replicas.move_on_from(turn);
        }
        result
    }
}

/// A text as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Sends a request that may be held for `wait`, and reads the answer whole.
async fn send(request: RequestBuilder, wait: Duration) -> Result<(StatusCode, Vec<u8>), ClientError> {
    let unavailable = |error: reqwest::Error| ClientError::Unavailable {
        reason: describe(&error),
        retry_after: None,
        unclear: !error.is_connect(),
    };
    let response = request.timeout(wait + ANSWER_TIMEOUT).send().await.map_err(unavailable)?;
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = response.bytes().await.map_err(unavailable)?;
    if status.is_success() {
        return Ok((status, body.into()));
    }
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    Err(refused(status, &problem, retry_after))
}

/// What an answer without success means.
pub(super) fn refused(status: StatusCode, problem: &Value, retry_after: Option<u64>) -> ClientError {
    let text = |name: &str| problem[name].as_str().unwrap_or_default().chars().take(DETAIL_CHARS_MAX).collect();
    let (code, detail): (String, String) = (text("code"), text("detail"));
    if status.is_server_error() || matches!(status.as_u16(), 401 | 403 | 408 | 425 | 429) {
        let reason = format!("{} {code}: {detail}", status.as_u16());
        let retry_after = retry_after.map(Duration::from_secs);
        return ClientError::Unavailable { reason, retry_after, unclear: false };
    }
    let actual_version = problem["actual_version"].as_u64();
    ClientError::Refused(Refusal { status: status.as_u16(), code, detail, actual_version })
}

pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(ClientError::Unreadable)
}

/// The whole chain of causes, without the URL.
fn describe(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    if text.is_empty() { "the request failed".to_owned() } else { text }
}
