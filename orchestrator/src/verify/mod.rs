//! Checks a database against the invariants, read-only, while it is in use.
//!
//! Three passes, each page by page: the log of every shard by position ([`log`]), every saga's row against its events
//! ([`sagas`]), every start key ([`keys`]). With the participants' ledgers, which are sorted in a temporary file
//! ([`ledgers`]), ended sagas are also held against what the services say they did ([`effects`]).
//!
//! What makes a moving database checkable:
//!
//! - A shard's log is checked up to the head that its row had when the check began. A commit writes its events and
//!   raises the head at once, so everything up to that head is there, and for good.
//! - A row and its events are read at one moment.
//! - Ledgers are read after the heads and before the sagas. A saga whose end lies below the heads had all its effects
//!   before the ledgers were read; a saga of which a ledger has an entry was in the log before that entry.
//!
//! In memory are one page of rows or places, one saga's fold, the definitions, one page of a ledger, and as many
//! violations as are told. None of that grows with the database.

mod effects;
mod keys;
mod ledgers;
mod log;
mod report;
mod sagas;

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use skald_core::{definition::Definition, ids::SagaId, time::Millis};
use uuid::Uuid;

pub use self::report::Report;
use self::{
    effects::Reconciler,
    ledgers::Ledgers,
    report::Findings,
    sagas::{SagaCheck, SagaPage},
};
use crate::{
    config,
    storage::audit::{Audit, LogBounds, Place},
};

/// Rows, and effects of so many sagas, in memory at once.
const SAGAS_PER_PAGE: u32 = 200;
/// Places of events in memory at once.
const PLACES_PER_PAGE: u32 = 5_000;
const KEYS_PER_PAGE: u32 = 1_000;

/// What to check, and how much to say.
#[derive(Debug)]
pub struct Options<'a> {
    /// Violations that are told; the others are counted.
    pub told_max: usize,
    /// The services whose ledgers to read; None leaves effects alone.
    pub participants: Option<&'a BTreeMap<String, config::Participant>>,
    /// How far the clocks of two services may be apart.
    pub clock_skew: Millis,
}

/// Who is told how far the check has come.
pub trait Progress: Send + Sync {
    /// A new part of the work begins, of so many units if that is known.
    fn begin(&self, what: &str, units: Option<u64>);
    fn advance(&self, units: u64);
}

/// By name and version.
type Definitions = BTreeMap<(String, u32), Arc<Definition>>;

/// Checks everything once.
///
/// # Errors
///
/// When the check cannot be carried out: the database or a participant does not answer, or the schema is another one.
pub async fn verify(audit: &dyn Audit, options: &Options<'_>, progress: &dyn Progress) -> anyhow::Result<Report> {
    audit.check_schema().await?;
    let bounds = audit.shards().await?;
    let shards = u16::try_from(bounds.len()).context("the database has too many shards")?;
    let mut check = Check {
        audit,
        options,
        progress,
        shards,
        report: Report::default(),
        findings: Findings::new(options.told_max),
        definitions: Definitions::new(),
    };
    let ledgers = match options.participants {
        Some(participants) => Some(ledgers::read(participants, progress).await?),
        None => None,
    };
    for bounds in &bounds {
        check.log(bounds).await?;
    }
    check.sagas(&bounds, ledgers).await?;
    check.start_keys().await?;
    Ok(check.report.with(check.findings))
}

struct Check<'a> {
    audit: &'a dyn Audit,
    options: &'a Options<'a>,
    progress: &'a dyn Progress,
    shards: u16,
    report: Report,
    findings: Findings,
    definitions: Definitions,
}

impl Check<'_> {
    /// The log of one shard up to its head.
    async fn log(&mut self, bounds: &LogBounds) -> anyhow::Result<()> {
        let units = u64::try_from(bounds.head).unwrap_or(0);
        self.progress.begin(&format!("log of shard {}", bounds.shard), Some(units));
        let mut log = log::LogCheck::new(*bounds, self.shards);
        let mut after: Option<Place> = None;
        loop {
            let stretch = self.audit.places(bounds.shard, after, bounds.head, PLACES_PER_PAGE).await?;
            log.next(&stretch, &mut self.findings);
            self.progress.advance(stretch.places.len() as u64);
            let Some(last) = stretch.places.last() else { break };
            after = Some(*last);
        }
        self.report.shards.push(log.end(&mut self.findings));
        Ok(())
    }

    /// Every saga's row, its events, and its effects if there are ledgers.
    async fn sagas(&mut self, bounds: &[LogBounds], mut ledgers: Option<Ledgers>) -> anyhow::Result<()> {
        self.progress.begin("sagas", Some(self.report.events()));
        self.definitions = definitions(self.audit).await?;
        let mut from = SagaId::from_uuid(Uuid::nil());
        let mut told_through = String::new();
        loop {
            let (mut page, next) = self.page(from, bounds).await?;
            self.findings.take(&mut page.findings);
            self.report.sagas += page.sagas;
            self.progress.advance(page.events);
            let through = next.and(page.last).map(|last| last.to_string());
            if let Some(ledgers) = &mut ledgers {
                // Read after the page: what is not in that was removed before, if it ever was.
                let removed = self.audit.removed().await?;
                let mut reconciler =
                    Reconciler::new(&page.known, &removed, &ledgers.asked, self.options.clock_skew, &mut self.findings);
                ledgers.scratch.visit(&told_through, through.as_deref(), |effect| reconciler.next(effect)).await?;
                self.report.sagas_reconciled += reconciler.end();
            }
            let (Some(next), Some(through)) = (next, through) else { break };
            (from, told_through) = (next, through);
        }
        self.report.ledgers = ledgers.map(|ledgers| ledgers.summary);
        Ok(())
    }

    /// One page. A saga may have started with a definition that was registered after the definitions were read: then
    /// they are read again, and so is the page.
    async fn page(&mut self, from: SagaId, bounds: &[LogBounds]) -> anyhow::Result<(SagaPage, Option<SagaId>)> {
        let mut read_again = false;
        loop {
            let mut check = SagaCheck::new(&self.definitions, bounds, self.options.told_max);
            let next = self.audit.sagas(from, SAGAS_PER_PAGE, &mut |found| check.next(found)).await?;
            let page = check.end();
            if read_again || !page.lacks_definition {
                return Ok((page, next));
            }
            self.definitions = definitions(self.audit).await?;
            read_again = true;
        }
    }

    async fn start_keys(&mut self) -> anyhow::Result<()> {
        self.progress.begin("start keys", None);
        let mut after = (String::new(), String::new());
        loop {
            let page = self.audit.start_keys((&after.0, &after.1), KEYS_PER_PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = (last.definition.clone(), last.key.clone());
            for key in &page {
                keys::check(key, &mut self.findings);
            }
            self.report.start_keys += page.len() as u64;
            self.progress.advance(page.len() as u64);
        }
    }
}

async fn definitions(audit: &dyn Audit) -> anyhow::Result<Definitions> {
    let mut definitions = Definitions::new();
    for stored in audit.definitions().await? {
        let definition = Definition::parse(&stored.document, None)
            .map_err(|problems| anyhow::anyhow!("{} version {}: {:?}", stored.name, stored.version, problems.0))
            .context("a registered definition cannot be read")?;
        definitions.insert((stored.name, stored.version), Arc::new(definition));
    }
    Ok(definitions)
}
