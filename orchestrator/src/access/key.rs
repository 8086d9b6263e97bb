//! The text of a key: `skald_`, an id of 12 hexadecimal digits, `_`, and a secret of 64, which are 256 random bits. The id
//! is no secret; it finds the key, names it in logs, and lets whoever finds a lost key tell which it is.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

use crate::hex;

/// What begins with this is a key, and anything else a token.
pub const PREFIX: &str = "skald_";
const ID_CHARS: usize = 12;
const SECRET_CHARS: usize = 64;

/// A whole key. Only whoever makes it and whoever shows it have one.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText(String);

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyText({PREFIX}{}_[redacted])", self.id())
    }
}

/// The text is no key. Does not quote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no key: one is skald_, 12 hexadecimal digits, _ and 64 more, all in lower case")]
pub struct NoKey;

impl FromStr for KeyText {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        let is_hex = |part: &str, chars: usize| {
            part.len() == chars && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let parts = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
        let fits = parts.is_some_and(|(id, secret)| is_hex(id, ID_CHARS) && is_hex(secret, SECRET_CHARS));
        if fits { Ok(Self(text.to_owned())) } else { Err(NoKey) }
    }
}

impl KeyText {
    /// A key of these random bytes.
    #[must_use]
    pub fn new(id: [u8; ID_CHARS / 2], secret: [u8; SECRET_CHARS / 2]) -> Self {
        Self(format!("{PREFIX}{}_{}", hex::encode(&id), hex::encode(&secret)))
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.0[PREFIX.len()..PREFIX.len() + ID_CHARS]
    }

    /// What is stored instead of it. The secret is random and long, so nothing slower than SHA-256 is needed.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        hash(&self.0)
    }

    /// For whoever is to have it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

pub(super) fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// The id in a text that may be a key.
pub(super) fn id(text: &str) -> Option<&str> {
    text.strip_prefix(PREFIX)?.split_once('_').map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_made_and_never_shown() {
        let key = KeyText::new([0xab; 6], [0xcd; 32]);
        let text = key.reveal();
        assert_eq!((text.len(), key.id(), id(text)), (83, "abababababab", Some("abababababab")));
        assert_eq!(text.parse(), Ok(key.clone()));
        assert!(!format!("{key:?}").contains("cdcd"));
        assert_ne!(key.hash(), KeyText::new([0xab; 6], [0xce; 32]).hash());
        let upper = text.to_uppercase();
        for bad in ["", "skald_", "skald_ab_cd", &text[1..], &text[..82], &upper, &format!("{text}0")] {
            assert_eq!(bad.parse::<KeyText>(), Err(NoKey), "{bad}");
        }
    }
}
