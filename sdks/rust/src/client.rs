//! The client: a configuration for the generated calls, and the two things that take several of them.

use std::time::{Duration, Instant};

use reqwest::{
    Client, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, InvalidHeaderValue},
};
use reqwest_middleware::ClientBuilder;
use serde::Serialize;
use thiserror::Error;
use tokio::time::sleep;

use crate::{
    apis::{
        self,
        configuration::Configuration,
        sagas_api::{self, GetSagaParams, StartAnySagaParams},
    },
    models::{Problem, Saga, SagaMode, StartSagaRequest},
    repeat::Repeat,
};

/// The longest that one request may wait.
const WAIT_S_MAX: u64 = 60;
/// Between looks at a saga whose waits end at once, as a parked one's do.
const PAUSE: Duration = Duration::from_millis(500);

/// How to talk to a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sent as bearer token with every request.
    pub api_key: Option<String>,
    /// Requests made at most for one call; 1 repeats nothing.
    pub attempts_max: u32,
    /// The longest wait before a repetition; a longer `Retry-After` ends the repeating.
    pub wait_max: Duration,
}

/// What a start may say besides definition and input.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    /// The same key gives the same saga; one is made if left out.
    pub idempotency_key: Option<String>,
    pub version: Option<u32>,
    pub mode: Option<SagaMode>,
    /// How long the answer may wait for the end; the server's default if left out.
    pub wait: Option<Duration>,
}

/// A server.
#[derive(Clone, Debug)]
pub struct Skald {
    configuration: Configuration,
}

/// Why there is no answer that can be used.
#[derive(Debug, Error)]
pub enum CallFailed {
    /// The server refused, and said why.
    #[error("{}: {}", .0.code, .0.detail)]
    Problem(Box<Problem>),
    /// The answer is an error, and not one of Skald's.
    #[error("the server answered {0}")]
    Status(StatusCode),
    /// The saga had not ended in time; this is how it was last seen.
    #[error("saga {} is still {}", .0.id, .0.status)]
    StillRunning(Box<Saga>),
    #[error("no answer that can be read")]
    NoAnswer(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the input is no JSON")]
    Input(#[source] serde_json::Error),
}

impl Default for Options {
    fn default() -> Self {
        Self { api_key: None, attempts_max: 5, wait_max: Duration::from_secs(60) }
    }
}

impl Skald {
    /// # Errors
    ///
    /// The API key has characters that no header can have.
    ///
    /// # Panics
    ///
    /// The system has no certificates that TLS could trust.
    pub fn new(base_url: &str, options: Options) -> Result<Self, InvalidHeaderValue> {
        // Errs when the program has chosen another, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        if let Some(key) = &options.api_key {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {key}"))?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let client = Client::builder().default_headers(headers).build().expect("TLS is as reqwest makes it");
        let repeat = Repeat { attempts_max: options.attempts_max, wait_max: options.wait_max };
        let configuration = Configuration {
            base_path: base_url.trim_end_matches('/').to_owned(),
            user_agent: Some(concat!("skald-client/", env!("CARGO_PKG_VERSION")).to_owned()),
            client: ClientBuilder::new(client).with(repeat).build(),
            ..Configuration::default()
        };
        Ok(Self { configuration })
    }

    /// What the calls in [`apis`] take.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Starts a saga; the answer waits for its end for a while, so look at `status`.
    ///
    /// # Errors
    ///
    /// It was refused, or there was no answer: then starting again with the same key gives the same saga.
    pub async fn start(
        &self,
        definition: &str,
        input: &(impl Serialize + Sync),
        options: StartOptions,
    ) -> Result<Saga, CallFailed> {
        let input = serde_json::to_value(input).map_err(CallFailed::Input)?;
        let request = StartSagaRequest {
            version: options.version,
            mode: options.mode,
            ..StartSagaRequest::new(definition.to_owned(), Some(input))
        };
        let parameters = StartAnySagaParams {
            start_saga_request: request,
            idempotency_key: options.idempotency_key,
            prefer: options.wait.map(|wait| format!("wait={}", wait.as_secs())),
            traceparent: None,
            x_correlation_id: None,
        };
        sagas_api::start_any_saga(&self.configuration, parameters).await.map_err(CallFailed::from)
    }

    /// Waits until the saga has ended: completed, compensated or abandoned.
    ///
    /// # Errors
    ///
    /// [`CallFailed::StillRunning`] when that takes too long.
    pub async fn wait_until_ended(&self, id: impl ToString, timeout: Duration) -> Result<Saga, CallFailed> {
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let parameters = GetSagaParams {
                id: id.to_string(),
                if_none_match: None,
                prefer: Some(format!("wait={}", left.as_secs().saturating_add(1).min(WAIT_S_MAX))),
                x_correlation_id: None,
            };
            let saga = sagas_api::get_saga(&self.configuration, parameters).await?;
            if saga.ended_at.is_some() {
                return Ok(saga);
            }
            if Instant::now() >= until {
                return Err(CallFailed::StillRunning(Box::new(saga)));
            }
            sleep(PAUSE).await;
        }
    }
}

impl<T> From<apis::Error<T>> for CallFailed {
    fn from(error: apis::Error<T>) -> Self {
        match error {
            apis::Error::ResponseError(answer) => serde_json::from_str(&answer.content)
                .map_or(Self::Status(answer.status), |problem| Self::Problem(Box::new(problem))),
            apis::Error::Reqwest(error) => Self::NoAnswer(error.into()),
            apis::Error::ReqwestMiddleware(error) => Self::NoAnswer(error.into()),
            apis::Error::Serde(error) => Self::NoAnswer(error.into()),
            apis::Error::Io(error) => Self::NoAnswer(error.into()),
        }
    }
}
