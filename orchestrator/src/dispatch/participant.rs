//! One participant: its HTTP client, its base URLs, its limits.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request,
    header::{HOST, LOCATION, RETRY_AFTER},
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
    headers,
    http::{Client, Failure, client},
    retry_after,
    sent::{Outgoing, Sending, WhenEmpty, outgoing},
    target::Base,
    trace::TraceParent,
};
use crate::{
    clock::Clock,
    config,
    metrics::{CallOutcome, ServiceMetrics},
    signature::Signer,
    spans::Spans,
};

#[derive(Debug)]
pub struct Participant {
    pub gate: Gate,
    client: Client<Outgoing>,
    bases: Vec<Base>,
    next_base: AtomicUsize,
    timeout_max: Duration,
    response_max: usize,
    secret: Option<(HeaderName, HeaderValue)>,
    signer: Option<Signer>,
}

/// What every call needs and no participant owns.
#[derive(Debug)]
pub struct Context {
    pub clock: std::sync::Arc<dyn Clock>,
    pub tokens: CallbackTokens,
    pub spans: Spans,
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
    Client { name: String, source: rustls::Error },
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
        let bases = urls.into_iter().map(Base::new).collect::<Result<_, _>>();
        let bases = bases.map_err(|error| setting("base_url", error.to_string()))?;
        Ok(Self {
            gate: Gate::new(name, config, metrics),
            client,
            bases,
            next_base: AtomicUsize::new(0),
            timeout_max: Duration::from_millis(config.timeout.0),
            response_max: config.response_max.0,
            secret,
            signer: config.signer().map_err(|(key, problem)| setting(&key, problem))?,
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
            Ok(Err(error)) if sending.withdraw() => Exchange::not_sent(error.describe()),
            Ok(Err(error)) => Exchange::maybe_sent(error.describe(), CallOutcome::Broken),
            Err(_) if sending.withdraw() => {
                Exchange::not_sent(format!("no connection within {} ms", timeout.as_millis()))
            }
            Err(_) => {
                Exchange::maybe_sent(format!("no answer within {} ms", timeout.as_millis()), CallOutcome::TimedOut)
            }
        }
    }

    fn request(&self, base: &Base, call: Call<'_>, context: &Context) -> Result<(Request<Outgoing>, Sending), String> {
        let Call { invoke, trace, term } = call;
        let uri = base.uri(&invoke.target.path, invoke.purpose)?;
        let mut headers = headers::of_call(invoke, trace, &context.tokens, self.secret.as_ref())
            .map_err(|unsendable| unsendable.to_string())?;
        let (method, when_empty) = match invoke.target.method {
            definition::Method::Get => (Method::GET, WhenEmpty::Silent),
            definition::Method::Post => (Method::POST, WhenEmpty::SaysLength),
            definition::Method::Put => (Method::PUT, WhenEmpty::SaysLength),
            definition::Method::Patch => (Method::PATCH, WhenEmpty::SaysLength),
            definition::Method::Delete => (Method::DELETE, WhenEmpty::Silent),
        };
        let bytes = invoke.target.body.as_ref().map_or_else(Bytes::new, |body| Bytes::copy_from_slice(body.as_bytes()));
        if let Some(signer) = &self.signer {
            signer.sign(&mut headers, &invoke.key, context.clock.now(), &bytes);
        }
        headers.insert(HOST, base.host().clone());
        let (body, sending) = outgoing(bytes, when_empty, term);
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok((request, sending))
    }

    async fn answer(&self, base: &Base, request: Request<Outgoing>, context: &Context) -> Result<Answer, Failure> {
        let requested = request.uri().clone();
        let response = self.client.request(request).await?;
        let status = response.status().as_u16();
        let headers = response.headers();
        let retry_after = match headers.contains_key(RETRY_AFTER) {
            true => retry_after::read(headers, context.clock.now()),
            false => None,
        };
        let location = headers.get(LOCATION).and_then(|location| base.location(&requested, location.to_str().ok()?));
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

    pub fn http_status(&self) -> Option<u16> {
        match &self.result {
            CallResult::Answered(answer) => Some(answer.status),
            CallResult::NotSent { .. } | CallResult::MaybeSent { .. } | CallResult::Deferred { .. } => None,
        }
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
