//! Retention: streams that are old and that nobody needs any more leave the database for an archive of files.
//!
//! A stream goes whole. It is old when its saga ended, or its last event was appended, longer ago than the configured age;
//! it is needed while a consumer group, a relay or the counts of events are not past it ([`judge`]). What goes is first
//! written to the archive ([`archive`]), read back and checked, and only then removed ([`run`]); so a crash at any point
//! leaves each stream in the database or in a part of the archive that is whole, or in both. [`restore()`] brings a part
//! back.
//!
//! One process at a time does it, under a lease in the database, by a session or in turns that the engine's commits need
//! not wait for.

mod archive;
mod judge;
mod months;
mod report;
mod restore;
mod run;
mod task;

#[cfg(test)]
pub use self::report::Report;
pub use self::{archive::ArchiveError, restore::restore, run::Retain, task::follow};
use crate::storage::{StoreError, retention::RetentionError};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Database(RetentionError),
    #[error("a part of the work panicked")]
    Panicked,
    /// A part is half removed, and its file is needed to go on.
    #[error("part {name} is partly removed, and its file cannot be used: {error}")]
    HalfRemoved { name: String, error: ArchiveError },
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Database(error.into())
    }
}

impl From<RetentionError> for Error {
    fn from(error: RetentionError) -> Self {
        Self::Database(error)
    }
}
