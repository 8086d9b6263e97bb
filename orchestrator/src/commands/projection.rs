//! `skald projection rebuild|verify`: has the views service replay a projection from the beginning of the log.
//!
//! The work is done there and told as lines of JSON; here is only the bar.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    cli::{ProjectionAction, ProjectionArgs, ProjectionName},
    http_client,
};

const DIFFERENT: u8 = 1;
const NOT_CARRIED_OUT: u8 = 2;
/// The service tells of its progress much more often.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// A line of progress; what a later service may tell beside these is left out.
#[derive(Debug, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
enum Line {
    Replaying {
        done: u64,
        total: u64,
    },
    Comparing {
        done: u64,
        total: u64,
    },
    Rebuilt {
        events: u64,
        rows: u64,
        took_ms: u64,
    },
    Verified {
        events: u64,
        rows: u64,
        took_ms: u64,
        difference_count: u64,
        differences: Vec<Difference>,
    },
    Failed {
        error: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct Difference {
    key: String,
    item: String,
    live: Value,
    replayed: Value,
}

pub fn run(args: &ProjectionArgs) -> ExitCode {
    let (what, target) = match &args.action {
        ProjectionAction::Rebuild(target) => ("rebuild", target),
        ProjectionAction::Verify(target) => ("verify", target),
    };
    match carry_out(what, target) {
        Ok(ended) => {
            print!("{}", ended.text);
            if ended.different { ExitCode::from(DIFFERENT) } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            eprintln!("skald: could not {what} {}: {error:#}", target.name);
            ExitCode::from(NOT_CARRIED_OUT)
        }
    }
}

fn carry_out(what: &str, target: &ProjectionName) -> anyhow::Result<Ended> {
    let bar = super::bar_on_terminal();
    let ended = super::runtime()?.block_on(follow(what, target, &bar));
    bar.finish_and_clear();
    ended
}

/// Asks for it and follows it to its end.
async fn follow(what: &str, target: &ProjectionName, bar: &ProgressBar) -> anyhow::Result<Ended> {
    let base = target.views_url.trim_end_matches('/');
    let mut url = reqwest::Url::parse(base).with_context(|| format!("--views-url {base} is no URL"))?;
    let Ok(mut path) = url.path_segments_mut() else { bail!("--views-url {base} is no URL of a service") };
    path.pop_if_empty().extend(["projections", &target.name, what]);
    drop(path);
    let client = http_client::builder().no_proxy().read_timeout(SILENCE_MAX).build()?;
    let mut answer = client.post(url).send().await.with_context(|| format!("{base} does not answer"))?;
    if !answer.status().is_success() {
        let status = answer.status();
        let problem: Value = answer.json().await.unwrap_or_default();
        bail!("{}", problem["detail"].as_str().map_or_else(|| format!("it answers {status}"), str::to_owned));
    }
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await.context("the connection broke; the work may still go on there")? {
        text.extend_from_slice(&chunk);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            if let Some(ended) = told(&target.name, serde_json::from_slice(&line)?, bar)? {
                return Ok(ended);
            }
        }
    }
    bail!("the service ended in the middle of it")
}

/// How it ended, for the user.
#[derive(Debug, PartialEq)]
struct Ended {
    text: String,
    different: bool,
}

fn told(name: &str, line: Line, bar: &ProgressBar) -> anyhow::Result<Option<Ended>> {
    match line {
        Line::Replaying { done, total } => show(bar, "replaying the log", done, total),
        Line::Comparing { done, total } => show(bar, "comparing rows", done, total),
        Line::Rebuilt { events, rows, took_ms } => {
            let text = format!("{name} is rebuilt: {rows} rows of {events} events, in {took_ms} ms\n");
            return Ok(Some(Ended { text, different: false }));
        }
        Line::Verified { events, rows, took_ms, difference_count: 0, .. } => {
            let text = format!("{name} is what a replay gives: {rows} rows of {events} events, in {took_ms} ms\n");
            return Ok(Some(Ended { text, different: false }));
        }
        Line::Verified { events, rows, difference_count, differences, .. } => {
            let text = format!(
                "{name} is not what a replay gives: {difference_count} differences in {rows} rows of {events} events\n{}",
                differences.iter().map(Difference::shown).collect::<String>()
            );
            return Ok(Some(Ended { text, different: true }));
        }
        Line::Failed { error } => bail!(error),
        Line::Other => {}
    }
    Ok(None)
}

fn show(bar: &ProgressBar, what: &'static str, done: u64, total: u64) {
    if bar.message() != what {
        let template = "{msg:24} [{bar:40}] {pos}/{len} ({eta})";
        bar.reset();
        bar.set_style(ProgressStyle::with_template(template).expect("the template is well formed"));
        bar.set_message(what);
    }
    bar.set_length(total);
    bar.set_position(done);
}

impl Difference {
    fn shown(&self) -> String {
        let Self { key, item, live, replayed } = self;
        let item = if item.is_empty() { String::new() } else { format!(" / {item}") };
        let value = |value: &Value| if value.is_null() { "nothing".to_owned() } else { value.to_string() };
        format!("  {key}{item}\n    is:        {}\n    should be: {}\n", value(live), value(replayed))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// Answers one request with these lines.
    fn service(answer: &'static str) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..read]);
            assert!(request.starts_with("POST /projections/a%20b/verify HTTP/1.1\r\n"), "{request}");
            stream.write_all(answer.as_bytes()).unwrap();
        });
        url
    }

    fn verify(answer: &'static str) -> anyhow::Result<Ended> {
        carry_out("verify", &ProjectionName { name: "a b".to_owned(), views_url: service(answer) })
    }

    #[test]
    fn what_the_service_tells_is_followed_to_its_end() {
        let ended = verify(concat!(
            "HTTP/1.1 200 OK\r\n\r\n",
            "{\"phase\":\"replaying\",\"done\":1,\"total\":2,\"events\":1}\n",
            "{\"phase\":\"yawning\",\"x\":1}\n",
            "{\"phase\":\"verified\",\"events\":9,\"rows\":3,\"took_ms\":7,\"difference_count\":0,\"differences\":[]}\n",
        ));
        let ended = ended.unwrap();
        assert_eq!(ended.text, "a b is what a replay gives: 3 rows of 9 events, in 7 ms\n");
        assert!(!ended.different);
        let ended = verify(concat!(
            "HTTP/1.1 200 OK\r\n\r\n",
            "{\"phase\":\"verified\",\"events\":9,\"rows\":3,\"took_ms\":7,\"difference_count\":1,\"differences\":",
            "[{\"key\":\"c-1\",\"item\":\"\",\"live\":{\"orders\":2},\"replayed\":null}]}\n",
        ));
        let ended = ended.unwrap();
        assert!(ended.different);
        assert!(
            ended.text.ends_with("  c-1\n    is:        {\"orders\":2}\n    should be: nothing\n"),
            "{}",
            ended.text
        );
    }

    #[test]
    fn what_did_not_come_to_its_end_is_an_error() {
        for (answer, words) in [
            ("HTTP/1.1 200 OK\r\n\r\n{\"phase\":\"failed\",\"error\":\"no log\"}\n", "no log"),
            ("HTTP/1.1 200 OK\r\n\r\n{\"phase\":\"comparing\",\"done\":1,\"total\":2}\n", "in the middle"),
            ("HTTP/1.1 409 Conflict\r\ncontent-length: 17\r\n\r\n{\"detail\":\"busy\"}", "busy"),
            ("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", "500"),
        ] {
            let error = format!("{:#}", verify(answer).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
    }
}
