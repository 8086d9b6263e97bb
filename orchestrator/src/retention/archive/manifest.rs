//! What a part of the archive says of itself.

use std::{fs, io::Write as _, path::Path};

use serde::{Deserialize, Serialize};

use super::{ArchiveError, Counts, at, manifest_of};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub name: String,
    pub written_by: String,
    pub written_at: String,
    pub file: Content,
    /// Of the lines, before they were compressed.
    pub lines: Content,
    #[serde(flatten)]
    pub holds: Holds,
}

/// How much there is, and its digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    pub bytes: u64,
    /// In hexadecimal.
    pub sha256: String,
}

/// What is in a part, as it adds up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    pub counts: Counts,
    /// The smallest and the largest id of its streams.
    pub first_id: String,
    pub last_id: String,
    /// When its first and its last event occurred.
    pub first_at_us: i64,
    pub last_at_us: i64,
    /// By shard.
    pub shards: Vec<ShardHolds>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardHolds {
    pub shard: i32,
    pub events: u64,
    /// The smallest and the largest position of its events.
    pub first: i64,
    pub last: i64,
}

impl Manifest {
    /// Reads the manifest of a part's file.
    ///
    /// # Errors
    ///
    /// When there is none, or it is none.
    pub fn read(file: &Path) -> Result<Self, ArchiveError> {
        let path = manifest_of(file);
        let text = fs::read(&path).map_err(|error| at(&path, error))?;
        serde_json::from_slice(&text).map_err(|error| ArchiveError::Whole { path, what: error.to_string() })
    }

    /// Writes it beside the file, durably but for the folder's own entry.
    pub(super) fn write(&self, file: &Path) -> Result<(), ArchiveError> {
        let path = manifest_of(file);
        let unfinished = path.with_extension("unfinished");
        let text = serde_json::to_vec_pretty(self).expect("a manifest is plain data");
        let write = || {
            let mut file = fs::File::create(&unfinished)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)
        };
        write().map_err(|error| at(&path, error))
    }
}
