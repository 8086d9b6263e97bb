//! The archive: files that hold what retention took out of the database, to be kept, read and restored.
//!
//! A part of it is a file `NAME.ndjson.gz`, gzip of lines of JSON, and `NAME.manifest.json`, which says what is in it. A
//! part is named after the month in which its streams began and numbered within it. The first line says what it is, the
//! last one how much was in it; between them are the definitions that its sagas keep to, and its streams by id: the row
//! of each, and then its events, versions 1..n, every column as the database had it.
//!
//! A file is written under another name, synced, read back and only then given its own: a part with a manifest was
//! complete on the disk, and what is in it adds up.

mod manifest;
mod month;
mod read;
mod write;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use self::{
    manifest::Manifest,
    month::{Month, began_at, id_floor},
    read::Reader,
    write::Writer,
};
use crate::storage::{
    StoredDefinition,
    retention::{Copied, EventCopy, JsonText, SagaCopy, StreamCopy},
};

/// The form of the files.
pub const FORMAT: u32 = 1;

/// One line of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    Part(Header),
    Definition(DefinitionCopy),
    Saga(Box<SagaCopy>),
    Stream(StreamCopy),
    /// Of the saga or stream before it.
    Event(Box<EventCopy>),
    End(Counts),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub format: u32,
    pub name: String,
    /// Of Skald.
    pub written_by: String,
    /// RFC 3339.
    pub written_at: String,
}

/// A row of `definitions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefinitionCopy {
    pub name: String,
    pub version: u32,
    pub hash: String,
    pub registered_at_us: i64,
    pub document: JsonText,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    pub definitions: u64,
    pub sagas: u64,
    pub streams: u64,
    pub events: u64,
    /// Those of streams that are no sagas.
    pub appended: u64,
    pub start_keys: u64,
}

impl From<Copied> for Line {
    fn from(row: Copied) -> Self {
        match row {
            Copied::Saga(saga) => Self::Saga(saga),
            Copied::Stream(stream) => Self::Stream(stream),
        }
    }
}

impl From<&StoredDefinition> for DefinitionCopy {
    fn from(stored: &StoredDefinition) -> Self {
        Self {
            name: stored.name.clone(),
            version: stored.version,
            hash: stored.hash.clone(),
            registered_at_us: stored.registered_at.as_micros(),
            document: JsonText(stored.document.clone()),
        }
    }
}

impl From<DefinitionCopy> for StoredDefinition {
    fn from(copy: DefinitionCopy) -> Self {
        Self {
            name: copy.name,
            version: copy.version,
            hash: copy.hash,
            document: copy.document.0,
            registered_at: skald_core::time::Timestamp::from_micros(copy.registered_at_us),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}, line {line}: {what}", path.display())]
    Line { path: PathBuf, line: u64, what: String },
    #[error("{}: {what}", path.display())]
    Whole { path: PathBuf, what: String },
}

/// The folder of the archive.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes the folder if need be.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        std::fs::create_dir_all(path).map_err(|error| at(path, error))?;
        Ok(Self(path.to_owned()))
    }

    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.ndjson.gz"))
    }

    #[must_use]
    pub fn manifest(&self, name: &str) -> PathBuf {
        manifest_of(&self.file(name))
    }

    /// The first name of a month, from this number on, that no file has.
    #[must_use]
    pub fn free_name(&self, month: Month, from: u32) -> String {
        let taken = |name: &String| self.file(name).exists() || self.manifest(name).exists();
        (from..).map(|number| month.part(number)).find(|name| !taken(name)).expect("numbers do not end")
    }

    /// Removes a part that is in the database too.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), ArchiveError> {
        // The manifest first: a file without one is no part.
        for path in [self.manifest(name), self.file(name)] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path, error)),
                _ => {}
            }
        }
        self.sync()
    }

    /// Makes durable which files there are.
    fn sync(&self) -> Result<(), ArchiveError> {
        File::open(&self.0).and_then(|folder| folder.sync_all()).map_err(|error| at(&self.0, error))
    }
}

/// Where the manifest of a part's file is.
#[must_use]
pub fn manifest_of(file: &Path) -> PathBuf {
    let name = file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    file.with_file_name(format!("{}.manifest.json", name.trim_end_matches(".ndjson.gz")))
}

fn at(path: &Path, error: io::Error) -> ArchiveError {
    ArchiveError::Io { path: path.to_owned(), error }
}
