//! How often each caller may ask: `per_second` requests in the long run, `burst` at once after a quiet time.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, MonotonicClock},
    middleware::StateInformationMiddleware,
    state::keyed::HashMapStateStore,
};
use tokio::sync::watch;

use super::Caller;
use crate::config;

/// How often those who have not asked for long are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

type Limiter = RateLimiter<String, HashMapStateStore<String>, MonotonicClock, StateInformationMiddleware>;

/// See the module.
#[derive(Debug)]
pub struct Limits {
    limiter: Arc<Limiter>,
    policy: HeaderValue,
    /// How long until one more request is allowed.
    one_more: Duration,
}

/// What is left after a request, or that it was one too many.
#[derive(Clone, Debug)]
pub struct Allowance {
    pub allowed: bool,
    remaining: u32,
    /// Until there is more.
    wait: Duration,
    policy: HeaderValue,
}

impl Limits {
    /// Forgets those who do not ask any more, until `closed`.
    #[must_use]
    pub fn new(limit: config::RateLimit, mut closed: watch::Receiver<bool>) -> Self {
        let rate = NonZeroU32::new(limit.per_second).expect("the configuration is checked");
        let burst = limit.burst.and_then(NonZeroU32::new).unwrap_or(rate);
        let quota = Quota::per_second(rate).allow_burst(burst);
        let limiter = RateLimiter::hashmap_with_clock(quota, MonotonicClock).with_middleware();
        let limiter: Arc<Limiter> = Arc::new(limiter);
        let forgetting = Arc::clone(&limiter);
        tokio::spawn(async move {
            while tokio::time::timeout(FORGET_INTERVAL, closed.wait_for(|closed| *closed)).await.is_err() {
                forgetting.retain_recent();
            }
        });
        let one_more = quota.replenish_interval();
        let window = seconds(one_more * burst.get());
        let policy = HeaderValue::from_str(&format!("\"caller\";q={burst};w={window}")).expect("it is ASCII");
        Self { limiter, policy, one_more }
    }

    /// Counts a request. The credential is what is limited: two keys of one name have each its own rate.
    #[must_use]
    pub fn take(&self, caller: &Caller) -> Allowance {
        let of = match caller.credential.as_str() {
            "token" => format!("token:{}", caller.name),
            key => key.to_owned(),
        };
        let policy = self.policy.clone();
        match self.limiter.check_key(&of) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                Allowance { allowed: true, remaining, wait: self.one_more, policy }
            }
            Err(until) => {
                let wait = until.wait_time_from(MonotonicClock.now());
                Allowance { allowed: false, remaining: 0, wait, policy }
            }
        }
    }
}

impl Allowance {
    /// Whole seconds, at least one.
    #[must_use]
    pub fn retry_after(&self) -> u32 {
        seconds(self.wait)
    }

    /// Tells the client, as draft-ietf-httpapi-ratelimit-headers has it.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let left = format!("\"caller\";r={};t={}", self.remaining, self.retry_after());
        headers.insert(POLICY, self.policy.clone());
        headers.insert(LIMIT, HeaderValue::from_str(&left).expect("it is ASCII"));
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::scope::Scopes;

    #[tokio::test]
    async fn each_credential_has_its_own_burst_and_is_told_what_is_left() {
        let (_closing, closed) = watch::channel(false);
        let limits = Limits::new(config::RateLimit { per_second: 1, burst: Some(3) }, closed);
        let caller = |credential: &str| Caller {
            name: "shop".to_owned(),
            credential: credential.to_owned(),
            scopes: Scopes::default(),
        };
        for remaining in [2, 1, 0] {
            let allowance = limits.take(&caller("key:a"));
            assert!(allowance.allowed);
            let mut headers = HeaderMap::new();
            allowance.tell(&mut headers);
            assert_eq!(headers.get(LIMIT).unwrap(), &format!("\"caller\";r={remaining};t=1"));
            assert_eq!(headers.get(POLICY).unwrap(), "\"caller\";q=3;w=3");
        }
        let refused = limits.take(&caller("key:a"));
        assert!(!refused.allowed && refused.retry_after() == 1);
        assert!(limits.take(&caller("key:b")).allowed, "another key, though of the same name");
    }
}
