//! Verifies webhooks that are signed as in Standard Webhooks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::Sha256;
use thiserror::Error;

/// How far a webhook's time and ours may lie apart: an old one may be somebody's recording.
const TOLERANCE: Duration = Duration::from_secs(300);

/// Do not believe it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidWebhook {
    #[error("the header {0} is missing, or no text")]
    Header(&'static str),
    #[error("the timestamp is not a number")]
    Timestamp,
    #[error("the timestamp is too far from now")]
    TooFar,
    #[error("no signature is by this secret")]
    Signature,
    #[error("the secret is not base64")]
    Secret,
}

/// Whether the body was signed with the secret (`whsec_..`) within five minutes of `now`. The body must be the bytes as
/// received: parsing and writing it again changes them.
///
/// # Errors
///
/// It was not, or a header is missing.
pub fn verify(secret: &str, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Result<(), InvalidWebhook> {
    let header = |name| {
        let value = headers.get(name).ok_or(InvalidWebhook::Header(name))?;
        // Not only ASCII: an id is whatever the sender says.
        std::str::from_utf8(value.as_bytes()).map_err(|_| InvalidWebhook::Header(name))
    };
    let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
    if !timestamp.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidWebhook::Timestamp);
    }
    let seconds: u32 = timestamp.parse().map_err(|_| InvalidWebhook::Timestamp)?;
    let signed_at = UNIX_EPOCH + Duration::from_secs(seconds.into());
    let apart = now.duration_since(signed_at).unwrap_or_else(|earlier| earlier.duration());
    if apart > TOLERANCE {
        return Err(InvalidWebhook::TooFar);
    }

    let key = STANDARD.decode(secret.trim_start_matches("whsec_")).map_err(|_| InvalidWebhook::Secret)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key may have any length");
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    let is_ours = |signature: &str| {
        let digest = signature.strip_prefix("v1,").and_then(|digest| STANDARD.decode(digest).ok());
        // Compares in constant time.
        digest.is_some_and(|digest| mac.clone().verify_slice(&digest).is_ok())
    };
    if header("webhook-signature")?.split(' ').any(is_ours) { Ok(()) } else { Err(InvalidWebhook::Signature) }
}
