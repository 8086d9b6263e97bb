//! What a comparison found: the figures once, as data. Everything that is shown is made from it.

mod html;
mod rows;
mod table;

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use skald_figures::{Point, Spread, Times};

pub use self::{html::page, table::table};
use super::{
    agreement::Agreement,
    leg::{End, Run},
    server::Traffic,
};

/// Of the JSON's form. It grows when a field changes its meaning or goes; fields may be added.
const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub format: u32,
    /// Of the program that measured.
    pub skald_version: &'static str,
    pub settings: Settings,
    /// Those that were measured.
    pub modes: Vec<ModeReport>,
    /// Those that were asked for and could not be measured.
    pub missing: Vec<Missing>,
    pub agreement: Agreement,
}

/// What was run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    pub url: String,
    pub definition: String,
    pub clients: u32,
    /// Of each mode over all rounds; absent when the duration was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sagas: Option<u64>,
    /// Of each mode over all rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    pub rounds: u32,
    pub warm_up: u64,
    pub declined_percent: u8,
    pub seed: u64,
    /// As on the command line; empty when there were none.
    pub faults: String,
    /// What `PUT /faults` was told.
    pub fault_settings: Value,
    /// Begins the correlation ids of all sagas of this run.
    pub correlation_prefix: String,
}

/// A mode that was not measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Missing {
    pub mode: &'static str,
    pub reason: String,
}

/// What one mode came to. Rates are shares from 0 to 1 of all sagas.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModeReport {
    pub mode: &'static str,
    pub sagas: u64,
    pub completed: u64,
    pub compensated: u64,
    pub abandoned: u64,
    pub parked: u64,
    /// Not ended within the patience.
    pub unfinished: u64,
    /// Nobody knows whether they exist: the start was not answered.
    pub unanswered: u64,
    /// Why the first of those was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unanswered_reason: Option<String>,
    pub success_rate: f64,
    pub compensation_rate: f64,
    /// Time in which this mode was run.
    pub busy_s: f64,
    /// Ended sagas per second of that time.
    pub throughput_per_s: f64,
    /// From the request to knowing of the end, by the client's clock. Ended sagas only.
    pub to_end: Option<Spread>,
    pub to_end_curve: Vec<Point>,
    /// From creation to end, by the server's clock. Ended sagas only.
    pub to_end_by_server: Option<Spread>,
    /// From the failure to the end, by the server's clock. Compensated sagas only.
    pub to_compensate: Option<Spread>,
    pub per_saga: PerSaga,
    pub rounds: Vec<Round>,
}

/// Means over ended sagas, except where another source counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PerSaga {
    /// Events in the saga's own stream.
    pub events: f64,
    /// Attempts that the saga's steps tell of.
    pub attempts: f64,
    /// Calls that the participants say they carried out, each attempt counted. Absent when they did not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations: Option<f64>,
    /// HTTP requests by Skald to participants. Absent when there are other replicas, whose requests are not seen here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_to_participants: Option<f64>,
    /// HTTP requests by participants to Skald: appends, polls, callbacks. Absent likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_from_participants: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Round {
    pub round: u32,
    pub sagas: u64,
    pub busy_s: f64,
    pub throughput_per_s: f64,
    pub to_end: Option<Spread>,
}

/// A run of one round with what was counted elsewhere meanwhile.
#[derive(Debug)]
pub struct Measured {
    pub run: Run,
    pub operations: f64,
    /// None when the server is one of several.
    pub traffic: Option<Traffic>,
}

impl Report {
    pub fn new(settings: Settings, modes: Vec<ModeReport>, missing: Vec<Missing>, agreement: Agreement) -> Self {
        Self { format: FORMAT, skald_version: env!("CARGO_PKG_VERSION"), settings, modes, missing, agreement }
    }

    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has text for keys and no numbers that JSON lacks")
    }
}

