//! The report for a terminal.

use std::fmt::Write as _;

use super::{Range, Report, Row};

/// Lines of text that end with a line break.
pub fn table(report: &Report) -> String {
    let settings = &report.settings;
    let mut text = format!(
        "\nskald {}, {} processors, {} rounds of {} s each\n",
        report.skald_version, report.processors, settings.rounds, settings.seconds
    );
    for of_kind in report.rows.chunk_by(|a, b| a.declined_percent == b.declined_percent) {
        let Some(first) = of_kind.first() else { continue };
        let _ = writeln!(text, "\n{} % declined\n{}", first.declined_percent, HEADS.join("\n"));
        for of_clients in of_kind.chunk_by(|a, b| a.clients == b.clients) {
            of_clients.iter().for_each(|row| text += &line(row));
        }
    }
    text
}

const HEADS: [&str; 2] = [
    "clients                        checkouts/s         ratio to direct       latency in ms           \
     CPU in us per checkout                       per checkout                                  MiB",
    "                           median     min-max     median   min-max    p50    p95    p99    max  \
     load  parts front skald    db   all  commits  trans  switches  log KiB  disk KiB  flushes  RSS",
];

fn line(row: &Row) -> String {
    let per = &row.per_checkout;
    let latency = row.latency.map_or([0.0; 4], |spread| spread.quantiles());
    let or_dash =
        |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |it| format!("{it:.digits$}"));
    let cpu = [
        Some(per.cpu_generator_us),
        Some(per.cpu_participants_us),
        per.cpu_front_us,
        per.cpu_skald_us,
        per.cpu_database_us,
    ];
    let all: f64 = cpu.iter().flatten().sum();
    let mut line = format!("{:>4} {:<18}", row.clients, row.subject.name());
    let Range { median, min, max } = row.checkouts_per_s;
    let _ = write!(line, " {median:>9.0} {:>12}", format!("{min:.0}-{max:.0}"));
    match row.ratio_to_direct {
        Some(Range { median, min, max }) => {
            let _ = write!(line, " {median:>9.3} {:>11}", format!("{min:.2}-{max:.2}"));
        }
        None => line += &" ".repeat(22),
    }
    for quantile in latency {
        let _ = write!(line, " {quantile:>6.2}");
    }
    for cpu in cpu {
        let _ = write!(line, " {:>5}", or_dash(cpu, 0));
    }
    let kib = |bytes: Option<f64>| bytes.map(|bytes| bytes / 1024.0);
    let _ = write!(line, " {all:>5.0} {:>8} {:>6}", or_dash(per.commits, 3), or_dash(per.transitions, 2));
    let _ = write!(line, " {:>9} {:>8}", or_dash(per.context_switches_skald, 2), or_dash(kib(per.log_bytes), 2));
    let _ = write!(line, " {:>9} {:>8}", or_dash(kib(per.written_bytes), 2), or_dash(per.log_flushes, 3));
    let _ = writeln!(line, " {:>4}", or_dash(row.skald_resident_mib, 0));
    line
}
