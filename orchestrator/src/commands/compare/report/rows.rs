//! The figures as rows of text, for the terminal's table and for the page's.

use skald_figures::{QUANTILES, Spread};

use super::{ModeReport, Report};

pub struct Section {
    pub title: &'static str,
    pub rows: Vec<Row>,
}

pub struct Row {
    pub label: &'static str,
    /// One per mode.
    pub cells: Vec<String>,
    /// The second mode against the first, when there are two and it means something.
    pub change: String,
}

/// How a number is written.
#[derive(Clone, Copy)]
enum Unit {
    Count,
    Percent,
    PerSecond,
    Ms,
    Mean,
}

type Of = fn(&ModeReport) -> Option<f64>;
type SpreadOf = fn(&ModeReport) -> Option<Spread>;

pub fn sections(report: &Report) -> Vec<Section> {
    let modes = &report.modes;
    let row = |label, unit, of: Of| row(modes, label, unit, of);
    vec![
        Section {
            title: "How sagas ended",
            rows: vec![
                row("sagas", Unit::Count, |mode| Some(mode.sagas as f64)),
                row("completed", Unit::Percent, |mode| Some(mode.success_rate)),
                row("compensated", Unit::Percent, |mode| Some(mode.compensation_rate)),
                row("neither", Unit::Count, |mode| Some(mode.others() as f64)),
                row("ended per second", Unit::PerSecond, |mode| Some(mode.throughput_per_s)),
            ],
        },
        times(modes, "Time to the end, as the client sees it", |mode| mode.to_end),
        times(modes, "Time to the end, by the server's clock", |mode| mode.to_end_by_server),
        times(modes, "Time to compensate: from the failure to the end", |mode| mode.to_compensate),
        Section {
            title: "What a saga takes, on average",
            rows: vec![
                row("events published", Unit::Mean, |mode| Some(mode.per_saga.events)),
                row("calls that participants carried out", Unit::Mean, |mode| mode.per_saga.operations),
                row("attempts in its history", Unit::Mean, |mode| Some(mode.per_saga.attempts)),
                row("HTTP requests, Skald to participants", Unit::Mean, |mode| mode.per_saga.requests_to_participants),
                row("HTTP requests, participants to Skald", Unit::Mean, |mode| {
                    mode.per_saga.requests_from_participants
                }),
            ],
        },
    ]
}

fn times(modes: &[ModeReport], title: &'static str, of: SpreadOf) -> Section {
    let spreads: Vec<Option<[f64; 4]>> = modes.iter().map(|mode| of(mode).map(|spread| spread.quantiles())).collect();
    let rows = (0..).zip(QUANTILES).map(|(place, label): (usize, _)| {
        let values: Vec<Option<f64>> = spreads.iter().map(|quantiles| quantiles.map(|all| all[place])).collect();
        written(label, Unit::Ms, &values)
    });
    Section { title, rows: rows.collect() }
}

fn row(modes: &[ModeReport], label: &'static str, unit: Unit, of: Of) -> Row {
    let values: Vec<Option<f64>> = modes.iter().map(of).collect();
    written(label, unit, &values)
}

fn written(label: &'static str, unit: Unit, values: &[Option<f64>]) -> Row {
    let cell = |value: &Option<f64>| value.map_or_else(|| "-".to_owned(), |value| unit.write(value));
    let change = match (unit, values) {
        (Unit::Count | Unit::Percent, _) => String::new(),
        (_, [Some(first), Some(second)]) if *first > 0.0 => change(second / first),
        _ => String::new(),
    };
    Row { label, cells: values.iter().map(cell).collect(), change }
}

fn change(factor: f64) -> String {
    // Per cent say nothing any more.
    if factor >= 10.0 { format!("x {factor:.0}") } else { format!("{:+.0} %", (factor - 1.0) * 100.0) }
}

impl Unit {
    fn write(self, value: f64) -> String {
        match self {
            Self::Count => format!("{value:.0}"),
            Self::Percent => format!("{:.1} %", value * 100.0),
            Self::PerSecond => format!("{value:.1}/s"),
            Self::Ms => format!("{value:.1} ms"),
            Self::Mean => format!("{value:.2}"),
        }
    }
}

/// What was run, in one sentence.
pub fn headline(report: &Report) -> String {
    let settings = &report.settings;
    let amount = match (settings.sagas, settings.duration_ms) {
        (Some(sagas), _) => format!("{sagas} sagas per mode"),
        (None, duration) => format!("{} s per mode", duration.unwrap_or(0) as f64 / 1000.0),
    };
    let faults = if settings.faults.is_empty() { "no faults" } else { &settings.faults };
    format!(
        "{} at {}: {amount} in {} rounds, {} clients, {} % declined, {faults}, seed {}",
        settings.definition, settings.url, settings.rounds, settings.clients, settings.declined_percent, settings.seed
    )
}

/// What must be said beside the figures: modes that are missing, sagas that did not end, whether the modes agree.
pub fn remarks(report: &Report) -> Vec<String> {
    let mut remarks: Vec<String> =
        report.missing.iter().map(|missing| format!("{} was not measured: {}", missing.mode, missing.reason)).collect();
    for mode in report.modes.iter().filter(|mode| mode.others() > 0) {
        let counts = [
            (mode.abandoned, "abandoned"),
            (mode.parked, "parked"),
            (mode.unfinished, "not ended in time"),
            (mode.unanswered, "never answered"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let why = mode.unanswered_reason.as_ref().map(|why| format!(" (first: {why})")).unwrap_or_default();
        remarks.push(format!("{}: {}{why}", mode.mode, counts.collect::<Vec<_>>().join(", ")));
    }
    remarks.push(agreement(report));
    for difference in &report.agreement.differences {
        let found = difference.found.iter().map(|(mode, found)| {
            let code = found.failure_code.as_deref().map(|code| format!(", {code}")).unwrap_or_default();
            format!("{mode} {} {}{code} (saga {})", found.status, found.state, found.saga)
        });
        let found = found.collect::<Vec<_>>().join("; ");
        remarks.push(format!("order {}: expected {}; found {found}", difference.order, difference.expected));
    }
    remarks
}

fn agreement(report: &Report) -> String {
    let agreement = &report.agreement;
    let verdict = match (report.modes.len(), agreement.difference_count) {
        (0 | 1, 0) => format!("all {} orders ended as they must", agreement.compared),
        (_, 0) => format!("all {} orders ended in the same final state in both modes", agreement.compared),
        (_, differ) => format!("{differ} of {} orders did NOT end as they must", agreement.compared),
    };
    let aside = [
        (agreement.decided_by_faults, "decided by a fault or a time limit"),
        (agreement.not_ended, "not ended"),
        (agreement.unpaired, "run in one mode only"),
    ];
    let aside = aside.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("; {count} {what}"));
    format!("final states (invariant 13): {verdict}{}", aside.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_in_per_cent_until_that_says_nothing() {
        for (factor, text) in [(1.0, "+0 %"), (0.0, "-100 %"), (2.551, "+155 %"), (10.0, "x 10"), (678.4, "x 678")] {
            assert_eq!(change(factor), text);
        }
    }
}
