//! Tokens that show that a callback comes from whoever was called.
//!
//! A token is HMAC-SHA256 of the call's idempotency key, so it is good for one operation of one saga and nothing has
//! to be stored. All replicas need the same secret.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::hex;

/// Issues and checks tokens.
#[derive(Clone)]
pub struct CallbackTokens {
    keyed: Hmac<Sha256>,
}

/// A token's length: 32 bytes in hexadecimal.
pub const TOKEN_LEN: usize = 64;

impl CallbackTokens {
    /// `secret` may have any length; 32 random bytes are right.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self { keyed: Hmac::new_from_slice(secret).expect("HMAC takes a key of any length") }
    }

    /// The token for the call with this idempotency key, as hexadecimal digits.
    #[must_use]
    pub fn issue(&self, key: &str) -> [u8; TOKEN_LEN] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut token = [0; TOKEN_LEN];
        for (pair, byte) in token.chunks_exact_mut(2).zip(self.mac(key).finalize().into_bytes()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        token
    }

    /// Is this the token for the call with this idempotency key? Takes the same time whatever the token holds.
    #[must_use]
    pub fn verify(&self, key: &str, token: &str) -> bool {
        let Some(tag) = hex::decode::<{ TOKEN_LEN / 2 }>(token) else { return false };
        self.mac(key).verify_slice(&tag).is_ok()
    }

    fn mac(&self, key: &str) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(key.as_bytes());
        mac
    }
}

impl fmt::Debug for CallbackTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallbackTokens([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(secret: &str, key: &str) -> String {
        String::from_utf8(CallbackTokens::new(secret.as_bytes()).issue(key).to_vec()).unwrap()
    }

    #[test]
    fn a_token_is_the_hmac_of_the_key() {
        // RFC 4231, test case 2.
        assert_eq!(
            token("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn a_token_is_good_for_its_own_key_and_secret_only() {
        let tokens = CallbackTokens::new(b"secret");
        let good = token("secret", "a:pay:action");
        assert!(tokens.verify("a:pay:action", &good));
        let shortened = &good[..TOKEN_LEN - 1];
        let other_key = token("secret", "a:pay:compensation");
        let other_secret = token("Secret", "a:pay:action");
        for bad in ["", shortened, &other_key, &other_secret, &"z".repeat(TOKEN_LEN), &"ü".repeat(TOKEN_LEN / 2)] {
            assert!(!tokens.verify("a:pay:action", bad), "{bad}");
        }
    }
}
