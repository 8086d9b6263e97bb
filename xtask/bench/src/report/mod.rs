//! What was measured: the figures once, as data. Everything that is shown is made from it.

mod columns;
mod html;
mod table;

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;
use skald_figures::{Point, Spread, Times};

pub use self::{html::html, table::table};
use crate::{
    checkouts::Subject,
    load::{Load, Seen},
    skald::{Counters, Database},
    world::Taken,
};

/// Of the JSON's form. It grows when a field changes its meaning or goes; fields may be added.
const FORMAT: u32 = 1;

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub format: u32,
    pub skald_version: &'static str,
    pub processors: usize,
    /// To have 8 KiB on the disk for sure, in the median.
    pub disk_sync_us: f64,
    pub settings: Settings,
    pub rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Settings {
    pub rounds: u32,
    pub seconds: f64,
    pub warm_up_seconds: f64,
}

/// One subject at one number of clients, over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub subject: Subject,
    pub clients: usize,
    pub declined_percent: u8,
    pub checkouts: u64,
    /// Of these.
    pub compensated: u64,
    pub checkouts_per_s: Range,
    /// To *direct* in the same round.
    pub ratio_to_direct: Option<Range>,
    /// Of all rounds together.
    pub latency: Spread,
    pub latency_curve: Vec<Point>,
    pub per_checkout: PerCheckout,
    pub skald_resident_mib: Option<f64>,
}

/// Over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Range {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// Means. CPU is in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PerCheckout {
    pub cpu_generator_us: f64,
    pub cpu_participants_us: f64,
    pub cpu_front_us: Option<f64>,
    pub cpu_skald_us: Option<f64>,
    /// All processes of PostgreSQL together.
    pub cpu_database_us: Option<f64>,
    /// By Skald's own count.
    pub commits: Option<f64>,
    pub transitions: Option<f64>,
    pub context_switches_skald: Option<f64>,
    pub context_switches_database: Option<f64>,
    /// Sent to the disk, by Skald and its database together.
    pub written_bytes: Option<f64>,
    /// Of PostgreSQL's log.
    pub log_bytes: Option<f64>,
    /// Transactions that wrote anything.
    pub transactions: Option<f64>,
    pub log_flushes: Option<f64>,
}

/// One subject at one number of clients, in one round.
#[derive(Debug)]
pub struct Leg {
    subject: Subject,
    round: u32,
    load: Load,
    pub seen: Seen,
    before: Taken,
    after: Taken,
}

impl Leg {
    pub const fn new(subject: Subject, round: u32, load: Load, seen: Seen, before: Taken, after: Taken) -> Self {
        Self { subject, round, load, seen, before, after }
    }

    /// To be read while it goes on.
    pub fn line(&self) -> String {
        format!(
            "round {} {:>3} clients {:>3} % declined {:<18} {:>8.0} checkouts/s",
            self.round,
            self.load.clients,
            self.load.declined_percent,
            self.subject.name(),
            self.seen.per_s()
        )
    }

    fn is_like(&self, other: &Self) -> bool {
        self.load.clients == other.load.clients && self.load.declined_percent == other.load.declined_percent
    }

    fn skald(&self) -> Option<(Counters, Counters)> {
        Some((self.before.skald?, self.after.skald?))
    }
}

impl Report {
    pub fn new(settings: Settings, disk_sync: Duration, legs: &[Leg]) -> Self {
        let first = legs.iter().filter(|leg| leg.round == 1);
        Self {
            format: FORMAT,
            skald_version: env!("CARGO_PKG_VERSION"),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            disk_sync_us: disk_sync.as_micros() as f64,
            settings,
            rows: first.map(|leg| Row::of(leg, legs)).collect(),
        }
    }

    /// What was run, in one sentence.
    fn headline(&self) -> String {
        let Self { skald_version, processors, disk_sync_us, settings, .. } = self;
        let Settings { rounds, seconds, .. } = settings;
        format!(
            "skald {skald_version}; {processors} processors; the disk syncs in {disk_sync_us:.0} us; {rounds} rounds of \
             {seconds} s each"
        )
    }

    /// The rows by what they have in common.
    fn by_declined(&self) -> impl Iterator<Item = (u8, &[Row])> {
        let together = self.rows.chunk_by(|a, b| a.declined_percent == b.declined_percent);
        together.map(|rows| (rows[0].declined_percent, rows))
    }

    /// # Errors
    ///
    /// When something that was to be measured was not.
    pub fn is_whole(&self, subjects: &[Subject]) -> Result<()> {
        ensure!(subjects.iter().all(|it| self.rows.iter().any(|row| row.subject == *it)), "not all have a row");
        for row in &self.rows {
            let what = || format!("{}, {} clients: {row:?}", row.subject.name(), row.clients);
            ensure!((row.compensated > 0) == (row.declined_percent > 0), "compensations are missing: {}", what());
            let per = &row.per_checkout;
            if let Subject::Skald(database) = row.subject {
                let counted = [per.commits, per.transitions, per.context_switches_skald, row.skald_resident_mib];
                ensure!(counted.iter().all(|it| it.is_some_and(|it| it > 0.0)), "Skald counts nothing: {}", what());
                let logged = [per.log_bytes, per.transactions].iter().all(|it| it.is_some_and(|it| it > 0.0));
                ensure!(logged == (database == Database::Postgres), "PostgreSQL counts nothing: {}", what());
            }
        }
        Ok(())
    }

    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has text for keys and no numbers that JSON lacks")
    }
}

