//! Repeats what was refused for now, and gives starts and operators' commands a key that makes repeating them harmless.
//!
//! | answer | repeated |
//! | --- | --- |
//! | 429 | always: nothing was done |
//! | 503 | unless it is a POST without `Idempotency-Key`: it may have been done |
//! | no answer | like 503 |

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use http::Extensions;
use reqwest::{
    Method, Request, Response, StatusCode,
    header::{HeaderValue, RETRY_AFTER},
};
use reqwest_middleware::{Middleware, Next, Result};
use tokio::time::sleep;
use uuid::Uuid;

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
const WAIT_FIRST: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Repeat {
    pub attempts_max: u32,
    pub wait_max: Duration,
}

#[async_trait]
impl Middleware for Repeat {
    async fn handle(&self, mut request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        if takes_key(&request) && !request.headers().contains_key(IDEMPOTENCY_KEY) {
            let key = HeaderValue::try_from(Uuid::new_v4().to_string()).expect("a UUID is ASCII");
            request.headers_mut().insert(IDEMPOTENCY_KEY, key);
        }
        let harmless = request.method() != Method::POST || request.headers().contains_key(IDEMPOTENCY_KEY);
        let mut attempt = 1;
        // A request whose body is a stream cannot be made twice.
        while attempt < self.attempts_max
            && let Some(copy) = request.try_clone()
        {
            let answer = next.clone().run(copy, extensions).await;
            let refused = match &answer {
                Ok(answer) => may_repeat(answer.status(), harmless),
                Err(_) => harmless,
            };
            let asked = answer.as_ref().ok().and_then(retry_after);
            let wait = asked.unwrap_or_else(|| backoff(attempt));
            if !refused || wait > self.wait_max {
                return answer;
            }
            sleep(wait).await;
            attempt += 1;
        }
        next.run(request, extensions).await
    }
}

/// Starts, and operators' commands to sagas: the calls that take a key. The server may be below a path.
fn takes_key(request: &Request) -> bool {
    let path = request.url().path();
    let is_start = path.rsplit('/').take(2).any(|part| part == "sagas");
    request.method() == Method::POST && (is_start || path.contains("/admin/sagas/"))
}

fn may_repeat(status: StatusCode, harmless: bool) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || (status == StatusCode::SERVICE_UNAVAILABLE && harmless)
}

/// What the answer asks for, in seconds or as a date.
fn retry_after(answer: &Response) -> Option<Duration> {
    let text = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    #[expect(clippy::disallowed_methods, reason = "a date in a header is of the calendar")]
    let now = SystemTime::now();
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Twice as long each time, between the half of it and all, so that clients do not come back together.
fn backoff(attempt: u32) -> Duration {
    let doubled = WAIT_FIRST.saturating_mul(2_u32.saturating_pow(attempt - 1));
    doubled.mul_f64(rand::random::<f64>().midpoint(1.0))
}
