//! Is a call signed by an orchestrator that knows the secret? As [Standard Webhooks](https://www.standardwebhooks.com) has it.
//!
//! `webhook-signature` holds one or more signatures, separated by spaces: `v1,` and the base64 of HMAC-SHA256 of
//! `<webhook-id>.<webhook-timestamp>.<body>`. Of a call the id is its idempotency key, so that a signature is good for that
//! operation of that saga alone.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use crate::CallContext;

/// How far a message's time may be from now, either way.
pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);

const PREFIX: &str = "whsec_";

/// The secrets that a sender may have signed with: one, or two while it is being replaced.
#[derive(Clone)]
pub struct SigningSecrets(Vec<Hmac<Sha256>>);

/// Why a message is not taken for what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SignatureError {
    #[error("the header {0} is missing, or given more than once")]
    Header(&'static str),
    #[error("webhook-timestamp is not a time within five minutes of now")]
    Timestamp,
    #[error("webhook-id is not the Idempotency-Key")]
    OtherCall,
    #[error("no signature fits")]
    Signature,
}

/// The text is no secret; which is not quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a signing secret is `whsec_` and base64")]
pub struct NotASecret;

impl SigningSecrets {
    /// # Errors
    /// One of the texts is no secret.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Result<Self, NotASecret> {
        let keyed = |text: &str| {
            let bytes = STANDARD.decode(text.strip_prefix(PREFIX).ok_or(NotASecret)?).map_err(|_| NotASecret)?;
            Hmac::new_from_slice(&bytes).map_err(|_| NotASecret)
        };
        secrets.into_iter().map(keyed).collect::<Result<_, _>>().map(Self)
    }

    /// Was this message signed with one of the secrets, and lately? Gives its id.
    ///
    /// # Errors
    /// What is missing or does not fit.
    pub fn verify<'h, V: AsRef<[u8]> + ?Sized + 'h>(
        &self,
        headers: impl IntoIterator<Item = (&'h str, &'h V)>,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<String, SignatureError> {
        const NAMES: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        let mut found = [None, None, None];
        for (name, value) in headers {
            let Some(at) = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)) else { continue };
            let text = std::str::from_utf8(value.as_ref()).map_err(|_| SignatureError::Header(NAMES[at]))?;
            if found[at].replace(text).is_some() {
                return Err(SignatureError::Header(NAMES[at]));
            }
        }
        let [Some(id), Some(timestamp), Some(signatures)] = found else {
            let missing = found.iter().position(Option::is_none).unwrap_or_default();
            return Err(SignatureError::Header(NAMES[missing]));
        };
        let at = timestamp.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        let apart = at.map(|at| (now - at).abs().to_std().unwrap_or_default());
        if apart.is_none_or(|apart| apart > TOLERANCE) {
            return Err(SignatureError::Timestamp);
        }
        let fits = |signature: &str| {
            let tag = signature.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
            let signed = |keyed: &Hmac<Sha256>| {
                let head = keyed.clone().chain_update(id).chain_update(b".").chain_update(timestamp);
                head.chain_update(b".").chain_update(body).verify_slice(&tag).is_ok()
            };
            self.0.iter().any(signed)
        };
        match signatures.split(' ').any(fits) {
            true => Ok(id.to_owned()),
            false => Err(SignatureError::Signature),
        }
    }

    /// [`SigningSecrets::verify`], of this call.
    ///
    /// # Errors
    /// The same, and when the signature is another call's.
    pub fn verify_call<'h, V: AsRef<[u8]> + ?Sized + 'h>(
        &self,
        call: &CallContext,
        headers: impl IntoIterator<Item = (&'h str, &'h V)>,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), SignatureError> {
        match self.verify(headers, body, now)? == call.key.to_string() {
            true => Ok(()),
            false => Err(SignatureError::OtherCall),
        }
    }
}

impl fmt::Debug for SigningSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecrets([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of the specification.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIME: &str = "1614265330";
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;

    fn verify(headers: &[(&str, &str)], body: &[u8], later_s: i64) -> Result<String, SignatureError> {
        let now = DateTime::from_timestamp(1_614_265_330 + later_s, 0).unwrap();
        SigningSecrets::new([SECRET]).unwrap().verify(headers.iter().copied(), body, now)
    }

    #[test]
    fn a_signed_message_is_taken_within_five_minutes_and_unchanged() {
        let signed = [("Webhook-Id", ID), ("webhook-timestamp", TIME), ("webhook-signature", SIGNATURE)];
        assert_eq!(verify(&signed, BODY, 0).as_deref(), Ok(ID));
        assert_eq!(verify(&signed, BODY, 300).as_deref(), Ok(ID));
        for later in [-301, 301, 1_000_000] {
            assert_eq!(verify(&signed, BODY, later), Err(SignatureError::Timestamp));
        }
        assert_eq!(verify(&signed, b"{}", 0), Err(SignatureError::Signature));
        let among = format!("v1,AAAA v2,x {SIGNATURE}");
        assert_eq!(verify(&[signed[0], signed[1], ("webhook-signature", &among)], BODY, 0).as_deref(), Ok(ID));
        let other = verify(&[("webhook-id", "other"), signed[1], signed[2]], BODY, 0);
        assert_eq!(other, Err(SignatureError::Signature));
        let bare = SIGNATURE.trim_start_matches("v1,");
        for wrong in ["", "v1,", "v1", bare, "v1a,x"] {
            let given = [signed[0], signed[1], ("webhook-signature", wrong)];
            assert_eq!(verify(&given, BODY, 0), Err(SignatureError::Signature), "{wrong}");
        }
    }

    #[test]
    fn each_header_is_needed_once() {
        let signed = [("webhook-id", ID), ("webhook-timestamp", TIME), ("webhook-signature", SIGNATURE)];
        for left_out in 0..3 {
            let given: Vec<_> = signed.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, h)| *h).collect();
            assert_eq!(verify(&given, BODY, 0), Err(SignatureError::Header(signed[left_out].0)));
            let mut twice = signed.to_vec();
            twice.push(signed[left_out]);
            assert_eq!(verify(&twice, BODY, 0), Err(SignatureError::Header(signed[left_out].0)));
        }
        let soon = [signed[0], ("webhook-timestamp", "soon"), signed[2]];
        assert_eq!(verify(&soon, BODY, 0), Err(SignatureError::Timestamp));
    }

    #[test]
    fn secrets_are_read_and_not_shown() {
        assert_eq!(SigningSecrets::new(["secret"]).unwrap_err(), NotASecret);
        assert_eq!(format!("{:?}", SigningSecrets::new([SECRET]).unwrap()), "SigningSecrets([redacted])");
    }
}
