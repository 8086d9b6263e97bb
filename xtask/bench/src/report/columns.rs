//! The figures of a row as text, for the terminal's table and for the page's.

use super::Row;

pub struct Column {
    /// Columns of one group stand beside each other.
    pub group: &'static str,
    pub name: &'static str,
    pub width: usize,
    pub of: fn(&Row) -> String,
}

const fn column(group: &'static str, name: &'static str, width: usize, of: fn(&Row) -> String) -> Column {
    Column { group, name, width, of }
}

const RATE: &str = "checkouts/s";
const RATIO: &str = "ratio to direct";
const LATENCY: &str = "latency, ms";
const CPU: &str = "CPU per checkout, us";
const SKALD: &str = "Skald per checkout";
const POSTGRES: &str = "PostgreSQL per checkout";
const BOTH: &str = "both";

pub const COLUMNS: &[Column] = &[
    column("", "clients", 7, |row| row.clients.to_string()),
    column("", "asked", 18, |row| row.subject.name().to_owned()),
    column(RATE, "median", 7, |row| fixed(row.checkouts_per_s.median, 0)),
    column(RATE, "min-max", 11, |row| row.checkouts_per_s.ends(0)),
    column(RATIO, "median", 6, |row| row.ratio_to_direct.map_or_else(none, |it| fixed(it.median, 3))),
    column(RATIO, "min-max", 9, |row| row.ratio_to_direct.map_or_else(none, |it| it.ends(2))),
    column(LATENCY, "p50", 6, |row| fixed(row.latency.p50_ms, 2)),
    column(LATENCY, "p95", 6, |row| fixed(row.latency.p95_ms, 2)),
    column(LATENCY, "p99", 6, |row| fixed(row.latency.p99_ms, 2)),
    column(LATENCY, "max", 6, |row| fixed(row.latency.max_ms, 1)),
    column(CPU, "load", 5, |row| fixed(row.per_checkout.cpu_generator_us, 0)),
    column(CPU, "parts", 5, |row| fixed(row.per_checkout.cpu_participants_us, 0)),
    column(CPU, "front", 5, |row| perhaps(row.per_checkout.cpu_front_us, 0)),
    column(CPU, "skald", 5, |row| perhaps(row.per_checkout.cpu_skald_us, 0)),
    column(CPU, "db", 5, |row| perhaps(row.per_checkout.cpu_database_us, 0)),
    column(CPU, "all", 5, |row| fixed(row.per_checkout.cpu_us(), 0)),
    column(SKALD, "commits", 7, |row| perhaps(row.per_checkout.commits, 3)),
    column(SKALD, "transitions", 11, |row| perhaps(row.per_checkout.transitions, 2)),
    column(SKALD, "switches", 8, |row| perhaps(row.per_checkout.context_switches_skald, 2)),
    column(POSTGRES, "switches", 8, |row| perhaps(row.per_checkout.context_switches_database, 2)),
    column(POSTGRES, "log KiB", 7, |row| perhaps(kib(row.per_checkout.log_bytes), 2)),
    column(POSTGRES, "transactions", 12, |row| perhaps(row.per_checkout.transactions, 3)),
    column(POSTGRES, "flushes", 7, |row| perhaps(row.per_checkout.log_flushes, 3)),
    column(BOTH, "disk KiB", 8, |row| perhaps(kib(row.per_checkout.written_bytes), 2)),
    column("Skald", "RSS MiB", 7, |row| perhaps(row.skald_resident_mib, 0)),
];

/// The groups, each with how many columns it has.
pub fn groups() -> impl Iterator<Item = (&'static str, &'static [Column])> {
    COLUMNS.chunk_by(|a, b| a.group == b.group).map(|columns| (columns[0].group, columns))
}

pub fn fixed(value: f64, digits: usize) -> String {
    format!("{value:.digits$}")
}

fn perhaps(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(none, |value| fixed(value, digits))
}

fn none() -> String {
    "-".to_owned()
}

fn kib(bytes: Option<f64>) -> Option<f64> {
    bytes.map(|bytes| bytes / 1024.0)
}
