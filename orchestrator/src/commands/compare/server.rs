//! Skald as a client sees it: starting sagas, reading them, and what it counts.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use skald_core::event::Mode;
use skald_figures::exposition;

use super::{
    http::{Answer, Remote},
    workload::Order,
};

/// How long a start or a look waits for the saga's end; the most that the server does.
const WAIT: &str = "wait=60";
/// When a server that is busy does not say when to come back.
const PAUSE: Duration = Duration::from_millis(200);
/// What this command itself asks for; everything else at the server comes from participants.
const OWN_ROUTES: [&str; 6] =
    ["/sagas/{definition}", "/sagas/{id}", "/metrics", "/readyz", "/admin/replicas", "unmatched"];

#[derive(Clone, Debug)]
pub struct Server {
    pub remote: Remote,
    pub definition: String,
}

/// A saga, as far as it matters here.
#[derive(Debug, Deserialize)]
pub struct Saga {
    pub id: String,
    pub status: String,
    pub state: String,
    pub failure: Option<Failure>,
    pub output: Option<Value>,
    #[serde(default)]
    pub steps: Vec<Step>,
    pub created_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub revision: u64,
}

#[derive(Debug, Deserialize)]
pub struct Failure {
    pub step: Option<String>,
    pub code: String,
}

#[derive(Debug, Deserialize)]
pub struct Step {
    pub id: String,
    pub ended_at: Option<DateTime<Utc>>,
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    pub compensation: Option<Compensation>,
}

#[derive(Debug, Deserialize)]
pub struct Attempt {}

#[derive(Debug, Deserialize)]
pub struct Compensation {
    pub started_at: DateTime<Utc>,
}

/// Why a saga was not started.
#[derive(Debug)]
pub enum NotStarted {
    /// Not now, but after a pause.
    Busy(Duration),
    /// Never, as it was asked for.
    Refused(Refused),
    /// Nobody knows whether it was.
    Unanswered(String),
}

/// The server's reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub status: StatusCode,
    pub code: String,
    pub detail: String,
}

/// Requests between Skald and participants so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    pub to_participants: f64,
    pub from_participants: f64,
}

impl Server {
    /// # Errors
    ///
    /// When the server does not answer or is not ready; says where it was looked for.
    pub async fn is_ready(&self) -> anyhow::Result<()> {
        let answer = self.remote.send(self.remote.request(Method::GET, "/readyz")).await?;
        let url = self.remote.url();
        anyhow::ensure!(answer.status.is_success(), "Skald at {url} is not ready: {}", answer.text);
        Ok(())
    }

    /// Whether it is the only replica: only then its counters tell of all there is.
    pub async fn is_alone(&self) -> anyhow::Result<bool> {
        let list = self.remote.expect(Method::GET, "/admin/replicas", None).await?.json()?;
        let replicas =
            list["items"].as_array().map_or(0, |items| items.iter().filter(|it| it["alive"] == true).count());
        Ok(replicas <= 1)
    }

    /// Starts a saga and waits for its end as long as the server does.
    ///
    /// # Errors
    ///
    /// When it was not started, or nobody knows.
    pub async fn start(&self, mode: Mode, order: &Order, correlation_id: &str) -> Result<Saga, NotStarted> {
        let path = format!("/sagas/{}?mode={}", self.definition, mode.as_str());
        let request = self.remote.request(Method::POST, &path).json(&order.input);
        let request = request.header("Prefer", WAIT).header("X-Correlation-Id", correlation_id);
        let answer = self.remote.send(request).await.map_err(|error| NotStarted::Unanswered(format!("{error:#}")))?;
        match answer.status {
            StatusCode::CREATED | StatusCode::ACCEPTED | StatusCode::OK => {
                serde_json::from_str(&answer.text).map_err(|error| NotStarted::Unanswered(error.to_string()))
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Err(NotStarted::Busy(pause(&answer))),
            status => {
                let problem = answer.problem();
                Err(NotStarted::Refused(Refused { status, code: problem.code, detail: problem.detail }))
            }
        }
    }

    /// Looks at a saga once it has ended or is parked, or as long as the server waits.
    ///
    /// # Errors
    ///
    /// When there is no such answer.
    pub async fn look(&self, id: &str) -> anyhow::Result<Saga> {
        let request = self.remote.request(Method::GET, &format!("/sagas/{id}")).header("Prefer", WAIT);
        let answer = self.remote.send(request).await?;
        anyhow::ensure!(answer.status.is_success(), "saga {id} cannot be read: {}", answer.status);
        Ok(serde_json::from_str(&answer.text)?)
    }

    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn traffic(&self) -> anyhow::Result<Traffic> {
        let text = self.remote.metrics().await?;
        let from_participant = |labels: &str| {
            let route = exposition::label(labels, "route").unwrap_or_default();
            !OWN_ROUTES.contains(&route) && !route.starts_with("/internal/")
        };
        Ok(Traffic {
            to_participants: exposition::sum(&text, "external_service_call_duration_seconds_count", |_| true),
            from_participants: exposition::sum(&text, "http_request_duration_seconds_count", from_participant),
        })
    }
}

fn pause(answer: &Answer) -> Duration {
    let seconds = answer.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    seconds.map_or(PAUSE, Duration::from_secs)
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.code, self.detail)
    }
}

impl std::ops::Sub for Traffic {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            to_participants: self.to_participants - earlier.to_participants,
            from_participants: self.from_participants - earlier.from_participants,
        }
    }
}
