//! The report for a terminal.

use std::fmt::Write as _;

use super::{
    Report,
    rows::{self, Row},
};

const LABEL_WIDTH: usize = 38;
const CELL_WIDTH: usize = 15;
const CHANGE_WIDTH: usize = 10;

/// Lines of text that end with a line break.
pub fn table(report: &Report) -> String {
    let mut text = format!("{}\n\n", rows::headline(report));
    if !report.modes.is_empty() {
        let modes: Vec<String> = report.modes.iter().map(|mode| mode.mode.to_owned()).collect();
        let change = if modes.len() == 2 { "change" } else { "" };
        text += &line("", &modes, change);
        for section in rows::sections(report) {
            let _ = writeln!(text, "{}", section.title);
            for Row { label, cells, change } in &section.rows {
                text += &line(&format!("  {label}"), cells, change);
            }
        }
        text.push('\n');
    }
    for remark in rows::remarks(report) {
        let _ = writeln!(text, "{remark}");
    }
    text
}

fn line(label: &str, cells: &[String], change: &str) -> String {
    let mut line = format!("{label:<LABEL_WIDTH$}");
    for cell in cells {
        let _ = write!(line, " {cell:>CELL_WIDTH$}");
    }
    let _ = write!(line, "{change:>CHANGE_WIDTH$}");
    format!("{}\n", line.trim_end())
}
