//! The configuration: one TOML file, then the environment, then flags; the later wins.
//!
//! Unknown keys and unusable values are refused at start, with the key's name, where it is and what to do. Secrets are
//! shown neither in `Debug` nor in errors. `skald.example.toml` documents every key; a test holds it complete.
//!
//! An environment variable names a key as `SKALD_<SECTION>_<KEY>`, deeper levels with two underscores:
//! `SKALD_DATABASE_URL`, `SKALD_PARTICIPANTS__SALES__BREAKER__FAILURES`. Its value is text, or any TOML value. Variables
//! that begin with `SKALD_` but with no section are ignored and reported: Kubernetes sets such ones by itself for a
//! service called `skald`.

mod access;
mod check;
mod layers;
mod participant;
mod problem;
#[cfg(test)]
mod tests;
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::Deserialize;
use skald_core::time::Millis;

pub use self::{
    access::{Access, Jwt},
    layers::{Flags, Loaded, Sources, environment},
    participant::{Breaker, Participant, RateLimit, SecretHeader, SecretSource},
    problem::{ConfigError, Problem},
    values::{ByteSize, Secret, ServerUrl},
};

/// The whole configuration. One that [`Config::load`] returned is checked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Config {
    pub server: Server,
    pub access: Access,
    pub database: Database,
    pub engine: Engine,
    pub definitions: Definitions,
    pub bus: Bus,
    pub retention: Retention,
    pub webhooks: Webhooks,
    pub traces: Traces,
    pub log: Log,
    /// By the name that definitions call them.
    pub participants: BTreeMap<String, Participant>,
}

/// The HTTP API.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Server {
    pub listen: SocketAddr,
    /// Where other replicas reach this one: scheme, host and port. None: as `listen` says.
    pub advertised_url: Option<String>,
    /// A larger request body is refused.
    pub body_max: ByteSize,
    /// Threads that serve requests. None: one per two processors.
    pub workers: Option<u16>,
    /// On SIGTERM, how long running calls may take to finish.
    pub shutdown_grace: Millis,
    /// How long a start waits for the saga's end when the client does not say.
    pub wait: Millis,
    /// Signs callback tokens; the same on all replicas. None: whoever starts the service finds one.
    pub callback_secret: Option<SecretSource>,
    /// None: HTTP, for a loopback address or behind something that ends TLS.
    pub tls: Option<Tls>,
}

/// PEM files.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Tls {
    /// The server's certificate, and those that lead to its authority's.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            advertised_url: None,
            body_max: ByteSize(1 << 20),
            workers: None,
            shutdown_grace: Millis(30_000),
            wait: Millis(10_000),
            callback_secret: None,
            tls: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Database {
    /// `sqlite:PATH` or `postgres://..`.
    pub url: ServerUrl,
    /// Connections for reading, beside the writer's.
    pub readers: u32,
    /// Shards of a new database; SQLite always has one.
    pub shards: u16,
    /// How long a shard is owned without renewal.
    pub lease: Millis,
    /// Apply migrations at start.
    pub migrate: bool,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: ServerUrl::new("sqlite:./.skald/skald.db"),
            readers: 4,
            shards: 16,
            lease: Millis(5_000),
            migrate: true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Engine {
    /// Sagas in memory: those that wait for long are only in the database. Past so many, starts are refused with 503.
    pub max_running: u32,
    /// Transitions in one commit.
    pub commit_batch_max: u32,
    /// Past so many transitions waiting for a commit, starts are refused with 503.
    pub commit_queue_max: u32,
    /// The sagas that are due when shards are taken begin spread over this time.
    pub recovery_ramp: Millis,
    /// When so many processes in a row died with something of a saga in progress, the saga is parked.
    pub takeovers_max: u32,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            max_running: 10_000,
            commit_batch_max: 512,
            commit_queue_max: 10_000,
            recovery_ramp: Millis(5_000),
            takeovers_max: 3,
        }
    }
}

/// Where events are published beside the log.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Bus {
    /// `redis://..`. None: nowhere.
    pub url: Option<ServerUrl>,
    /// Events that each stream of the bus keeps, about.
    pub keep: u64,
}

impl Default for Bus {
    fn default() -> Self {
        Self { url: None, keep: 100_000 }
    }
}

/// When what is old leaves the database for the archive.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Retention {
    /// How long ago a stream must have been over. None: everything is kept.
    pub age: Option<Millis>,
    /// Categories of streams that go besides sagas.
    pub streams: BTreeSet<String>,
    /// The folder of the archive.
    pub archive: Option<PathBuf>,
    /// How often it is looked for.
    pub interval: Millis,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: None, streams: BTreeSet::new(), archive: None, interval: Millis(24 * 3600 * 1000) }
    }
}

/// Telling others when sagas end or park.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Webhooks {
    /// Messages may go to addresses that are not public, and over plain HTTP.
    pub allow_private: bool,
    /// An answer that takes longer is none.
    pub timeout: Millis,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self { allow_private: false, timeout: Millis(10_000) }
    }
}

/// Spans for OpenTelemetry.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Traces {
    /// The collector, by OTLP over HTTP. None: no spans.
    pub endpoint: Option<String>,
    /// Of the sagas whose starter has no trace, how many get one: 0 to 1.
    pub sample_ratio: f64,
}

impl Default for Traces {
    fn default() -> Self {
        Self { endpoint: None, sample_ratio: 1.0 }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Definitions {
    /// Every `.yaml`, `.yml` and `.json` in them is registered at start.
    pub folders: Vec<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Log {
    pub format: LogFormat,
    /// A level, or `tracing` directives such as `info,skald::dispatch=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum LogFormat {
    Text,
    /// One object per line.
    Json,
}

impl Config {
    /// Reads, merges and checks the configuration.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with its values, or the first thing that keeps them from being read.
    pub fn load(sources: Sources) -> Result<Loaded, ConfigError> {
        let loaded = layers::merge(sources)?;
        let problems = check::problems(&loaded.config);
        if problems.is_empty() { Ok(loaded) } else { Err(ConfigError::Values(problems)) }
    }
}
