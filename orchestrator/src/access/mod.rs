//! Who may ask for what: callers show a key or a token, each has a role, each endpoint needs a scope.
//!
//! Without any key and without an issuer of tokens everything is allowed, to whoever reaches the address. The first key
//! ends that for good: keys are never deleted, so a database that has had one asks for one, also when all have expired.
//! Asking costs a request a digest and a look into memory; the database is asked in the background.

pub mod key;
pub mod keys;
pub mod limits;
pub mod refusals;
pub mod scope;
pub mod tokens;

use std::{fmt, sync::Arc};

use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use skald_core::time::Timestamp;
use tokio::sync::watch;

use self::{
    keys::Keys,
    limits::{Allowance, Limits},
    refusals::Refusals,
    scope::Scopes,
    tokens::Tokens,
};
use crate::{
    clock::Clock,
    config,
    storage::{Store, StoreError},
};

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub struct Caller {
    /// The key's name, or the token's subject. Operators' actions are recorded under it.
    pub name: String,
    /// What showed it: `key:` and the key's id, or `token`.
    pub credential: String,
    pub scopes: Scopes,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.credential)
    }
}

/// Why nobody is known by what a request shows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    #[error("the request shows no key and no token")]
    Nothing,
    #[error("the key is not known")]
    WrongKey,
    #[error("the key has expired")]
    ExpiredKey,
    #[error("the key was revoked")]
    RevokedKey,
    #[error("the token is not acceptable: {0}")]
    Token(String),
}

/// See the module.
#[derive(Debug)]
pub struct Access {
    keys: Keys,
    tokens: Option<Tokens>,
    limits: Option<Limits>,
    refusals: Refusals,
}

impl Access {
    /// Reads the keys, and goes on doing so until `closed`; then what was refused last is recorded.
    ///
    /// # Errors
    ///
    /// When the keys of clients or of the issuer cannot be read.
    pub async fn follow(
        config: &config::Access,
        store: &Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        closed: &watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let tokens = match &config.jwt {
            Some(jwt) => Some(Tokens::follow(jwt, closed.clone()).await?),
            None => None,
        };
        Ok(Self {
            keys: Keys::follow(Arc::clone(store), closed.clone()).await?,
            tokens,
            limits: config.rate_limit.map(|limit| Limits::new(limit, closed.clone())),
            refusals: Refusals::follow(Arc::clone(store), Arc::clone(clock), closed.clone()),
        })
    }

    /// Whether everything is allowed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.tokens.is_none() && !self.keys.any()
    }

    /// Whoever shows this.
    ///
    /// # Errors
    ///
    /// When nobody is known by it.
    pub async fn caller(&self, headers: &HeaderMap, now: Timestamp) -> Result<Arc<Caller>, Unknown> {
        let shown = bearer(headers).ok_or(Unknown::Nothing)?;
        if shown.starts_with(key::PREFIX) {
            return self.keys.caller(shown, now);
        }
        match &self.tokens {
            Some(tokens) => tokens.caller(shown).await.map(Arc::new).map_err(Unknown::Token),
            None => Err(Unknown::WrongKey),
        }
    }

    /// What the caller's rate leaves; None if rates are not limited.
    #[must_use]
    pub fn allowance(&self, caller: &Caller) -> Option<Allowance> {
        self.limits.as_ref().map(|limits| limits.take(caller))
    }

    #[must_use]
    pub const fn refusals(&self) -> &Refusals {
        &self.refusals
    }
}

/// The credentials of `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, shown) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| shown.trim())
}

/// Whether a database has ever had a key.
///
/// # Errors
///
/// When it cannot be read.
pub async fn has_keys(store: &dyn Store) -> Result<bool, StoreError> {
    Ok(!store.api_keys().await?.is_empty())
}
