//! One participant: its HTTP client, its base URLs, its limits.

use std::{
    error::Error as _,
    fmt::Write as _,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use reqwest::{
    Client, Method, Request, Url,
    header::{HeaderName, HeaderValue, LOCATION, RETRY_AFTER},
    redirect, retry,
};
use skald_core::{
    classify::{Answer, Body, CallResult},
    decide::Invoke,
    definition,
};

use super::{
    CallbackTokens, Term, body,
    breaker::Health,
    gate::Gate,
    headers, retry_after,
    sent::{Sending, WhenEmpty, outgoing},
    target::Base,
    trace::TraceParent,
};
use crate::{
    clock::Clock,
    config,
    metrics::{CallOutcome, ServiceMetrics},
};

#[derive(Debug)]
pub struct Participant {
    pub gate: Gate,
    client: Client,
    bases: Vec<Base>,
    next_base: AtomicUsize,
    timeout_max: Duration,
    response_max: usize,
    secret: Option<(HeaderName, HeaderValue)>,
}

/// What every call needs and no participant owns.
#[derive(Debug)]
pub struct Context {
    pub clock: std::sync::Arc<dyn Clock>,
    pub tokens: CallbackTokens,
}

/// A call to be made.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub invoke: &'a Invoke,
    pub trace: &'a TraceParent,
    pub term: &'a Term,
}

/// A call that was made, or failed to be.
#[derive(Debug)]
pub struct Exchange {
    pub result: CallResult,
    pub outcome: CallOutcome,
    pub health: Health,
}

/// Why a participant cannot be called at all.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("`participants.{name}.{key}` {problem}")]
    Setting { name: String, key: String, problem: String },
    #[error("the HTTP client of participant `{name}` cannot be made: {source}")]
    Client { name: String, source: reqwest::Error },
}

impl Participant {
    /// # Errors
    ///
    /// When a setting cannot be used, or the machine's certificates cannot be read although a base URL is `https`.
    pub fn new(name: &str, config: &config::Participant, metrics: ServiceMetrics) -> Result<Self, Unusable> {
        let setting = |key: &str, problem| Unusable::Setting { name: name.to_owned(), key: key.to_owned(), problem };
        let urls = config.endpoints().map_err(|(key, problem)| setting(key, problem))?;
        let secret = config
            .secret_header
            .as_ref()
            .map(config::SecretHeader::read)
            .transpose()
            .map_err(|(key, problem)| setting(&format!("secret_header.{key}"), problem))?;
        let client = client(config, &urls).map_err(|source| Unusable::Client { name: name.to_owned(), source })?;
        Ok(Self {
            gate: Gate::new(name, config, metrics),
            client,
            bases: urls.into_iter().map(Base::new).collect(),
            next_base: AtomicUsize::new(0),
            timeout_max: Duration::from_millis(config.timeout.0),
            response_max: config.response_max.0,
            secret,
        })
    }

    /// Makes one call, within its timeout.
    pub async fn exchange(&self, call: Call<'_>, context: &Context) -> Exchange {
        let base = &self.bases[self.next_base.fetch_add(1, Ordering::Relaxed) % self.bases.len()];
        let (request, sending) = match self.request(base, call, context) {
            Ok(request) => request,
            // It says nothing about the participant.
            Err(error) => {
                return Exchange { health: Health::Neutral, ..Exchange::not_sent(error) };
            }
        };
        let timeout = Duration::from_millis(call.invoke.timeout.0).min(self.timeout_max);
        match tokio::time::timeout(timeout, self.answer(base, request, context)).await {
            Ok(Ok(answer)) => Exchange::answered(answer),
            Ok(Err(error)) if sending.withdraw() => Exchange::not_sent(describe(&error)),
            Ok(Err(error)) => Exchange::maybe_sent(describe(&error), CallOutcome::Broken),
            Err(_) if sending.withdraw() => {
                Exchange::not_sent(format!("no connection within {} ms", timeout.as_millis()))
            }
            Err(_) => {
                Exchange::maybe_sent(format!("no answer within {} ms", timeout.as_millis()), CallOutcome::TimedOut)
            }
        }
    }

