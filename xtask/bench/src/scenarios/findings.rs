//! What scenarios found: numbers by name, the unit last in the name.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use skald_figures::Spread;

use crate::{report::Row, skald::Database};

/// In the order they were found.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    scenes: Vec<Found>,
}

#[derive(Debug, Serialize)]
struct Found {
    scenario: &'static str,
    database: Database,
    figures: Vec<Figure>,
}

#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    value: f64,
}

impl Findings {
    /// What is noted from now on belongs to this.
    pub fn begin(&mut self, scenario: &'static str, database: Database) {
        eprintln!("{scenario} on {database:?}");
        self.scenes.push(Found { scenario, database, figures: Vec::new() });
    }

    pub fn note(&mut self, name: impl Into<String>, value: f64) {
        let figure = Figure { name: name.into(), value };
        eprintln!("  {}", figure.line());
        self.scenes.last_mut().expect("a scene has begun").figures.push(figure);
    }

    /// Nothing if there was nothing to be timed.
    pub fn note_spread(&mut self, what: &str, spread: Option<Spread>) {
        let Some(spread) = spread else { return };
        self.note(format!("{what}_p50_ms"), spread.p50_ms);
        self.note(format!("{what}_p99_ms"), spread.p99_ms);
        self.note(format!("{what}_max_ms"), spread.max_ms);
    }

    /// What matters most of it.
    pub fn note_row(&mut self, what: &str, row: &Row) {
        let per = &row.per_checkout;
        self.note(format!("{what}_per_s"), row.checkouts_per_s.median);
        self.note_spread(what, Some(row.latency));
        let perhaps = [
            ("cpu_skald_us", per.cpu_skald_us),
            ("cpu_database_us", per.cpu_database_us),
            ("commits", per.commits),
            ("log_bytes", per.log_bytes),
            ("disk_bytes", per.written_bytes),
        ];
        for (name, value) in perhaps {
            if let Some(value) = value {
                self.note(format!("{what}_{name}"), value);
            }
        }
        if let Some(resident_mib) = row.skald_resident_mib {
            self.note(format!("{what}_resident_mib"), resident_mib);
        }
    }

    pub fn table(&self) -> String {
        let mut text = String::new();
        for Found { scenario, database, figures } in &self.scenes {
            let _ = writeln!(text, "\n{scenario}, {database:?}");
            for figure in figures {
                let _ = writeln!(text, "  {}", figure.line());
            }
        }
        text
    }

    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, file: Option<&Path>) -> Result<()> {
        let Some(file) = file else { return Ok(()) };
        let text = serde_json::to_string_pretty(self).expect("findings have text for keys");
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// # Errors
    ///
    /// When a scenario found nothing, or something that is no number.
    pub fn are_whole(&self) -> Result<()> {
        for Found { scenario, database, figures } in &self.scenes {
            ensure!(!figures.is_empty(), "{scenario} on {database:?} found nothing");
            for Figure { name, value } in figures {
                ensure!(value.is_finite(), "{scenario} on {database:?}: {name} is {value}");
            }
        }
        Ok(())
    }
}

impl Figure {
    fn line(&self) -> String {
        format!("{:<40} {:>14}", self.name, skald_figures::chart::number(self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_without_a_number_is_missed() {
        let mut findings = Findings::default();
        findings.begin("idle", Database::Sqlite);
        assert!(findings.are_whole().is_err());
        findings.note("cpu_percent", 0.25);
        findings.are_whole().unwrap();
        assert!(findings.table().contains("cpu_percent") && findings.table().contains("0.25"));
        findings.note("ratio", f64::NAN);
        assert!(findings.are_whole().is_err());
    }
}