impl Row {
    /// Of one leg alone.
    pub fn of_one(leg: &Leg) -> Self {
        Self::of(leg, std::slice::from_ref(leg))
    }

    /// The row of this leg and those like it in the other rounds.
    ///
    /// # Panics
    ///
    /// When the leg is not among all.
    pub fn of(leg: &Leg, all: &[Leg]) -> Self {
        let like: Vec<&Leg> = all.iter().filter(|it| it.is_like(leg)).collect();
        let own: Vec<&Leg> = like.iter().copied().filter(|it| it.subject == leg.subject).collect();
        let direct = |round| like.iter().find(|it| it.subject == Subject::Direct && it.round == round);
        let ratios = own.iter().filter_map(|it| Some(it.seen.per_s() / direct(it.round)?.seen.per_s()));
        let mut times = Times::default();
        own.iter().for_each(|it| times.add(&it.seen.times));
        let resident = own.iter().filter_map(|it| Some(it.skald()?.1.skald.resident_mib())).max_by(f64::total_cmp);
        Self {
            subject: leg.subject,
            clients: leg.load.clients,
            declined_percent: leg.load.declined_percent,
            checkouts: own.iter().map(|it| it.seen.checkouts).sum(),
            compensated: own.iter().map(|it| it.seen.compensated).sum(),
            checkouts_per_s: Range::of(own.iter().map(|it| it.seen.per_s())).expect("the leg itself is among them"),
            ratio_to_direct: Range::of(ratios),
            latency: times.spread().expect("a load without a checkout is an error"),
            latency_curve: times.curve(),
            per_checkout: PerCheckout::of(&own),
            skald_resident_mib: resident,
        }
    }
}

impl Range {
    fn ends(&self, digits: usize) -> String {
        format!("{}-{}", columns::fixed(self.min, digits), columns::fixed(self.max, digits))
    }

    /// None of nothing.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (upper, lower) = (values[values.len() / 2], values[(values.len() - 1) / 2]);
        Some(Self { median: f64::midpoint(upper, lower), min, max })
    }
}

impl PerCheckout {
    /// Of all processes.
    pub fn cpu_us(&self) -> f64 {
        let Self { cpu_generator_us, cpu_participants_us, cpu_front_us, cpu_skald_us, cpu_database_us, .. } = *self;
        let perhaps: f64 = [cpu_front_us, cpu_skald_us, cpu_database_us].iter().flatten().sum();
        cpu_generator_us + cpu_participants_us + perhaps
    }

    fn of(legs: &[&Leg]) -> Self {
        let checkouts: u64 = legs.iter().map(|leg| leg.seen.checkouts).sum();
        let checkouts = checkouts.max(1) as f64;
        let mean = |of: &dyn Fn(&Leg) -> Option<f64>| {
            legs.iter().map(|leg| of(leg)).sum::<Option<f64>>().map(|sum| sum / checkouts)
        };
        let counted = |of: &dyn Fn(&Counters) -> Option<f64>| {
            mean(&|leg| leg.skald().and_then(|(before, after)| Some(of(&after)? - of(&before)?)))
        };
        let us = |usage: &crate::usage::Usage| usage.cpu.as_micros() as f64;
        let passed = |of: fn(&Taken) -> f64| mean(&|leg| Some(of(&leg.after) - of(&leg.before))).unwrap_or(0.0);
        let is_front = legs.iter().all(|leg| leg.subject == Subject::Front);
        Self {
            cpu_generator_us: passed(|taken| taken.generator.cpu.as_micros() as f64),
            cpu_participants_us: passed(|taken| taken.participants.cpu.as_micros() as f64),
            cpu_front_us: is_front.then(|| passed(|taken| taken.front.cpu.as_micros() as f64)),
            cpu_skald_us: counted(&|it| Some(us(&it.skald))),
            cpu_database_us: counted(&|it| Some(us(&it.server?.usage))),
            commits: counted(&|it| Some(it.commits)),
            transitions: counted(&|it| Some(it.transitions)),
            context_switches_skald: counted(&|it| Some(it.skald.context_switches as f64)),
            context_switches_database: counted(&|it| Some(it.server?.usage.context_switches as f64)),
            written_bytes: counted(&|it| {
                let of_server = it.server.map_or(0, |server| server.usage.written_bytes);
                Some((it.skald.written_bytes + of_server) as f64)
            }),
            log_bytes: counted(&|it| Some(it.server?.log_bytes as f64)),
            transactions: counted(&|it| Some(it.server?.transactions as f64)),
            log_flushes: counted(&|it| Some(it.server?.log_flushes as f64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_the_middle_and_both_ends() {
        let range = Range::of([3.0, 1.0, 2.0].into_iter()).unwrap();
        assert_eq!(range, Range { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Range::of([1.0, 2.0].into_iter()).unwrap().median, 1.5);
        assert_eq!(Range::of(std::iter::empty()), None);
    }
}
