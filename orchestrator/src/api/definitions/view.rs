//! Definitions as clients see them.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use skald_core::definition::Definition;
use utoipa::ToSchema;

use crate::app::App;

/// A version of a definition.
#[derive(Debug, Serialize, ToSchema)]
pub struct DefinitionView {
    #[schema(example = "checkout")]
    name: String,
    #[schema(example = 1)]
    version: u32,
    /// Every version that is registered.
    #[schema(example = json!([1]))]
    versions: Vec<u32>,
    /// SHA-256 of the content, in hexadecimal: equal content, equal hash.
    hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    description: Option<String>,
    /// Whether an operator paused it: then no saga of any version of it starts.
    paused: bool,
    /// As registered.
    #[schema(value_type = Object)]
    document: Arc<Value>,
}

/// A definition in a list: its highest version, without the document.
#[derive(Debug, Serialize, ToSchema)]
pub struct DefinitionSummary {
    #[schema(example = "checkout")]
    pub name: String,
    /// The highest.
    #[schema(example = 1)]
    version: u32,
    /// Every version that is registered.
    #[schema(example = json!([1]))]
    versions: Vec<u32>,
    hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    description: Option<String>,
    paused: bool,
}

impl DefinitionView {
    #[must_use]
    pub fn of(app: &App, definition: &Definition) -> Self {
        Self {
            name: definition.name.clone(),
            version: definition.version,
            versions: versions(app, &definition.name),
            hash: definition.hash.clone(),
            description: definition.description.clone(),
            paused: is_paused(app, &definition.name),
            document: Arc::clone(&definition.document),
        }
    }
}

impl DefinitionSummary {
    #[must_use]
    pub fn of(app: &App, definition: &Definition) -> Self {
        Self {
            name: definition.name.clone(),
            version: definition.version,
            versions: versions(app, &definition.name),
            hash: definition.hash.clone(),
            description: definition.description.clone(),
            paused: is_paused(app, &definition.name),
        }
    }
}

fn versions(app: &App, name: &str) -> Vec<u32> {
    let all = app.definitions().all();
    all.iter().filter(|definition| definition.name == name).map(|definition| definition.version).collect()
}

fn is_paused(app: &App, name: &str) -> bool {
    app.pauses().is_paused(crate::storage::PauseKind::Definition, name)
}
