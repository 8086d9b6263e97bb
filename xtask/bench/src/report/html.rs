//! The report as one page.

use std::fmt::Write as _;

use skald_figures::{
    chart::{Bars, Curves, escape},
    page::{self, figure},
};

use super::{
    Report, Row,
    columns::{self, COLUMNS},
};
use crate::{checkouts::Subject, skald::Database};

pub fn html(report: &Report) -> String {
    let mut body = format!("<p class=\"faint\">{}</p>\n", escape(&report.headline()));
    body += &page::legend(subjects(&report.rows).into_iter().map(|subject| (class(subject), subject.name())));
    for (declined_percent, rows) in report.by_declined() {
        let _ = write!(body, "<h2>{declined_percent} % declined</h2>\n{}{}", page::charts(&charts(rows)), table(rows));
    }
    page::document("Checkouts: directly, through a front, through Skald", &body)
}

const fn class(subject: Subject) -> &'static str {
    match subject {
        Subject::Direct => "second",
        Subject::Front => "fourth",
        Subject::Skald(Database::Postgres) => "first",
        Subject::Skald(Database::Sqlite) => "third",
    }
}

fn subjects(rows: &[Row]) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for row in rows {
        if !subjects.contains(&row.subject) {
            subjects.push(row.subject);
        }
    }
    subjects
}

fn charts(rows: &[Row]) -> Vec<String> {
    let by_clients: Vec<&[Row]> = rows.chunk_by(|a, b| a.clients == b.clients).collect();
    let mut figures = vec![
        figure(
            "Checkouts per second",
            "By number of clients; the median of the rounds. Higher is better.",
            &bars("checkouts per second, by clients", rows, &by_clients, |row| Some(row.checkouts_per_s.median)),
        ),
        figure(
            "Ratio to direct",
            "By number of clients; the median of the rounds. 1 would cost nothing.",
            &bars("ratio to direct, by clients", rows, &by_clients, |row| Some(row.ratio_to_direct?.median)),
        ),
        figure(
            "CPU per checkout",
            "By number of clients, in microseconds: of all processes together. Lower is better.",
            &bars("CPU per checkout, by clients", rows, &by_clients, |row| Some(row.per_checkout.cpu_us())),
        ),
    ];
    for of_clients in by_clients {
        let clients = of_clients[0].clients;
        figures.push(figure(
            &format!("Latency at {clients} clients"),
            "The share of checkouts that had ended by then. Further left is faster.",
            &Curves {
                title: "share of checkouts that ended, over time",
                series: of_clients.iter().map(|row| (class(row.subject), &*row.latency_curve)).collect(),
            }
            .svg(),
        ));
    }
    figures
}

fn bars(title: &str, rows: &[Row], by_clients: &[&[Row]], of: fn(&Row) -> Option<f64>) -> String {
    let subjects = subjects(rows);
    let value = |rows: &[Row], subject| rows.iter().find(|row| row.subject == subject).and_then(of);
    let groups = by_clients.iter().map(|rows| {
        let values = subjects.iter().map(|subject| value(rows, *subject)).collect();
        (rows[0].clients.to_string(), values)
    });
    let series: Vec<&str> = subjects.iter().map(|subject| class(*subject)).collect();
    Bars { title, series: &series, groups: groups.collect() }.svg()
}

fn table(rows: &[Row]) -> String {
    let groups = columns::groups()
        .map(|(group, columns)| format!("<th colspan=\"{}\">{}</th>", columns.len(), escape(group)))
        .collect::<String>();
    let names = COLUMNS.iter().map(|column| format!("<th scope=\"col\">{}</th>", column.name)).collect::<String>();
    let line = |row: &Row| {
        let cells = COLUMNS.iter().map(|column| format!("<td>{}</td>", escape(&(column.of)(row)))).collect::<String>();
        format!("<tr>{cells}</tr>\n")
    };
    let body = rows.iter().map(line).collect::<String>();
    format!(
        "<div class=\"wide\"><table>\n<thead><tr>{groups}</tr>\n<tr>{names}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n"
    )
}
