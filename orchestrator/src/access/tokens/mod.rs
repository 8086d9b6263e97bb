//! Tokens of an issuer: JWTs (RFC 7519) that an identity provider signed.
//!
//! Its public keys come as a JWK set from a file or a URL. They are read again every few minutes, and when a token names a
//! key that is not among them, then at most every ten seconds. While they cannot be read, those last read are good. Only
//! signatures by a private key are accepted, by the algorithms that [`verify`] knows; the algorithm must fit the key.

mod verify;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, RwLock},
    time::Duration,
};

use anyhow::{Context as _, bail};
use jsonwebtoken::{
    DecodingKey, Validation, decode, decode_header,
    jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::{Mutex, watch},
    time::Instant,
};

use super::{
    Caller,
    scope::{Role, Scopes},
};
use crate::{config, http_client};

/// How often the keys are read anyway.
const INTERVAL: Duration = Duration::from_secs(300);
/// An unknown key's name is no reason to read them sooner than this after the last time.
const INTERVAL_MIN: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How far the issuer's clock may be from ours.
const LEEWAY_S: u64 = 30;
const NAME_CHARS_MAX: usize = 128;

/// See the module. Cloning gives another handle.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    source: Source,
    issuer: String,
    audience: String,
    /// Where in the claims the roles are.
    roles_claim: Vec<String>,
    /// What the issuer calls them; those not named are called as here.
    roles: BTreeMap<String, Role>,
    keys: RwLock<Arc<JwkSet>>,
    /// When the keys were last asked for. Held while they are.
    asked: Mutex<Instant>,
    /// Where connections belong; requests are served by other threads.
    runtime: Handle,
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Url(reqwest::Client, String),
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Tokens {
    /// Reads the keys, and goes on doing so until `closed`.
    ///
    /// # Errors
    ///
    /// When they cannot be read the first time.
    pub async fn follow(jwt: &config::Jwt, mut closed: watch::Receiver<bool>) -> anyhow::Result<Self> {
        verify::install();
        let source = match (&jwt.jwks_file, &jwt.jwks_url) {
            (Some(path), None) => Source::File(path.clone()),
            (None, Some(url)) => Source::Url(client()?, url.clone()),
            _ => bail!("access.jwt needs exactly one of `jwks_file` and `jwks_url`"),
        };
        let keys = source.read().await.context("access.jwt: the issuer's keys cannot be read")?;
        let tokens = Self(Arc::new(Shared {
            source,
            issuer: jwt.issuer.clone(),
            audience: jwt.audience.clone(),
            roles_claim: jwt.roles_claim.split('.').map(str::to_owned).collect(),
            roles: jwt.roles.clone(),
            keys: RwLock::new(Arc::new(keys)),
            asked: Mutex::new(Instant::now()),
            runtime: Handle::current(),
        }));
        let following = tokens.clone();
        tokio::spawn(async move {
            while tokio::time::timeout(INTERVAL, closed.wait_for(|closed| *closed)).await.is_err() {
                following.refresh(INTERVAL_MIN).await;
            }
        });
        Ok(tokens)
    }

    /// Whose token this is.
    ///
    /// # Errors
    ///
    /// Why it is nobody's. Tells nothing of the token itself.
    pub async fn caller(&self, token: &str) -> Result<Caller, String> {
        let header = decode_header(token).map_err(|error| error.to_string())?;
        let algorithm = header.alg;
        if !verify::knows(algorithm) {
            return Err(format!("it is signed by {algorithm:?}, which is not accepted"));
        }
        let kid = header.kid.as_deref();
        let key = match self.key(kid) {
            Some(key) => key,
            None => {
                let refreshing = self.clone();
                // On the runtime, so that the client's leaving does not end it for others who wait.
                let done = self.0.runtime.spawn(async move { refreshing.refresh(INTERVAL_MIN).await });
                done.await.map_err(|error| error.to_string())?;
                self.key(kid).ok_or("the issuer has no such key")?
            }
        };
        let fits = key.common.key_algorithm.is_none_or(|of_key| of_key == KeyAlgorithm::from(algorithm));
        if !fits || key.common.public_key_use.as_ref().is_some_and(|used| *used != PublicKeyUse::Signature) {
            return Err("its key is not for that".to_owned());
        }
        let decoding = DecodingKey::from_jwk(&key).map_err(|error| error.to_string())?;
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.0.issuer]);
        validation.set_audience(&[&self.0.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let token = decode::<Claims>(token, &decoding, &validation).map_err(|error| error.to_string())?;
        self.0.caller(token.claims)
    }

    fn key(&self, kid: Option<&str>) -> Option<Jwk> {
        let keys = Arc::clone(&self.0.keys.read().expect("nothing panics while it holds this lock"));
        match kid {
            Some(kid) => keys.find(kid).cloned(),
            // Without a name there must be nothing to choose.
            None => keys.keys.first().filter(|_| keys.keys.len() == 1).cloned(),
        }
    }

    /// Reads the keys, unless they were asked for less than `floor` ago.
    async fn refresh(&self, floor: Duration) {
        let mut asked = self.0.asked.lock().await;
        if asked.elapsed() < floor {
            return;
        }
        match self.0.source.read().await {
            Ok(keys) => *self.0.keys.write().expect("nothing panics while it holds this lock") = Arc::new(keys),
            Err(error) => tracing::warn!(%error, "the issuer's keys cannot be read; those known hold"),
        }
        *asked = Instant::now();
    }
}

impl Shared {
    fn caller(&self, claims: Claims) -> Result<Caller, String> {
        let name = claims.sub;
        if name.trim().is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
            return Err(format!("its subject is not 1 to {NAME_CHARS_MAX} characters in one line"));
        }
        let (first, rest) = self.roles_claim.split_first().ok_or("no claim is named that holds roles")?;
        let claimed = claims.others.get(first);
        let claimed = rest.iter().fold(claimed, |value, part| value.and_then(|value| value.get(part)));
        let words: Vec<&str> = match claimed {
            Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(words)) => words.split(' ').collect(),
            _ => Vec::new(),
        };
        let role = |word: &&str| self.roles.get(*word).copied().or_else(|| word.parse().ok());
        let scopes = words.iter().filter_map(role).map(Role::scopes).fold(Scopes::default(), Scopes::and);
        Ok(Caller { name, credential: "token".to_owned(), scopes })
    }
}

impl Source {
    async fn read(&self) -> anyhow::Result<JwkSet> {
        let (place, bytes) = match self {
            Self::File(path) => {
                let place = path.display().to_string();
                let bytes = tokio::fs::read(path).await.with_context(|| format!("cannot read {place}"))?;
                (place, bytes)
            }
            Self::Url(client, url) => {
                let mut response = client.get(url).send().await?.error_for_status()?;
                let mut bytes = Vec::new();
                while let Some(chunk) = response.chunk().await? {
                    bytes.extend_from_slice(&chunk);
                    anyhow::ensure!(bytes.len() <= ANSWER_BYTES_MAX, "{url} answers with too much");
                }
                (url.clone(), bytes)
            }
        };
        let keys: JwkSet = serde_json::from_slice(&bytes).with_context(|| format!("{place} holds no JWK set"))?;
        anyhow::ensure!(!keys.keys.is_empty(), "{place} holds no key");
        Ok(keys)
    }
}

fn client() -> anyhow::Result<reqwest::Client> {
    let client = http_client::builder().redirect(reqwest::redirect::Policy::none()).timeout(ANSWER_TIMEOUT);
    Ok(client.build()?)
}

#[cfg(test)]
mod tests;
