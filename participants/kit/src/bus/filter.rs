//! Which events a consumer wants.

use serde::Serialize;

use crate::events::Event;

/// Which events a consumer gets; an empty list does not restrict.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Filter {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub definitions: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
    /// `orchestrated` or `choreographed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<&'static str>,
}

/// Where a new group begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    Beginning,
    End,
}

impl Filter {
    /// Whether an event is wanted.
    #[must_use]
    pub fn takes(&self, event: &Event) -> bool {
        self.takes_stream_of(event) && named(&self.types, &event.type_name) && named(&self.kinds, &event.kind)
    }

    /// Whether other events of the same stream may be wanted: by what all events of a stream have in common.
    #[must_use]
    pub fn takes_stream_of(&self, event: &Event) -> bool {
        named(&self.categories, &event.category)
            && (self.definitions.is_empty()
                || event.definition.as_ref().is_some_and(|name| self.definitions.contains(name)))
            && self.mode.is_none_or(|mode| event.mode.as_deref() == Some(mode))
    }
}

fn named(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|wanted| wanted == name)
}
