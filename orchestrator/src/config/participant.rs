//! How to call one participant: where it is, how much it takes, and what it must be shown.

use std::path::{Path, PathBuf};

use reqwest::{
    Url,
    header::{HeaderName, HeaderValue},
};
use serde::Deserialize;
use skald_core::time::Millis;

use super::{
    problem::Problem,
    values::{ByteSize, Secret},
};
use crate::signature::Signer;

/// The section `[participants.NAME]`. Definitions call it by that name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Participant {
    /// Short for one base URL.
    pub base_url: Option<String>,
    /// Where it is: `http` or `https`, with a path prefix if it has one. Calls take them in turn.
    pub base_urls: Vec<String>,
    /// No attempt lasts longer, whatever a definition says.
    pub timeout: Millis,
    /// For making a connection; the attempt's own timeout bounds it too.
    pub connect_timeout: Millis,
    /// Calls in flight at once.
    pub max_concurrency: u32,
    /// Calls that wait in memory for a permit or for the rate. The others are put off.
    pub max_waiting: u32,
    /// How long a call waits in memory before it is put off.
    pub max_wait: Millis,
    /// None: as fast as the permits allow.
    pub rate_limit: Option<RateLimit>,
    pub breaker: Breaker,
    /// Sent with every call, for the participant to know who calls.
    pub secret_header: Option<SecretHeader>,
    /// Calls are signed with each, for the participant to know that they come from here, unchanged.
    pub signing_secrets: Vec<SecretSource>,
    /// A larger answer is not read to its end.
    pub response_max: ByteSize,
}

impl Default for Participant {
    fn default() -> Self {
        Self {
            base_url: None,
            base_urls: Vec::new(),
            timeout: Millis(30_000),
            connect_timeout: Millis(5_000),
            max_concurrency: 64,
            max_waiting: 1_000,
            max_wait: Millis(1_000),
            rate_limit: None,
            breaker: Breaker::default(),
            secret_header: None,
            signing_secrets: Vec::new(),
            response_max: ByteSize(1 << 20),
        }
    }
}

/// `per_second` calls a second, `burst` of them at once after a quiet time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct RateLimit {
    pub per_second: u32,
    /// None: as many as a second allows.
    pub burst: Option<u32>,
}

/// When to stop calling a participant that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Breaker {
    /// So many failures in a row open the circuit.
    pub failures: u32,
    /// How long it stays open the first time; twice as long each time it opens again.
    pub open_for: Millis,
    pub open_for_max: Millis,
    /// So many calls at once may try a circuit that was open; as many successes close it.
    pub probes: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 10, open_for: Millis(5_000), open_for_max: Millis(60_000), probes: 3 }
    }
}

/// Where a secret is: in exactly one of three places.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct SecretSource {
    pub value: Option<Secret>,
    /// The environment variable that holds it.
    pub env: Option<String>,
    /// The file that holds it; a line end at its end is not part of it.
    pub file: Option<PathBuf>,
}

impl SecretSource {
    /// The secret, read from where it is.
    ///
    /// # Errors
    ///
    /// The key and what is wrong with it, never the secret.
    pub fn read(&self) -> Result<Secret, (&'static str, String)> {
        read_secret(self.value.as_ref(), self.env.as_deref(), self.file.as_deref())
    }
}

/// A header whose value is a secret, given in exactly one of three ways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct SecretHeader {
    pub name: String,
    pub value: Option<Secret>,
    /// The environment variable that holds it.
    pub env: Option<String>,
    /// The file that holds it; a line end at its end is not part of it.
    pub file: Option<PathBuf>,
}

impl Participant {
    /// Where it is.
    ///
    /// # Errors
    ///
    /// The key and what is wrong with it, when there is no base URL or one cannot be used.
    pub fn endpoints(&self) -> Result<Vec<Url>, (&'static str, String)> {
        match (&self.base_url, self.base_urls.as_slice()) {
            (Some(_), [_, ..]) => Err(("base_url", "is given beside `base_urls`: give one of them".to_owned())),
            (None, []) => Err(("base_url", "is missing: give the participant's http:// or https:// URL".to_owned())),
            (Some(url), []) => endpoint(url).map(|url| vec![url]).map_err(|problem| ("base_url", problem)),
            (None, urls) => {
                urls.iter().map(|url| endpoint(url)).collect::<Result<_, _>>().map_err(|problem| ("base_urls", problem))
            }
        }
    }

