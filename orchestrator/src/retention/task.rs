//! Retention in the background of a server.

use std::time::Duration;

use tokio::sync::watch;

use super::{Error, Retain};
use crate::{metrics::RetentionResult, storage::retention::RetentionError};

/// How long after the start of the process the first run begins, at the latest.
const FIRST_AFTER_MAX: Duration = Duration::from_secs(60);

/// Runs again and again until told to stop. Ends in the middle of a run, which the next one takes up.
pub async fn follow(retain: Retain, interval: Duration, mut closing: watch::Receiver<bool>) {
    let mut pause = interval.min(FIRST_AFTER_MAX);
    loop {
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => break,
            () = tokio::time::sleep(pause) => {}
        }
        let ran = tokio::select! {
            _ = closing.wait_for(|closing| *closing) => break,
            ran = retain.run() => ran,
        };
        match ran {
            Ok(report) => {
                retain.metrics.retention.ran(RetentionResult::Done);
                tracing::debug!(?report, "retention ran");
            }
            Err(Error::Database(RetentionError::Busy)) => tracing::debug!("another process archives and removes now"),
            Err(error) => {
                retain.metrics.retention.ran(RetentionResult::Failed);
                tracing::warn!(%error, "what is old could not be archived and removed; trying again later");
            }
        }
        pause = interval;
    }
    if let Err(error) = retain.store.let_retention_go(&retain.holder).await {
        tracing::debug!(%error, "the lease on retention ends by itself");
    }
}
