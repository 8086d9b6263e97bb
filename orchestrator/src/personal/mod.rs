//! Personal data: sealed where it comes in, opened where it is needed, and gone for good when its key is.
//!
//! | where | what happens |
//! | --- | --- |
//! | a start ([`Sealing::seal_input`]) | the input's personal fields become tokens before the engine sees it |
//! | a call ([`SealedCalls`]) | tokens in the request are opened just before it is sent; the answer is sealed before the engine sees it |
//! | a callback, an operator's output ([`SagaSealing`]) | as an answer |
//! | a read of a saga, or of its stream's state ([`Sealing::open`]) | tokens are opened; `[erased]` where the key was destroyed |
//! | events, archives, buses | tokens, as they are |
//!
//! The engine and everything stored hold nothing but tokens, so that erasure has one place: the key, see
//! [`crate::storage::subjects`]. Keys are kept in memory for [`keys::AGE_MAX`] at most.
//!
//! Tokens are opened only under keys of the subject whose saga it is. So whoever gets hold of another's token and puts it
//! into an input learns nothing by it.

mod calls;
mod echo;
mod keys;
mod opened;
mod saga;
mod token;

use std::{fmt, sync::Arc};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use skald_core::{
    definition::{Definition, NoSubject},
    json::Document,
    personal::MARK,
    shard::writer::Subject,
};

pub use self::{calls::SealedCalls, opened::Opened, saga::SagaSealing};
use self::{echo::Echo, keys::Keys, opened::Content};
use crate::{
    hex,
    storage::{Store, StoreError, subjects::SubjectKey},
};

const SUBJECTS_LABEL: &[u8] = b"skald: subjects of personal data, 1";
const FINGERPRINTS_LABEL: &[u8] = b"skald: fingerprints of personal inputs, 1";

/// Seals and opens; see the module.
pub struct Sealing {
    keys: Keys,
    subjects: Hmac<Sha256>,
    fingerprints: Hmac<Sha256>,
}

/// An input that holds tokens, and whose they are.
#[derive(Debug)]
pub struct SealedInput {
    pub input: Document,
    pub subject: Subject,
}

/// Why an input cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum CannotSeal {
    #[error(transparent)]
    Subject(#[from] NoSubject),
    #[error("the input must not hold `{MARK}`, by which sealed values are known")]
    Token,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Sealing {
    /// `secret` is the database's.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, secret: &[u8]) -> Self {
        let keyed = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
        let derived = |label: &[u8]| keyed(&keyed(secret).chain_update(label).finalize().into_bytes());
        let (subjects, fingerprints) = (derived(SUBJECTS_LABEL), derived(FINGERPRINTS_LABEL));
        Self { keys: Keys::new(store), subjects, fingerprints }
    }

    /// What stands for a subject in the database.
    #[must_use]
    pub fn subject(&self, name: &str) -> Arc<str> {
        hex::encode(&self.subjects.clone().chain_update(name).finalize().into_bytes()).into()
    }

    /// What is stored in a fingerprint's place where the input is personal: from a plain hash, somebody who guesses the
    /// input could tell after an erasure that it was that.
    #[must_use]
    pub fn fingerprint(&self, plain: &[u8; 32]) -> [u8; 32] {
        self.fingerprints.clone().chain_update(plain).finalize().into_bytes().into()
    }

    /// The input of a definition with personal data, with tokens in it; None for any other definition.
    ///
    /// # Errors
    ///
    /// When the input does not say whose it is, or looks as if it held tokens already; or when the store cannot be asked.
    pub async fn seal_input(&self, definition: &Definition, input: &Value) -> Result<Option<SealedInput>, CannotSeal> {
        let Some(personal) = &definition.personal else { return Ok(None) };
        if input.to_string().contains(MARK) {
            return Err(CannotSeal::Token);
        }
        let subject = self.subject(&personal.subject(input)?);
        let key = self.keys.live(&subject).await?;
        let mut sealed = input.clone();
        for path in personal.input() {
            // A path within another one finds a token, which stays.
            path.each(&mut sealed, &mut |value| {
                if !value.as_str().is_some_and(opened::is_token) {
                    *value = Value::String(token::seal(&key, value));
                }
            });
        }
        Ok(Some(SealedInput { input: sealed.into(), subject: Subject { hash: subject, key: key.id } }))
    }

    /// Whether the key that something was sealed under was destroyed since; then it is forgotten here, and the next
    /// sealing takes another.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked.
    pub async fn is_outdated(&self, subject: &Subject) -> Result<bool, StoreError> {
        self.keys.forget(&subject.hash);
        let key = self.keys.named(&subject.key).await?;
        Ok(key.is_none_or(|key| key.bytes.is_none()))
    }

    /// Asks the database anew for everything about the subject.
    pub fn forget(&self, subject: &str) {
        self.keys.forget(subject);
    }

    /// Opens what is the subject's among these tokens.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked.
    pub async fn open<'t>(
        &self,
        tokens: impl IntoIterator<Item = &'t String>,
        subject: &str,
    ) -> Result<Opened, StoreError> {
        let mut opened = Opened::default();
        for token in tokens {
            let Some(id) = token::key_of(token) else { continue };
            let Some(key) = self.keys.named(id).await?.filter(|key| key.subject == subject) else { continue };
            match key.bytes {
                None => opened.note(token.clone(), Content::Erased),
                Some(bytes) => {
                    if let Some(value) = token::open(&bytes, token) {
                        opened.note(token.clone(), Content::Value(value));
                        opened.key.get_or_insert_with(|| SubjectKey { id: id.into(), bytes });
                    }
                }
            }
        }
        Ok(opened)
    }

    /// What seals whatever of these tokens comes back.
    ///
    /// While its saga is unfinished, the key that the tokens were made with is the subject's. Where there are no tokens, the
    /// database is asked for it: what is known here may be destroyed already, and what is sealed now must not be.
    async fn echo(&self, opened: &Opened, subject: &str) -> Result<Echo, StoreError> {
        let key = match &opened.key {
            Some(key) => key.clone(),
            None => {
                self.keys.forget(subject);
                self.keys.live(subject).await?
            }
        };
        Ok(Echo::new(key, opened))
    }
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealing([redacted])")
    }
}
