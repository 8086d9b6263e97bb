//! What a check found, for people and for programs.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use skald_core::ids::SagaId;

/// A value that is told may be anything that someone wrote into the database.
const VALUE_CHARS_MAX: usize = 300;

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Its number in the list of invariants.
    pub invariant: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saga: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<i64>,
    pub expected: String,
    pub found: String,
}

/// The outcome of a check.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub sagas: u64,
    pub start_keys: u64,
    pub shards: Vec<LogSummary>,
    /// Ended sagas that were held against the ledgers.
    pub sagas_reconciled: u64,
    /// None when none was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledgers: Option<Vec<LedgerSummary>>,
    /// All there are, also those that are not told.
    pub violation_count: u64,
    pub violations_by_invariant: BTreeMap<u8, u64>,
    pub violations: Vec<Violation>,
}

/// The log of one shard, as far as it was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogSummary {
    pub shard: u16,
    /// The first position that is still there; None when there is no event.
    pub first: Option<i64>,
    pub head: i64,
    pub events: u64,
    /// Positions at which retention left nothing.
    pub removed: u64,
}

/// The ledger of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LedgerSummary {
    pub participant: String,
    pub entries: u64,
    /// Why it was not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// Violations as they come up: the first ones are kept, all are counted.
#[derive(Debug)]
pub struct Findings {
    told_max: usize,
    told: Vec<Violation>,
    count: BTreeMap<u8, u64>,
}

impl Violation {
    pub fn new(invariant: u8, expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        let (expected, found) = (shortened(&expected), shortened(&found));
        Self { invariant, saga: None, shard: None, position: None, expected, found }
    }

    pub fn of(self, saga: SagaId) -> Self {
        Self { saga: Some(saga.to_string()), ..self }
    }

    pub fn of_unknown(self, saga: &str) -> Self {
        Self { saga: Some(shortened(&saga)), ..self }
    }

    pub fn at(self, shard: i32, position: i64) -> Self {
        Self { shard: Some(shard), position: Some(position), ..self }
    }
}

impl Findings {
    pub const fn new(told_max: usize) -> Self {
        Self { told_max, told: Vec::new(), count: BTreeMap::new() }
    }

    pub fn add(&mut self, violation: Violation) {
        *self.count.entry(violation.invariant).or_default() += 1;
        if self.told.len() < self.told_max {
            self.told.push(violation);
        }
    }

    /// Takes over what `other` has found.
    pub fn take(&mut self, other: &mut Self) {
        for (invariant, count) in std::mem::take(&mut other.count) {
            *self.count.entry(invariant).or_default() += count;
        }
        let room = self.told_max - self.told.len();
        self.told.extend(other.told.drain(..).take(room));
    }

    #[cfg(test)]
    pub fn told(&self) -> &[Violation] {
        &self.told
    }
}

impl Report {
    pub fn events(&self) -> u64 {
        self.shards.iter().map(|shard| shard.events).sum()
    }

    pub fn with(self, findings: Findings) -> Self {
        let violation_count = findings.count.values().sum();
        Self { violation_count, violations_by_invariant: findings.count, violations: findings.told, ..self }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}", self.invariant)?;
        if let Some(saga) = &self.saga {
            write!(f, ", saga {saga}")?;
        }
        if let Some(shard) = self.shard {
            write!(f, ", shard {shard}")?;
        }
        if let Some(position) = self.position {
            write!(f, ", position {position}")?;
        }
        write!(f, ": expected {}, found {}", self.expected, self.found)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        let untold = self.violation_count - self.violations.len() as u64;
        if untold > 0 {
            writeln!(f, "and {untold} more; --limit-violations tells more of them")?;
        }
        for shard in &self.shards {
            if shard.removed > 0 {
                writeln!(f, "shard {}: {} events were removed by retention", shard.shard, shard.removed)?;
            }
        }
        for ledger in self.ledgers.iter().flatten() {
            match &ledger.skipped {
                Some(why) => writeln!(f, "ledger of {}: skipped, {why}", ledger.participant)?,
                None => writeln!(f, "ledger of {}: {} entries", ledger.participant, ledger.entries)?,
            }
        }
        let (sagas, events, keys) = (self.sagas, self.events(), self.start_keys);
        write!(f, "checked {sagas} sagas, {events} events in {} shards, {keys} start keys", self.shards.len())?;
        if self.ledgers.is_some() {
            write!(f, ", {} ended sagas against the ledgers", self.sagas_reconciled)?;
        }
        match self.violation_count {
            0 => write!(f, ": no violation"),
            1 => write!(f, ": 1 violation"),
            count => write!(f, ": {count} violations"),
        }
    }
}

fn shortened(value: &dyn fmt::Display) -> String {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_beyond_the_limit_are_counted_and_not_kept() {
        let mut findings = Findings::new(2);
        for invariant in [7, 7, 8, 9] {
            findings.add(Violation::new(invariant, "one thing", "x".repeat(1000)));
        }
        let mut more = Findings::new(2);
        more.add(Violation::new(8, "a", "b"));
        findings.take(&mut more);
        let report = Report::default().with(findings);
        assert_eq!((report.violations.len(), report.violation_count), (2, 5));
        assert_eq!(report.violations_by_invariant, BTreeMap::from([(7, 2), (8, 2), (9, 1)]));
        assert!(report.violations[0].found.len() < 400);
        let text = report.to_string();
        assert!(text.contains("and 3 more") && text.ends_with("5 violations"), "{text}");
    }
}
