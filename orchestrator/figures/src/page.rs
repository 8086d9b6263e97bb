//! A report as one page that needs nothing else: no network, no script, no font.

use crate::chart::escape;

const STYLE: &str = include_str!("page.css");

/// The whole page. The title is text, the body HTML.
pub fn document(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
    )
}

/// Charts side by side where there is room.
pub fn charts(figures: &[String]) -> String {
    format!("<div class=\"charts\">\n{}</div>\n", figures.concat())
}

/// One chart with its words.
pub fn figure(title: &str, caption: &str, svg: &str) -> String {
    format!("<figure>\n<figcaption><h2>{title}</h2><p>{caption}</p></figcaption>\n{svg}\n</figure>\n")
}

/// What each class of the charts stands for.
pub fn legend<'a>(series: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let entry = |(class, name)| format!("<span class=\"{class}\"><b>{}</b></span>", escape(name));
    format!("<p class=\"legend\">{}</p>\n", series.into_iter().map(entry).collect::<String>())
}
