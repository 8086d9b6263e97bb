//! Merging file, environment and flags.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{Config, ConfigError, Problem, ServerUrl};

/// Where the configuration comes from, weakest first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// Names and values; what does not begin with `SKALD_` is passed over.
    pub environment: Vec<(String, String)>,
    pub flags: Flags,
}

/// What flags say. None and empty: nothing.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub database_url: Option<ServerUrl>,
    pub listen: Option<SocketAddr>,
    pub migrate: Option<bool>,
    /// True if given.
    pub insecure: bool,
    pub bus: Option<ServerUrl>,
    pub definitions: Vec<PathBuf>,
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// Environment variables that begin with `SKALD_` and name no section; worth a warning.
    pub ignored: Vec<String>,
}

/// This process's environment.
#[must_use]
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}

const PREFIX: &str = "SKALD_";
const SECTIONS: [&str; 11] = [
    "server",
    "access",
    "database",
    "engine",
    "definitions",
    "bus",
    "retention",
    "webhooks",
    "traces",
    "log",
    "participants",
];
/// Read by the command line: which file, and what commands show to a server.
const NOT_KEYS: [&str; 3] = ["SKALD_CONFIG", "SKALD_API_KEY", "SKALD_API_KEY_FILE"];

pub(super) fn merge(sources: Sources) -> Result<Loaded, ConfigError> {
    let mut table = sources.file.as_deref().map(file).transpose()?.unwrap_or_default();
    let mut ignored = Vec::new();
    let mut environment = sources.environment;
    environment.retain(|(name, _)| name.starts_with(PREFIX) && !NOT_KEYS.contains(&name.as_str()));
    environment.sort();
    for (variable, text) in environment {
        match key_path(&variable, &table) {
            Some(path) => put(&mut table, &path, variable_value(&variable, &path, &text)?),
            None => ignored.push(variable),
        }
    }
    let mut config: Config = typed(table).map_err(|problem| ConfigError::Values(vec![problem]))?;
    let Flags { database_url, listen, migrate, insecure, bus, definitions } = sources.flags;
    config.database.url = database_url.unwrap_or(config.database.url);
    config.server.listen = listen.unwrap_or(config.server.listen);
    config.database.migrate = migrate.unwrap_or(config.database.migrate);
    config.access.insecure |= insecure;
    config.bus.url = bus.or(config.bus.url);
    if !definitions.is_empty() {
        config.definitions.folders = definitions;
    }
    Ok(Loaded { config, ignored })
}

/// Reads the file, and reads it as a configuration too, since only here it is known where in the file a key is.
fn file(path: &Path) -> Result<Table, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let at = |error: &toml::de::Error, key: String| {
        let (line, column) = place(&text, error.span().map_or(0, |span| span.start));
        let message = if is_sensitive(&key) { UNQUOTED } else { error.message() };
        ConfigError::File { path: path.to_owned(), line, column, problem: Problem::new(key, message) }
    };
    // A syntax error's message does not quote values.
    let parsed = toml::Deserializer::parse(&text).map_err(|error| at(&error, String::new()))?;
    serde_path_to_error::deserialize::<_, Config>(parsed)
        .map_err(|error| at(error.inner(), named(&error.path().to_string())))?;
    toml::from_str(&text).map_err(|error| at(&error, String::new()))
}

/// Line and column of a byte, from 1.
fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The key that a variable names; None if it names no section. A participant that the file has is found whichever of
/// `-` and `_` its name holds.
fn key_path(variable: &str, table: &Table) -> Option<Vec<String>> {
    let name = variable.strip_prefix(PREFIX)?.to_ascii_lowercase();
    let (section, rest) = name.split_once('_')?;
    if !SECTIONS.contains(&section) {
        return None;
    }
    let mut path = vec![section.to_owned()];
    path.extend(rest.trim_start_matches('_').split("__").map(str::to_owned));
    if let (Some(Value::Table(participants)), Some(name)) = (table.get("participants"), path.get_mut(1))
        && section == "participants"
        && let Some(known) = participants.keys().find(|known| known.replace('-', "_") == *name)
    {
        known.clone_into(name);
    }
    Some(path)
}

/// Text if the key takes text, else the TOML value that it spells.
fn variable_value(variable: &str, path: &[String], text: &str) -> Result<Value, ConfigError> {
    let fits = |value: &Value| {
        let mut alone = Table::new();
        put(&mut alone, path, value.clone());
        typed::<Config>(alone)
    };
    let as_text = Value::String(text.to_owned());
    let Err(mut problem) = fits(&as_text) else { return Ok(as_text) };
    if let Ok(spelled) = text.parse::<Value>() {
        match fits(&spelled) {
            Ok(_) => return Ok(spelled),
            Err(closer) => problem = closer,
        }
    }
    Err(ConfigError::Environment { variable: variable.to_owned(), problem })
}

fn put(table: &mut Table, path: &[String], value: Value) {
    let (last, parents) = path.split_last().expect("a path has a section");
    let mut inner = table;
    for parent in parents {
        let entry = inner.entry(parent.clone()).or_insert_with(|| Value::Table(Table::new()));
        if !entry.is_table() {
            *entry = Value::Table(Table::new());
        }
        inner = entry.as_table_mut().expect("made one if it was none");
    }
    inner.insert(last.clone(), value);
}

fn typed<T: DeserializeOwned>(table: Table) -> Result<T, Problem> {
    serde_path_to_error::deserialize(table).map_err(|error| {
        let key = named(&error.path().to_string());
        let message = if is_sensitive(&key) { UNQUOTED } else { error.inner().message() };
        Problem::new(key, message)
    })
}

/// The path of a whole document is written as a dot.
fn named(path: &str) -> String {
    if path == "." { String::new() } else { path.to_owned() }
}

/// May the value of this key hold a secret, which an error that quotes the value would show?
fn is_sensitive(key: &str) -> bool {
    key.contains("secret") || key.contains("url")
}

const UNQUOTED: &str = "has a value of the wrong kind, or an unknown key; see skald.example.toml";