    fn request(&self, base: &Base, call: Call<'_>, context: &Context) -> Result<(Request, Sending), String> {
        let Call { invoke, trace, term } = call;
        let url = base.url(&invoke.target.path, invoke.purpose)?;
        let headers = headers::of_call(invoke, trace, &context.tokens, self.secret.as_ref())
            .map_err(|unsendable| unsendable.to_string())?;
        let (method, when_empty) = match invoke.target.method {
            definition::Method::Get => (Method::GET, WhenEmpty::Silent),
            definition::Method::Post => (Method::POST, WhenEmpty::SaysLength),
            definition::Method::Put => (Method::PUT, WhenEmpty::SaysLength),
            definition::Method::Patch => (Method::PATCH, WhenEmpty::SaysLength),
            definition::Method::Delete => (Method::DELETE, WhenEmpty::Silent),
        };
        let bytes = invoke.target.body.as_ref().map_or_else(Bytes::new, |body| Bytes::copy_from_slice(body.as_bytes()));
        let (body, sending) = outgoing(bytes, when_empty, term);
        let mut request = Request::new(method, url);
        *request.headers_mut() = headers;
        *request.body_mut() = Some(reqwest::Body::wrap(body));
        Ok((request, sending))
    }

    async fn answer(&self, base: &Base, request: Request, context: &Context) -> reqwest::Result<Answer> {
        let response = self.client.execute(request).await?;
        let status = response.status().as_u16();
        let headers = response.headers();
        let retry_after = match headers.contains_key(RETRY_AFTER) {
            true => retry_after::read(headers, context.clock.now()),
            false => None,
        };
        let location =
            headers.get(LOCATION).and_then(|location| base.location(response.url(), location.to_str().ok()?));
        let body = body::read(response, self.response_max).await?;
        Ok(Answer { status, retry_after, location, body })
    }
}

impl Exchange {
    const fn not_sent(error: String) -> Self {
        Self { result: CallResult::NotSent { error }, outcome: CallOutcome::NotSent, health: Health::Failure }
    }

    const fn maybe_sent(error: String, outcome: CallOutcome) -> Self {
        Self { result: CallResult::MaybeSent { error }, outcome, health: Health::Failure }
    }

    fn answered(answer: Answer) -> Self {
        let health = match (answer.status, answer.retry_after) {
            (429, _) | (503, Some(_)) => Health::Neutral,
            (500.., _) => Health::Failure,
            _ => Health::Success,
        };
        let outcome = CallOutcome::of_status(answer.status);
        Self { result: CallResult::Answered(answer), outcome, health }
    }

    /// Why it failed and whether that is more than a participant's own refusal or "later"; None if it did not.
    pub fn failure(&self) -> Option<(String, bool)> {
        match &self.result {
            CallResult::NotSent { error } | CallResult::MaybeSent { error } => Some((error.clone(), true)),
            CallResult::Answered(answer) => match (answer.status, &answer.body) {
                (200..300, Body::Unusable(why)) => Some((format!("HTTP {}, its body {why}", answer.status), true)),
                (200..300, _) => None,
                (status @ (402 | 408 | 409 | 422 | 425 | 429), _) => Some((format!("HTTP {status}"), false)),
                (status, _) => Some((format!("HTTP {status}"), true)),
            },
            CallResult::Deferred { .. } => None,
        }
    }
}

/// Common servers close a connection that was idle for five seconds; one that closes just as a request is put on it
/// leaves that request in doubt, so we are first.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// A client for one participant, so that its pool of connections is its own and as large as its calls in flight.
pub(super) fn client(config: &config::Participant, urls: &[Url]) -> reqwest::Result<Client> {
    // The first call of a process sets it; the later ones find it set.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let timeout = config.timeout.min(config.connect_timeout);
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .no_proxy()
        .referer(false)
        .http1_only()
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(60))
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(usize::try_from(config.max_concurrency).unwrap_or(usize::MAX))
        .connect_timeout(Duration::from_millis(timeout.0));
    if urls.iter().all(|url| url.scheme() == "http") {
        // Spares reading the machine's certificates, and needs none.
        builder = builder.tls_certs_only([]);
    }
    builder.build()
}

/// The whole chain of causes; the URL is left out, since it may hold what a saga's input holds.
pub(super) fn describe(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let separator = if text.is_empty() { "" } else { ": " };
        let _ = write!(text, "{separator}{error}");
        cause = error.source();
    }
    if text.is_empty() { "the request failed".to_owned() } else { text }
}
