//! How long to wait before the next attempt: exponential, capped, with full jitter.
//!
//! The jitter is drawn from a hash of the call's key and the attempt, so that the same history always waits the same
//! time. Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (full jitter).

use sha2::{Digest, Sha256};

use crate::time::Millis;

/// A durable retry policy: the attempts it counts and the times it yields are stored, never slept on.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included; at least 1.
    pub max_attempts: u32,
    pub initial: Millis,
    /// At least 1.
    pub factor: f64,
    pub max: Millis,
}

/// A misconfigured call (404, 401, ..) is not worth more attempts than this.
pub const MISCONFIGURED_ATTEMPTS_MAX: u32 = 3;

impl RetryPolicy {
    /// The wait after attempt number `attempt` (from 1) of the call known by `key`.
    ///
    /// `floor` is the participant's `Retry-After`.
    #[must_use]
    pub fn wait_after(&self, attempt: u32, key: &str, floor: Option<Millis>) -> Millis {
        let mut ceiling = self.initial.0 as f64;
        for _ in 1..attempt.min(64) {
            ceiling = (ceiling * self.factor).min(self.max.0 as f64);
        }
        let ceiling = (ceiling as u64).min(self.max.0);
        let jittered = u128::from(ceiling) * u128::from(draw(key, attempt)) / u128::from(u64::MAX);
        let wait = u64::try_from(jittered).unwrap_or(ceiling);
        Millis(wait.max(floor.map_or(0, |floor| floor.0)))
    }
}

fn draw(key: &str, attempt: u32) -> u64 {
    let digest = Sha256::new().chain_update(key.as_bytes()).chain_update(attempt.to_be_bytes()).finalize();
    digest.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    const POLICY: RetryPolicy = RetryPolicy { max_attempts: 5, initial: Millis(100), factor: 2.0, max: Millis(1000) };

    #[test]
    fn waits_stay_below_the_exponential_ceiling() {
        for (attempt, ceiling) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (60, 1000), (u32::MAX, 1000)] {
            for key in 0..200 {
                let wait = POLICY.wait_after(attempt, &format!("{key}"), None);
                assert!(wait.0 <= ceiling, "attempt {attempt} waits {wait}");
            }
        }
    }

    #[test]
    fn jitter_spreads_over_the_whole_range() {
        let waits: alloc::vec::Vec<u64> = (0..500).map(|key| POLICY.wait_after(5, &format!("{key}"), None).0).collect();
        assert!(waits.iter().any(|wait| *wait < 100) && waits.iter().any(|wait| *wait > 900));
    }

    #[test]
    fn retry_after_is_a_floor() {
        assert_eq!(POLICY.wait_after(1, "k", Some(Millis(60_000))), Millis(60_000));
    }
}
