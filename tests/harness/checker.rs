//! Judges a quiet system by the invariants of the design, from what the participants and the database say; Skald itself
//! is believed nothing.
//!
//! [`super::effects`] has those about effects (1, 3, 4, 5), [`super::log`] those about the log (6, 7, 8, 9, 10); here they
//! come together, with 2. Each violation names its invariant and its saga.

use std::collections::BTreeMap;

use skald_core::ids::SagaId;

use super::{
    database::Database,
    effects::{Effects, Fate},
    log::Log,
    participants::Shop,
    skald::Skald,
};

/// Violations printed before the rest is only counted.
const SHOWN_MAX: usize = 20;

/// Everything there is to judge, as it was at one quiet moment.
#[derive(Debug)]
pub struct Checker {
    log: Log,
    effects: Option<Effects>,
    /// What the API says of each saga, if it was asked.
    shown: Option<BTreeMap<String, String>>,
    acknowledged: Vec<Start>,
}

/// A start that the client got a positive answer to.
#[derive(Clone, Debug)]
pub struct Start {
    pub key: Option<String>,
    pub saga: String,
}

impl Checker {
    pub async fn gather(skald: &Skald, shop: &Shop, database: &Database) -> Self {
        let effects = Effects::read(shop).await;
        Self { effects: Some(effects), ..Self::gather_log(skald, database).await }
    }

    /// Without participants' ledgers.
    pub async fn gather_log(skald: &Skald, database: &Database) -> Self {
        let status = |saga: &serde_json::Value| {
            let text = |field: &str| saga[field].as_str().expect("a saga has an id and a status").to_owned();
            (text("id"), text("status"))
        };
        let shown = Some(skald.sagas().await.iter().map(status).collect());
        Self { log: Log::read(database).await, effects: None, shown, acknowledged: Vec::new() }
    }

    /// From what the database and the participants say, without Skald.
    pub fn of(log: Log, effects: Effects) -> Self {
        Self { log, effects: Some(effects), shown: None, acknowledged: Vec::new() }
    }

    /// All that the log and the ledgers hold of a saga.
    pub fn story(&self, saga: &SagaId) -> String {
        let effects = self.effects.iter().flat_map(|effects| effects.of_saga(&saga.to_string()));
        let lines: Vec<String> = self.log.of_saga(saga).into_iter().chain(effects).collect();
        format!("---- saga {saga}:\n  {}", lines.join("\n  "))
    }

    /// Has it checked that these starts exist.
    pub fn acknowledged(mut self, starts: impl IntoIterator<Item = Start>) -> Self {
        self.acknowledged.extend(starts);
        self
    }

    /// Sagas per status.
    pub fn ends(&self) -> BTreeMap<String, usize> {
        let mut ends = BTreeMap::new();
        for fate in self.log.fates().into_values() {
            *ends.entry(fate.status).or_default() += 1;
        }
        ends
    }

    pub fn violations(&self) -> Vec<String> {
        let fates = self.log.fates();
        let mut violations = self.log.violations();
        violations.extend(unsettled(&fates));
        violations.extend(self.log.violations_of_starts(&self.acknowledged));
        violations.extend(self.effects.iter().flat_map(|effects| effects.violations(&fates)));
        let in_log: BTreeMap<_, _> = fates.iter().map(|(saga, fate)| (saga.clone(), fate.status.clone())).collect();
        if let Some(shown) = &self.shown
            && in_log != *shown
        {
            violations.push(format!("8: the API lists {} sagas, the log {}", shown.len(), in_log.len()));
            let differ = in_log.iter().filter(|(saga, status)| shown.get(*saga) != Some(status));
            violations
                .extend(differ.map(|(saga, status)| format!("8: saga {saga} is {status}, the API says otherwise")));
        }
        violations
    }

    /// # Panics
    ///
    /// When an invariant is violated.
    #[track_caller]
    pub fn check(&self) {
        let violations = self.violations();
        let shown = violations.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join("\n  ");
        assert!(violations.is_empty(), "{} violations:\n  {shown}", violations.len());
    }
}

fn unsettled(fates: &BTreeMap<String, Fate>) -> impl Iterator<Item = String> {
    let settled = ["completed", "compensated", "abandoned", "parked"];
    let unsettled = fates.iter().filter(move |(_, fate)| !settled.contains(&fate.status.as_str()));
    unsettled.map(|(saga, fate)| format!("2: saga {saga} is still {}", fate.status))
}