impl ModeReport {
    /// The figures of one mode from its rounds.
    pub fn of(mode: &'static str, rounds: &[Measured]) -> Self {
        let (mut whole, mut by_server, mut undoing) = (Times::default(), Times::default(), Times::default());
        let mut report = Self::empty(mode);
        let (mut ended, mut events, mut attempts) = (0_u64, 0, 0);
        for (number, measured) in (1..).zip(rounds) {
            let mut of_round = Times::default();
            for sample in &measured.run.samples {
                report.count(&sample.end);
                let End::Ended(saga) = &sample.end else { continue };
                ended += 1;
                events += saga.events;
                attempts += saga.attempts;
                whole.record(sample.took);
                of_round.record(sample.took);
                by_server.record(saga.by_server);
                if let Some(time) = saga.undoing {
                    undoing.record(time);
                }
            }
            report.rounds.push(round(number, measured, of_round.spread()));
        }
        let busy: Duration = rounds.iter().map(|measured| measured.run.took).sum();
        report.busy_s = busy.as_secs_f64();
        report.throughput_per_s = ratio(ended as f64, report.busy_s);
        report.success_rate = ratio(report.completed as f64, report.sagas as f64);
        report.compensation_rate = ratio(report.compensated as f64, report.sagas as f64);
        report.to_end = whole.spread();
        report.to_end_curve = whole.curve();
        report.to_end_by_server = by_server.spread();
        report.to_compensate = undoing.spread();
        report.per_saga = PerSaga {
            events: ratio(events as f64, ended as f64),
            attempts: ratio(attempts as f64, ended as f64),
            ..counted_elsewhere(rounds, report.sagas)
        };
        report
    }

    const fn empty(mode: &'static str) -> Self {
        Self {
            mode,
            sagas: 0,
            completed: 0,
            compensated: 0,
            abandoned: 0,
            parked: 0,
            unfinished: 0,
            unanswered: 0,
            unanswered_reason: None,
            success_rate: 0.0,
            compensation_rate: 0.0,
            busy_s: 0.0,
            throughput_per_s: 0.0,
            to_end: None,
            to_end_curve: Vec::new(),
            to_end_by_server: None,
            to_compensate: None,
            per_saga: PerSaga {
                events: 0.0,
                attempts: 0.0,
                operations: None,
                requests_to_participants: None,
                requests_from_participants: None,
            },
            rounds: Vec::new(),
        }
    }

    fn count(&mut self, end: &End) {
        self.sagas += 1;
        match end {
            End::Ended(saga) => match &*saga.status {
                "completed" => self.completed += 1,
                "compensated" => self.compensated += 1,
                _ => self.abandoned += 1,
            },
            End::Parked => self.parked += 1,
            End::Unfinished => self.unfinished += 1,
            End::Unanswered(why) => {
                self.unanswered += 1;
                self.unanswered_reason.get_or_insert_with(|| why.clone());
            }
        }
    }

    /// Sagas that neither completed nor were compensated.
    pub const fn others(&self) -> u64 {
        self.abandoned + self.parked + self.unfinished + self.unanswered
    }
}

fn round(number: u32, measured: &Measured, to_end: Option<Spread>) -> Round {
    let busy_s = measured.run.took.as_secs_f64();
    let ended = to_end.map_or(0, |spread| spread.count);
    Round {
        round: number,
        sagas: measured.run.samples.len() as u64,
        busy_s,
        throughput_per_s: ratio(ended as f64, busy_s),
        to_end,
    }
}

/// What the participants' and the server's counters say. They count all sagas, ended or not.
fn counted_elsewhere(rounds: &[Measured], sagas: u64) -> PerSaga {
    let operations: f64 = rounds.iter().map(|measured| measured.operations).sum();
    let traffic: Option<Vec<Traffic>> = rounds.iter().map(|measured| measured.traffic).collect();
    let mean = |of: fn(&Traffic) -> f64| {
        let sum: f64 = traffic.as_ref()?.iter().map(of).sum();
        Some(ratio(sum, sagas as f64))
    };
    PerSaga {
        operations: (operations > 0.0).then(|| ratio(operations, sagas as f64)),
        requests_to_participants: mean(|traffic| traffic.to_participants),
        requests_from_participants: mean(|traffic| traffic.from_participants),
        ..PerSaga::default()
    }
}

/// 0 of nothing, to six digits: more say nothing.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole * 1e6).round() / 1e6 } else { 0.0 }
}

#[cfg(test)]
mod tests;
