//! Reading the ledgers of all services into one temporary file, sorted by saga.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use chrono::DateTime;
use skald_core::ids::SagaId;

use super::{Progress, report::LedgerSummary};
use crate::{
    config,
    dispatch::{Ledger, LedgerEntry, LedgerPage},
    storage::scratch::{Effect, Scratch},
};

/// A larger detail is not compared.
const DETAIL_BYTES_MAX: usize = 16 * 1024;

/// What the services say they did.
#[derive(Debug)]
pub struct Ledgers {
    pub scratch: Scratch,
    /// The services that have a ledger.
    pub asked: BTreeSet<String>,
    pub summary: Vec<LedgerSummary>,
}

/// Reads every service's ledger to its end.
///
/// # Errors
///
/// When a service does not answer or its ledger is not of the contract's form, or when none has a ledger.
pub async fn read(
    participants: &BTreeMap<String, config::Participant>,
    progress: &dyn Progress,
) -> anyhow::Result<Ledgers> {
    if participants.is_empty() {
        bail!("no participant is configured, so there is no ledger to read: name the configuration with --config");
    }
    let mut ledgers = Ledgers { scratch: Scratch::create().await?, asked: BTreeSet::new(), summary: Vec::new() };
    for (name, config) in participants {
        progress.begin(&format!("ledger of {name}"), None);
        let ledger = Ledger::new(name, config)?;
        ledgers.read_one(name, &ledger, progress).await.with_context(|| format!("the ledger of {name}"))?;
    }
    if ledgers.asked.is_empty() {
        bail!("no participant has a ledger: none answers GET /ledger");
    }
    Ok(ledgers)
}

impl Ledgers {
    async fn read_one(&mut self, name: &str, ledger: &Ledger, progress: &dyn Progress) -> anyhow::Result<()> {
        let (mut after, mut entries) = (0, 0);
        let skipped = loop {
            let LedgerPage::Entries(page) = ledger.page(after).await? else {
                break Some("it has no /ledger".to_owned());
            };
            let Some(last) = page.last() else { break None };
            if !page.is_sorted_by(|one, next| one.id < next.id) || page[0].id <= after {
                bail!("its entries after {after} do not come by ascending id");
            }
            after = last.id;
            entries += page.len() as u64;
            progress.advance(page.len() as u64);
            let effects: Vec<Effect> =
                page.into_iter().map(|entry| effect(name, entry)).collect::<anyhow::Result<_>>()?;
            self.scratch.add(&effects).await?;
        };
        if skipped.is_none() {
            self.asked.insert(name.to_owned());
        }
        self.summary.push(LedgerSummary { participant: name.to_owned(), entries, skipped });
        Ok(())
    }
}

fn effect(service: &str, entry: LedgerEntry) -> anyhow::Result<Effect> {
    let at = DateTime::parse_from_rfc3339(&entry.at).with_context(|| format!("entry {}: `at`", entry.id))?;
    let detail = entry.detail.map_or_else(String::new, |detail| detail.get().to_owned());
    let saga = entry.saga_id.parse().map_or(entry.saga_id, |saga: SagaId| saga.to_string());
    Ok(Effect {
        saga,
        service: service.to_owned(),
        id: entry.id,
        at_us: at.timestamp_micros(),
        step: entry.step,
        operation: entry.operation,
        effect: entry.effect,
        detail: if detail.len() > DETAIL_BYTES_MAX { String::new() } else { detail },
    })
}
