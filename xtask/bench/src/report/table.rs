//! The report for a terminal.

use std::fmt::Write as _;

use super::{
    Report,
    columns::{self, COLUMNS},
};

/// Lines of text that end with a line break.
pub fn table(report: &Report) -> String {
    let mut text = format!("\n{}\n", report.headline());
    for (declined_percent, rows) in report.by_declined() {
        let _ = write!(text, "\n{declined_percent} % declined\n{}", heads());
        for row in rows {
            text += &line(COLUMNS.iter().map(|column| ((column.of)(row), column.width)));
        }
    }
    text
}

fn heads() -> String {
    let groups = columns::groups().map(|(group, columns)| {
        let width = columns.iter().map(|column| column.width).sum::<usize>() + columns.len() - 1;
        // A name that is too long for its columns would shift those after it.
        (group.chars().take(width).collect(), width)
    });
    line(groups) + &line(COLUMNS.iter().map(|column| (column.name.to_owned(), column.width)))
}

fn line(cells: impl Iterator<Item = (String, usize)>) -> String {
    let cells: Vec<String> = cells.map(|(cell, width)| format!("{cell:>width$}")).collect();
    format!("{}\n", cells.join(" ").trim_end())
}
