//! Tokens: sealed values as texts. Their outer form is [`skald_core::personal`]'s.
//!
//! The payload is a nonce and the value's JSON under AES-256-GCM with the subject's key; the token's head, which names
//! that key, is authenticated with it. The nonce is not random but a keyed hash of the value: the same value under the same
//! key is the same token, so that what is sealed twice (a command that is repeated) compares as equal, and two values meet
//! in a nonce only by chance. All that it tells is that two values of one subject are equal.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};
use serde_json::Value;
use skald_core::personal::{END, MARK};

use crate::storage::subjects::SubjectKey;

/// A new key with a name of its own.
#[must_use]
pub fn fresh_key() -> SubjectKey {
    SubjectKey { id: URL_SAFE_NO_PAD.encode(rand::random::<[u8; 12]>()).into(), bytes: rand::random() }
}

/// The name of the key that a token was made with.
#[must_use]
pub fn key_of(token: &str) -> Option<&str> {
    token.strip_prefix(MARK)?.strip_suffix(END)?.split_once('.').map(|(key, _)| key)
}

#[must_use]
pub fn seal(key: &SubjectKey, value: &Value) -> String {
    let mut bytes = value.to_string().into_bytes();
    let hash = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key.bytes), &bytes);
    let mut nonce = [0; NONCE_LEN];
    nonce.copy_from_slice(&hash.as_ref()[..NONCE_LEN]);
    let head = format!("{MARK}{}.", key.id);
    cipher(&key.bytes)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&head), &mut bytes)
        .expect("a value is far smaller than what the cipher takes");
    let payload = URL_SAFE_NO_PAD.encode([nonce.as_slice(), &bytes].concat());
    format!("{head}{payload}{END}")
}

/// None when the token was not made with this key, or was changed.
#[must_use]
pub fn open(key: &[u8; 32], token: &str) -> Option<Value> {
    let head_len = MARK.len() + key_of(token)?.len() + 1;
    let (head, payload) = token.strip_suffix(END)?.split_at(head_len);
    let mut bytes = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let plain = cipher(key).open_in_place(nonce, Aad::from(head), sealed).ok()?;
    serde_json::from_slice(plain).ok()
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has the cipher's length"))
}

#[cfg(test)]
mod tests {
    use super::{super::opened::is_token, *};
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_token_opens_with_its_own_key_and_unchanged_only() {
        let (key, other) = (fresh_key(), fresh_key());
        let token = seal(&key, &json!("jane@example.org"));
        assert_eq!(open(&key.bytes, &token), Some(json!("jane@example.org")));
        assert_eq!(token, seal(&key, &json!("jane@example.org")));
        assert_ne!(token, seal(&key, &json!("john@example.org")));
        assert_eq!(key_of(&token), Some(&*key.id));
        assert_eq!(open(&other.bytes, &token), None);
        let renamed = token.replace(&*key.id, &other.id);
        assert_eq!(open(&key.bytes, &renamed), None, "the name of the key is authenticated too");
        for at in MARK.len()..token.len() - 1 {
            let changed = if &token[at..=at] == "A" { "B" } else { "A" };
            let broken = format!("{}{changed}{}", &token[..at], &token[at + 1..]);
            // The last character of base64 may hold bits that mean nothing; then it does not decode.
            assert_ne!(open(&key.bytes, &broken), Some(json!("john@example.org")));
            assert_eq!(open(&key.bytes, &broken), None, "{at}");
        }
        for text in ["", "~", MARK, &format!("{MARK}~"), &format!("{MARK}a.~"), &format!("{MARK}a.AAAA~")] {
            assert_eq!(open(&key.bytes, text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sealed_comes_back(text in ".*", number in any::<i64>(), list in any::<bool>()) {
            let key = fresh_key();
            let value = if list { json!([text, {"n": number}]) } else { json!(text) };
            let token = seal(&key, &value);
            prop_assert!(is_token(&token));
            prop_assert_eq!(open(&key.bytes, &token), Some(value));
        }
    }
}