    /// What its calls are signed with; None: they are not.
    ///
    /// # Errors
    ///
    /// The key and what is wrong with it, never the secret.
    pub fn signer(&self) -> Result<Option<Signer>, (String, String)> {
        let place = |at: usize| format!("signing_secrets.{at}");
        let mut secrets = Vec::with_capacity(self.signing_secrets.len());
        for (at, source) in self.signing_secrets.iter().enumerate() {
            let secret = source.read().map_err(|(key, problem)| (format!("{}.{key}", place(at)), problem))?;
            Signer::new([secret.reveal()]).map_err(|error| (place(at), error.to_string()))?;
            secrets.push(secret);
        }
        let signer = Signer::new(secrets.iter().map(Secret::reveal)).expect("each was tried");
        Ok((!secrets.is_empty()).then_some(signer))
    }

    /// Adds what is wrong with this section, which is called `section`, to `problems`.
    pub(super) fn check(&self, section: &str, problems: &mut Vec<Problem>) {
        let mut wrong = |key: &str, text: String| problems.push(Problem::new(format!("{section}.{key}"), text));
        if let Err((key, text)) = self.endpoints() {
            wrong(key, text);
        }
        if let Some(Err((key, text))) = self.secret_header.as_ref().map(SecretHeader::read) {
            wrong(&format!("secret_header.{key}"), text);
        }
        if let Err((key, text)) = self.signer() {
            wrong(&key, text);
        }
        for (key, number) in [
            ("timeout", self.timeout.0),
            ("connect_timeout", self.connect_timeout.0),
            ("max_concurrency", self.max_concurrency.into()),
            ("response_max", self.response_max.0 as u64),
            ("rate_limit.per_second", self.rate_limit.map_or(1, |limit| limit.per_second.into())),
            ("rate_limit.burst", self.rate_limit.and_then(|limit| limit.burst).map_or(1, u64::from)),
            ("breaker.failures", self.breaker.failures.into()),
            ("breaker.open_for", self.breaker.open_for.0),
            ("breaker.probes", self.breaker.probes.into()),
        ] {
            if number == 0 {
                wrong(key, "is zero: give at least one".to_owned());
            }
        }
        if self.max_concurrency > CONCURRENCY_MAX {
            wrong("max_concurrency", format!("is over {CONCURRENCY_MAX}: each takes a connection"));
        }
        if self.breaker.open_for_max < self.breaker.open_for {
            wrong("breaker.open_for_max", "is shorter than `open_for`: give at least as much".to_owned());
        }
    }
}

const CONCURRENCY_MAX: u32 = 60_000;

fn endpoint(text: &str) -> Result<Url, String> {
    // The text is not quoted: it may hold a password, which is what one of the checks is about.
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}): write http://host:port"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is neither http:// nor https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or password: use `secret_header`".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or a fragment: a base URL is scheme, host, port and path prefix".to_owned());
    }
    Ok(url)
}

impl SecretHeader {
    /// Name and value, the value marked as sensitive, read from where it is.
    ///
    /// # Errors
    ///
    /// The key and what is wrong with it, never the value.
    pub fn read(&self) -> Result<(HeaderName, HeaderValue), (&'static str, String)> {
        let name = HeaderName::from_bytes(self.name.as_bytes())
            .map_err(|_| ("name", "is not the name of a header, such as X-Api-Key".to_owned()))?;
        let secret = read_secret(self.value.as_ref(), self.env.as_deref(), self.file.as_deref())?;
        let mut value = HeaderValue::from_str(secret.reveal())
            .map_err(|_| ("value", "holds characters that a header cannot carry".to_owned()))?;
        value.set_sensitive(true);
        Ok((name, value))
    }
}

/// Reads a secret from the one place of three that is given.
fn read_secret(
    value: Option<&Secret>,
    env: Option<&str>,
    file: Option<&Path>,
) -> Result<Secret, (&'static str, String)> {
    let secret = match (value, env, file) {
        (Some(value), None, None) => value.clone(),
        (None, Some(name), None) => Secret::new(
            std::env::var(name).map_err(|_| ("env", format!("names `{name}`, which the environment does not have")))?,
        ),
        (None, None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ("file", format!("names {}, which cannot be read: {error}", path.display())))?;
            Secret::new(text.trim_end_matches(['\r', '\n']))
        }
        _ => return Err(("value", "needs exactly one of `value`, `env` and `file`".to_owned())),
    };
    if secret.reveal().is_empty() { Err(("value", "is empty".to_owned())) } else { Ok(secret) }
}
