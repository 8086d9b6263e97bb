//! What a run of retention tells.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

/// What a run did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub dry_run: bool,
    /// What was over before this went, or would go. RFC 3339.
    pub cutoff: String,
    pub sagas: u64,
    pub streams: u64,
    pub events: u64,
    /// Parts of the archive whose streams are gone from the database.
    pub parts: Vec<String>,
    /// Why others stay, of those that began before the cutoff, and how many.
    pub kept: BTreeMap<String, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.dry_run { "would go" } else { "went" };
        let Self { sagas, streams, events, cutoff, .. } = self;
        write!(f, "{sagas} sagas and {streams} other streams, over before {cutoff}, {verb}: {events} events")?;
        for part in &self.parts {
            write!(f, "\n  archived and removed: {part}")?;
        }
        for (reason, count) in &self.kept {
            write!(f, "\n  kept: {count} {reason}")?;
        }
        Ok(())
    }
}
