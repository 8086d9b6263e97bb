//! Signatures of what this service sends, as [Standard Webhooks](https://www.standardwebhooks.com) has them.
//!
//! Three headers: `webhook-id` names the message and is the same however often it is sent; `webhook-timestamp` is when it was
//! sent, in seconds; `webhook-signature` is `v1,` and the base64 of HMAC-SHA256 of `<id>.<timestamp>.<body>`. While a secret is
//! being replaced there is a signature with each, separated by a space. A secret is written `whsec_` and base64.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;
use skald_core::time::Timestamp;

pub static ID: HeaderName = HeaderName::from_static("webhook-id");
pub static TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
pub static SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// How a secret begins.
const PREFIX: &str = "whsec_";
/// Of a secret, decoded.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs with one secret, or with several of which the receiver knows one.
#[derive(Clone)]
pub struct Signer(Vec<Hmac<Sha256>>);

/// The text is not a secret; which is not quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no signing secret: write `whsec_` and the base64 of 24 to 64 random bytes")]
pub struct NotASecret;

impl Signer {
    /// # Errors
    ///
    /// When one of the texts is no secret.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Result<Self, NotASecret> {
        let keyed = |text: &str| {
            let bytes = STANDARD.decode(text.strip_prefix(PREFIX).ok_or(NotASecret)?).map_err(|_| NotASecret)?;
            let keyed = || Hmac::new_from_slice(&bytes).expect("HMAC takes a key of any length");
            BYTES.contains(&bytes.len()).then(keyed).ok_or(NotASecret)
        };
        secrets.into_iter().map(keyed).collect::<Result<_, _>>().map(Self)
    }

    /// Adds the three headers of a message.
    ///
    /// # Panics
    ///
    /// When `id` holds what a header cannot.
    pub fn sign(&self, headers: &mut HeaderMap, id: &str, now: Timestamp, body: &[u8]) {
        let timestamp = (now.as_micros() / 1_000_000).to_string();
        let signatures: Vec<String> =
            self.0.iter().map(|keyed| signature(keyed.clone(), id, &timestamp, body)).collect();
        let text = |text: &str| HeaderValue::from_str(text).expect("visible ASCII");
        headers.insert(&ID, text(id));
        headers.insert(&TIMESTAMP, text(&timestamp));
        headers.insert(&SIGNATURE, text(&signatures.join(" ")));
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer([redacted])")
    }
}

/// A secret as text.
#[must_use]
pub fn secret(bytes: &[u8; 32]) -> String {
    format!("{PREFIX}{}", STANDARD.encode(bytes))
}

fn signature(keyed: Hmac<Sha256>, id: &str, timestamp: &str, body: &[u8]) -> String {
    let mac = keyed.chain_update(id).chain_update(b".").chain_update(timestamp).chain_update(b".").chain_update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_signed_as_the_standard_says() {
        // The example of the specification.
        let signer = Signer::new(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]).unwrap();
        let mut headers = HeaderMap::new();
        let at = Timestamp::from_micros(1_614_265_330 * 1_000_000);
        signer.sign(&mut headers, "msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#);
        assert_eq!(headers[&ID], "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(headers[&TIMESTAMP], "1614265330");
        assert_eq!(headers[&SIGNATURE], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn there_is_a_signature_for_each_secret() {
        let (one, two) = (secret(&[1; 32]), secret(&[2; 32]));
        let mut headers = HeaderMap::new();
        Signer::new([one.as_str(), two.as_str()]).unwrap().sign(&mut headers, "id", Timestamp::default(), b"");
        let text = headers[&SIGNATURE].to_str().unwrap();
        assert_eq!(text.split(' ').filter(|signature| signature.starts_with("v1,")).count(), 2, "{text}");
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_shown() {
        for text in ["", "whsec_", "whsec_c2hvcnQ=", "whsec_***", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            assert_eq!(Signer::new([text]).unwrap_err(), NotASecret, "{text}");
        }
        assert_eq!(format!("{:?}", Signer::new([secret(&[7; 32]).as_str()]).unwrap()), "Signer([redacted])");
    }
}
