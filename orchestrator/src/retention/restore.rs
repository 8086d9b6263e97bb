//! Bringing parts of the archive back into a database.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use skald_core::time::Millis;

use super::{
    Error,
    archive::{Manifest, Reader},
};
use crate::{
    hex,
    storage::{
        Storage,
        retention::{Restored, RetentionError},
    },
};

/// How long the lease lasts; extended after every batch.
const LEASE: Millis = Millis(60_000);

/// Events written in one transaction, about; a stream is never split.
const EVENTS_TOGETHER: usize = 500;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RestoreReport {
    pub parts: Vec<String>,
    /// Sagas and other streams that were written.
    pub restored: u64,
    /// Those that were there already, the same.
    pub present: u64,
}

impl fmt::Display for RestoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parts, restored, present } = self;
        write!(f, "{}: {restored} streams restored, {present} were there already", parts.join(", "))
    }
}

/// Restores parts, each checked whole before anything of it is written. To be repeated when it was interrupted.
///
/// # Errors
///
/// When a file is not a part, something in the database contradicts it, or another process archives. Streams before the
/// one that was refused stay restored.
pub async fn restore(store: &Arc<dyn Storage>, holder: &str, files: &[PathBuf]) -> Result<RestoreReport, Error> {
    let mut report = RestoreReport::default();
    hold(store, holder).await?;
    let mut done = Ok(());
    for file in files {
        done = restore_part(store, holder, file, &mut report).await;
        if done.is_err() {
            break;
        }
    }
    store.let_retention_go(holder).await?;
    done.map(|()| report)
}

async fn hold(store: &Arc<dyn Storage>, holder: &str) -> Result<(), Error> {
    if store.hold_retention(holder, LEASE).await? { Ok(()) } else { Err(RetentionError::Busy.into()) }
}

async fn restore_part(
    store: &Arc<dyn Storage>,
    holder: &str,
    file: &Path,
    report: &mut RestoreReport,
) -> Result<(), Error> {
    let (mut reader, manifest) = Reader::open(file)?;
    let definitions = reader.definitions().to_vec();
    loop {
        let (mut streams, mut events) = (Vec::new(), 0);
        while events < EVENTS_TOGETHER
            && let Some(stream) = reader.stream()?
        {
            events += stream.events.len();
            streams.push(stream);
        }
        if streams.is_empty() {
            break;
        }
        for restored in store.restore(&definitions, &streams).await? {
            match restored {
                Restored::Written => report.restored += 1,
                Restored::Present => report.present += 1,
            }
        }
        hold(store, holder).await?;
    }
    forget(store, &manifest).await?;
    report.parts.push(manifest.name);
    Ok(())
}

/// Its ids are no longer those of what is gone.
async fn forget(store: &Arc<dyn Storage>, manifest: &Manifest) -> Result<(), Error> {
    let is_it = |part: &crate::storage::retention::Part| {
        part.name == manifest.name && hex::encode(&part.sha256) == manifest.file.sha256
    };
    if store.parts().await?.iter().any(is_it) {
        store.forget_part(&manifest.name).await?;
    }
    Ok(())
}
