//! The arguments of `skald keys`, and of commands that show a key.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use skald_core::time::Millis;

use super::DatabaseArgs;
use crate::{access::scope::Role, config::Secret};

/// What to show to a Skald that needs a key.
#[derive(Debug, Args)]
pub struct ApiKeyArgs {
    /// A key that Skald knows, if it needs one
    #[arg(long, value_name = "KEY", env = "SKALD_API_KEY", hide_env_values = true, value_parser = secret)]
    pub api_key: Option<Secret>,
    /// A file that holds that key
    #[arg(long, value_name = "PATH", env = "SKALD_API_KEY_FILE", conflicts_with = "api_key")]
    pub api_key_file: Option<PathBuf>,
}

fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

impl ApiKeyArgs {
    /// The key, from where it is.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn read(&self) -> anyhow::Result<Option<Secret>> {
        let Some(path) = &self.api_key_file else { return Ok(self.api_key.clone()) };
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(Secret::new(text.trim())))
    }
}

#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    pub action: KeysAction,
}

#[derive(Debug, Subcommand)]
pub enum KeysAction {
    /// Make a key; prints it, this once
    Create(CreateKeyArgs),
    /// Show all keys, also those that are good no more; never the secrets
    List(ListKeysArgs),
    /// End a key at once
    Revoke(RevokeKeyArgs),
    /// Make a key in the place of another, which goes on for a while; prints the new one, this once
    Rotate(RotateKeyArgs),
    /// Print a new key and store it nowhere: for a file that `create --from-file` reads
    Generate,
}

#[derive(Debug, Args)]
pub struct CreateKeyArgs {
    /// Who will show it; what operators do is recorded under this name
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub name: String,
    /// viewer, client, operator or admin
    #[arg(long, value_name = "ROLE")]
    pub role: Role,
    /// How long it is good, as in 90d; for ever if left out
    #[arg(long, value_name = "DURATION")]
    pub expires_in: Option<Millis>,
    /// Take the key from a file, as `generate` printed it; nothing is printed. Given again, it changes nothing
    #[arg(long, value_name = "PATH")]
    pub from_file: Option<PathBuf>,
    #[command(flatten)]
    pub by: ByArgs,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub struct ListKeysArgs {
    /// Print one JSON document instead of a table
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub struct RevokeKeyArgs {
    /// The key's id: what follows `skald_`
    pub id: String,
    #[command(flatten)]
    pub by: ByArgs,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub struct RotateKeyArgs {
    /// The id of the key to replace
    pub id: String,
    /// How long the replaced one is still good
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub overlap: Millis,
    /// Take the new key from a file, as `generate` printed it
    #[arg(long, value_name = "PATH")]
    pub from_file: Option<PathBuf>,
    #[command(flatten)]
    pub by: ByArgs,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// For the audit log.
#[derive(Debug, Args)]
pub struct ByArgs {
    /// Who does this; the user's name if left out
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub actor: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

fn name(text: &str) -> Result<String, String> {
    let fits = !text.trim().is_empty() && text.chars().count() <= 128 && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("give 1 to 128 characters in one line".to_owned()) }
}
