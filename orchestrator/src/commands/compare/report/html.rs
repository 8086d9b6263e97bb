//! The report as one page.

use std::fmt::Write as _;

use skald_figures::{
    QUANTILES, Spread,
    chart::{Bars, Curves, Part, Stack, Stacks, escape},
    page::{self, figure, legend},
};

use super::{ModeReport, PerSaga, Report, rows};

pub fn page(report: &Report) -> String {
    let modes: Vec<&str> = report.modes.iter().map(|mode| mode.mode).collect();
    let title = format!("{}, {}", report.settings.definition, modes.join(" and "));
    let body = format!(
        "<p class=\"faint\">{}</p>\n{}{}{}{}\
         <p class=\"faint\">Measured by skald {}. The client ran where `skald compare` ran; if that is the servers' machine, \
         it took part of it. Correlation ids begin with {}.</p>\n",
        escape(&rows::headline(report)),
        remarks(report),
        legend(report.modes.iter().map(|mode| (class(mode), mode.mode))),
        page::charts(&charts(report)),
        table(report),
        report.skald_version,
        escape(&report.settings.correlation_prefix),
    );
    page::document(&title, &body)
}

/// A mode has its colour, whichever others there are.
fn class(mode: &ModeReport) -> &'static str {
    if mode.mode == "orchestrated" { "first" } else { "second" }
}

fn remarks(report: &Report) -> String {
    let kind = match (report.agreement.holds(), report.missing.is_empty()) {
        (false, _) => " bad",
        (true, false) => " partial",
        (true, true) => "",
    };
    let items = rows::remarks(report).iter().map(|remark| format!("<li>{}</li>\n", escape(remark))).collect::<String>();
    format!("<ul class=\"remarks{kind}\">\n{items}</ul>\n")
}

fn charts(report: &Report) -> [String; 6] {
    let modes = &report.modes;
    [
        figure(
            "Time to the end",
            "The share of sagas that had ended by then, as the client sees it. Further left is faster.",
            &Curves {
                title: "share of sagas that ended, over time, by mode",
                series: modes.iter().map(|mode| (class(mode), &*mode.to_end_curve)).collect(),
            }
            .svg(),
        ),
        figure(
            "Time to the end: quantiles",
            "Milliseconds, as the client sees it.",
            &spreads(modes, |mode| mode.to_end),
        ),
        figure("Round by round", "Sagas that ended per second. The modes took turns.", &rounds(report)),
        figure(
            "Time to compensate",
            "Milliseconds from the failure to the end, by the server's clock.",
            &spreads(modes, |mode| mode.to_compensate),
        ),
        figure("What a saga takes", "On average.", &effort(modes)),
        figure("How sagas ended", "Shares of all that were started.", &endings(modes)),
    ]
}

fn classes(modes: &[ModeReport]) -> Vec<&'static str> {
    modes.iter().map(class).collect()
}

fn spreads(modes: &[ModeReport], of: fn(&ModeReport) -> Option<Spread>) -> String {
    let spreads: Vec<Option<[f64; 4]>> = modes.iter().map(|mode| of(mode).map(|spread| spread.quantiles())).collect();
    let group = |(place, name): (usize, &str)| {
        (name.to_owned(), spreads.iter().map(|quantiles| quantiles.map(|all| all[place])).collect())
    };
    let groups = (0..).zip(QUANTILES).map(group).collect();
    Bars { title: "quantiles in milliseconds, by mode", series: &classes(modes), groups }.svg()
}

fn rounds(report: &Report) -> String {
    let modes = &report.modes;
    let group = |round: u32| {
        let of = |mode: &ModeReport| mode.rounds.iter().find(|it| it.round == round).map(|it| it.throughput_per_s);
        (format!("round {round}"), modes.iter().map(of).collect())
    };
    let last = modes.iter().flat_map(|mode| &mode.rounds).map(|round| round.round).max().unwrap_or(0);
    let groups = (1..=last).map(group).collect();
    Bars { title: "sagas per second, by round and mode", series: &classes(modes), groups }.svg()
}

fn effort(modes: &[ModeReport]) -> String {
    let group = |name: &str, of: fn(&PerSaga) -> Option<f64>| {
        (name.to_owned(), modes.iter().map(|mode| of(&mode.per_saga)).collect())
    };
    let groups = vec![
        group("events", |per_saga| Some(per_saga.events)),
        group("calls carried out", |per_saga| per_saga.operations),
        group("requests by Skald", |per_saga| per_saga.requests_to_participants),
        group("by participants", |per_saga| per_saga.requests_from_participants),
    ];
    Bars { title: "events, calls and requests per saga, by mode", series: &classes(modes), groups }.svg()
}

fn endings(modes: &[ModeReport]) -> String {
    let stack = |mode: &'static str, shares: [f64; 3]| {
        let kinds = [("good", "completed"), ("undone", "compensated"), ("bad", "neither")];
        let parts = kinds.into_iter().zip(shares).map(|((class, name), share)| Part { class, name, share });
        Stack { name: mode, parts: parts.collect() }
    };
    let stacks = modes.iter().map(|mode| {
        let others = if mode.sagas == 0 { 0.0 } else { mode.others() as f64 / mode.sagas as f64 };
        stack(mode.mode, [mode.success_rate, mode.compensation_rate, others])
    });
    Stacks { title: "shares of completed and compensated sagas, by mode", stacks: stacks.collect() }.svg()
}

fn table(report: &Report) -> String {
    let two = report.modes.len() == 2;
    let heads = report.modes.iter().map(|mode| format!("<th scope=\"col\">{}</th>", mode.mode)).collect::<String>();
    let change = if two { "<th scope=\"col\">change</th>" } else { "" };
    let mut body = String::new();
    for section in rows::sections(report) {
        let columns = report.modes.len() + 1 + usize::from(two);
        let _ = writeln!(body, "<tr><th colspan=\"{columns}\">{}</th></tr>", escape(section.title));
        for row in section.rows {
            let cells = row.cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect::<String>();
            let change = if two { format!("<td>{}</td>", escape(&row.change)) } else { String::new() };
            let _ = writeln!(body, "<tr><th scope=\"row\">{}</th>{cells}{change}</tr>", escape(row.label));
        }
    }
    format!(
        "<div class=\"wide\"><table>\n<caption>All figures</caption>\n<thead><tr><th></th>{heads}{change}</tr></thead>\n\
         <tbody>\n{body}</tbody>\n</table></div>\n"
    )
}
