//! How a replica shows another that a request comes from a replica of the same database.
//!
//! The seal is HMAC-SHA256 over method, path, sender, time and the body's digest. Its key is derived from the secret that
//! is made with the database, under a label of its own, so that no callback token and no cursor is ever a seal. It is good
//! for half a minute by the database's clock, for this request only. Within that time the same request may be repeated;
//! forwarded requests are such that this has no further effect.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use skald_core::time::{Millis, Timestamp};

use crate::hex;

/// The header that carries it: sender, time in microseconds, digest of the body and tag, with blanks between.
pub const HEADER: &str = "skald-replica-seal";
/// Older ones, and ones from the future, are refused.
const AGE_MAX: Millis = Millis(30_000);
const LABEL: &[u8] = b"skald: requests between replicas, 1";

/// Seals requests, and tells whether a request was sealed.
#[derive(Clone)]
pub struct Seals {
    keyed: Hmac<Sha256>,
}

/// What a request is about, as far as the seal covers it before the body is read.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub method: &'a str,
    pub path: &'a str,
}

/// A seal that was found good. The body is the one that was sealed if [`Seal::covers`] says so.
#[derive(Clone, Debug)]
pub struct Seal {
    /// The owner id of the replica that sent it.
    pub sender: String,
    digest: [u8; 32],
}

/// Why a request does not pass for another replica's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSeal {
    #[error("the request has no seal")]
    Missing,
    #[error("the seal is not of this database, or for another request")]
    Wrong,
    #[error("the seal is not of now: the clocks of the replicas are apart, or the request took too long")]
    Stale,
}

impl Seals {
    /// `secret` is the database's.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        let keyed = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
        let derived = keyed(secret).chain_update(LABEL).finalize().into_bytes();
        Self { keyed: keyed(&derived) }
    }

    /// The header's value for a request that `sender` sends at `at`.
    #[must_use]
    pub fn seal(&self, target: Target<'_>, sender: &str, at: Timestamp, body: &[u8]) -> String {
        let digest = hex::encode(&Sha256::digest(body));
        let micros = at.as_micros().to_string();
        let tag = self.tag(target, sender, &micros, &digest).finalize().into_bytes();
        format!("{sender} {micros} {digest} {}", hex::encode(&tag))
    }

    /// # Errors
    ///
    /// When the header is not a seal for this request, made about `now`.
    pub fn check(&self, target: Target<'_>, header: Option<&str>, now: Timestamp) -> Result<Seal, BadSeal> {
        let header = header.ok_or(BadSeal::Missing)?;
        let parts: Vec<&str> = header.split(' ').collect();
        let [sender, micros, digest, tag] = parts[..] else { return Err(BadSeal::Wrong) };
        let tag: [u8; 32] = hex::decode(tag).ok_or(BadSeal::Wrong)?;
        self.tag(target, sender, micros, digest).verify_slice(&tag).map_err(|_| BadSeal::Wrong)?;
        let at = Timestamp::from_micros(micros.parse().map_err(|_| BadSeal::Wrong)?);
        if at.until(now) > AGE_MAX || now.until(at) > AGE_MAX {
            return Err(BadSeal::Stale);
        }
        let digest = hex::decode(digest).ok_or(BadSeal::Wrong)?;
        Ok(Seal { sender: sender.to_owned(), digest })
    }

    /// None of the parts can hold the line break that separates them: they come from a request line or a header.
    fn tag(&self, target: Target<'_>, sender: &str, micros: &str, digest: &str) -> Hmac<Sha256> {
        let parts = [target.method, target.path, sender, micros, digest].join("\n");
        self.keyed.clone().chain_update(parts)
    }
}

impl Seal {
    #[must_use]
    pub fn covers(&self, body: &[u8]) -> bool {
        self.digest[..] == Sha256::digest(body)[..]
    }
}

impl fmt::Debug for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seals([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target<'_> = Target { method: "POST", path: "/internal/sagas" };
    const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn sealed() -> String {
        Seals::new(b"secret").seal(TARGET, "replica-1", NOW, b"{}")
    }

    #[test]
    fn a_seal_is_good_for_its_own_request() {
        let seal = Seals::new(b"secret").check(TARGET, Some(&sealed()), NOW).unwrap();
        assert_eq!(seal.sender, "replica-1");
        assert!(seal.covers(b"{}") && !seal.covers(b"{ }"));
    }

    #[test]
    fn a_seal_for_anything_else_is_wrong() {
        let good = sealed();
        let other_sender = good.replace("replica-1", "replica-2");
        let later = good.replace("1800000000000000", "1800000000000001");
        let shortened = &good[..good.len() - 1];
        let get = Target { method: "GET", ..TARGET };
        let elsewhere = Target { path: "/internal/sagas/x/inputs", ..TARGET };
        for (secret, target, header) in [
            ("other", TARGET, &*good),
            ("secret", get, &*good),
            ("secret", elsewhere, &*good),
            ("secret", TARGET, &*other_sender),
            ("secret", TARGET, &*later),
            ("secret", TARGET, shortened),
            ("secret", TARGET, ""),
            ("secret", TARGET, "a b c d"),
        ] {
            let checked = Seals::new(secret.as_bytes()).check(target, Some(header), NOW);
            assert_eq!(checked.unwrap_err(), BadSeal::Wrong, "{secret} {target:?} {header}");
        }
        assert_eq!(Seals::new(b"secret").check(TARGET, None, NOW).unwrap_err(), BadSeal::Missing);
    }

    #[test]
    fn a_seal_is_good_for_half_a_minute_either_way() {
        for (seconds, good) in [(-31, false), (-29, true), (0, true), (29, true), (31, false)] {
            let now = Timestamp::from_micros(NOW.as_micros() + seconds * 1_000_000);
            let checked = Seals::new(b"secret").check(TARGET, Some(&sealed()), now);
            assert_eq!(checked.map(drop), if good { Ok(()) } else { Err(BadSeal::Stale) }, "{seconds}");
        }
    }
}
