//! Entries of the audit log: who does what to what, why, and how it ended.
//!
//! An action is recorded before it is carried out, and not carried out if it cannot be; a second entry under the same
//! request id tells how it ended. A key's change is one entry, written with it.

use std::{sync::Arc, time::Duration};

use skald_core::time::Timestamp;
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::{
    clock::Clock,
    storage::{
        Store, StoreError,
        access::{AuditEntry, AuditOutcome},
    },
};

/// An answer does not wait longer for the entry that tells how its action ended.
const END_TIME_MAX: Duration = Duration::from_secs(2);

/// What is done, or was to be.
#[derive(Clone, Debug)]
pub struct Act {
    pub actor: Option<String>,
    pub credential: Option<String>,
    /// Such as `saga.retry`.
    pub action: String,
    pub target: String,
    pub reason: Option<String>,
    pub request_id: String,
    pub correlation_id: Option<String>,
}

/// Writes entries.
#[derive(Clone, Debug)]
pub struct Recorder {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    /// Where the store's connections belong.
    pub runtime: Handle,
}

/// An act that is under way. Dropped, nobody saw its end, and that is recorded.
#[derive(Debug)]
pub struct Recording {
    recorder: Recorder,
    act: Option<Act>,
}

impl Recorder {
    /// Records that an act begins.
    ///
    /// # Errors
    ///
    /// When it cannot be recorded: then it must not be carried out.
    pub async fn begin(self, act: Act) -> Result<Recording, StoreError> {
        self.store.record(&entry(&act, self.clock.now(), AuditOutcome::Begun, None, 1)).await?;
        Ok(Recording { recorder: self, act: Some(act) })
    }

    async fn ended(self, act: Act, outcome: AuditOutcome, code: Option<&'static str>) {
        if let Err(error) = self.store.record(&entry(&act, self.clock.now(), outcome, code, 1)).await {
            let (action, request_id) = (act.action, act.request_id);
            tracing::warn!(%error, action, request_id, outcome = outcome.as_str(), "an end cannot be recorded");
        }
    }
}

impl Recording {
    /// Records how it ended: with a problem of this code, or well.
    pub async fn end(mut self, code: Option<&'static str>) {
        let Some(act) = self.act.take() else { return };
        let outcome = if code.is_some() { AuditOutcome::Failed } else { AuditOutcome::Done };
        let recorder = self.recorder.clone();
        let recording = recorder.runtime.clone().spawn(recorder.ended(act, outcome, code));
        // Goes on by itself if it takes longer.
        let _ = tokio::time::timeout(END_TIME_MAX, recording).await;
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(act) = self.act.take() {
            let recorder = self.recorder.clone();
            recorder.runtime.clone().spawn(recorder.ended(act, AuditOutcome::Unknown, None));
        }
    }
}

/// The entry of an act at this time.
#[must_use]
pub fn entry(act: &Act, at: Timestamp, outcome: AuditOutcome, code: Option<&str>, times: u32) -> AuditEntry {
    let act = act.clone();
    AuditEntry {
        id: id(at, rand::random()),
        at,
        actor: act.actor,
        credential: act.credential,
        action: act.action,
        target: act.target,
        reason: act.reason,
        request_id: act.request_id,
        correlation_id: act.correlation_id,
        outcome,
        code: code.map(str::to_owned),
        times,
    }
}

/// A UUIDv7 that sorts by the microsecond (RFC 9562, section 6.2, method 3).
fn id(at: Timestamp, mut random: [u8; 10]) -> Uuid {
    let micros = u64::try_from(at.as_micros()).unwrap_or(0);
    let fraction = u16::try_from(micros % 1000 * 4096 / 1000).expect("12 bits");
    [random[0], random[1]] = fraction.to_be_bytes();
    uuid::Builder::from_unix_timestamp_millis(micros / 1000, &random).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_sort_by_their_time_to_the_microsecond() {
        let mut last = Uuid::nil();
        for micros in (1_800_000_000_000_000..1_800_000_000_002_500).step_by(3) {
            let next = id(Timestamp::from_micros(micros), rand::random());
            assert!(next > last, "{micros}");
            assert_eq!(next.get_version_num(), 7);
            last = next;
        }
    }
}
