//! Which values are usable, beyond their type.

use reqwest::Url;
use skald_core::time::Millis;

use super::{Config, Problem};
use crate::events::stream_name::is_category;

/// Everything that is wrong.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    numbers(config, &mut problems);
    texts(config, &mut problems);
    retention(config, &mut problems);
    config.access.check(&mut problems);
    if let Some(tls) = &config.server.tls {
        tls.check(&mut problems);
    }
    webhooks(config, &mut problems);
    traces(config, &mut problems);
    for (name, participant) in &config.participants {
        let section = format!("participants.{name}");
        if !is_name(name) {
            let text =
                "is no name for a participant: use a small letter, then small letters, digits, `-` and `_`, 64 at most";
            problems.push(Problem::new(section.clone(), text));
        }
        participant.check(&section, &mut problems);
    }
    problems
}

fn numbers(config: &Config, problems: &mut Vec<Problem>) {
    let Config { server, database, engine, bus, .. } = config;
    let most = u64::from(u32::MAX);
    for (key, value, least, most) in [
        ("server.body_max", server.body_max.0 as u64, 1, 1 << 30),
        ("server.workers", server.workers.map_or(1, u64::from), 1, 1024),
        ("database.readers", database.readers.into(), 1, 1000),
        ("database.shards", database.shards.into(), 1, 1024),
        ("engine.max_running", engine.max_running.into(), 1, most),
        ("engine.commit_batch_max", engine.commit_batch_max.into(), 1, 10_000),
        ("engine.commit_queue_max", engine.commit_queue_max.into(), 1, most),
        ("engine.takeovers_max", engine.takeovers_max.into(), 2, 1_000),
        ("bus.keep", bus.keep, 1_000, most),
    ] {
        if !(least..=most).contains(&value) {
            problems.push(Problem::new(key, format!("is {value}: give {least} to {most}")));
        }
    }
    let (shortest, longest) = (Millis(1_000), Millis(300_000));
    if !(shortest..=longest).contains(&database.lease) {
        problems.push(Problem::new("database.lease", format!("is {}: give {shortest} to {longest}", database.lease)));
    }
}

fn webhooks(config: &Config, problems: &mut Vec<Problem>) {
    let (shortest, longest) = (Millis(100), Millis(30_000));
    let timeout = config.webhooks.timeout;
    if !(shortest..=longest).contains(&timeout) {
        problems.push(Problem::new("webhooks.timeout", format!("is {timeout}: give {shortest} to {longest}")));
    }
}

fn traces(config: &Config, problems: &mut Vec<Problem>) {
    let super::Traces { endpoint, sample_ratio } = &config.traces;
    let is_url = |text: &String| Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    if endpoint.as_ref().is_some_and(|endpoint| !is_url(endpoint)) {
        problems.push(Problem::new("traces.endpoint", "is not the collector's URL: write http://host:4318"));
    }
    if !(0.0..=1.0).contains(sample_ratio) {
        problems.push(Problem::new("traces.sample_ratio", format!("is {sample_ratio}: give 0.0 to 1.0")));
    }
}

fn retention(config: &Config, problems: &mut Vec<Problem>) {
    let super::Retention { age, streams, archive, interval } = &config.retention;
    let (youngest, soonest) = (Millis(30 * 24 * 3600 * 1000), Millis(1_000));
    if age.is_some_and(|age| age < youngest) {
        problems.push(Problem::new("retention.age", format!("is less than {youngest}: give at least that")));
    }
    if age.is_some() && archive.is_none() {
        let text = "is missing: nothing is removed without an archive, so name its folder";
        problems.push(Problem::new("retention.archive", text));
    }
    for category in streams.iter().filter(|category| !is_category(category)) {
        problems
            .push(Problem::new("retention.streams", format!("names {category:?}, which is no category of streams")));
    }
    if *interval < soonest {
        problems.push(Problem::new("retention.interval", format!("is {interval}: give at least {soonest}")));
    }
}

fn texts(config: &Config, problems: &mut Vec<Problem>) {
    let url = config.database.url.reveal();
    if !["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        let text = "begins neither with `sqlite:` nor with `postgres://`";
        problems.push(Problem::new("database.url", text));
    }
    if config.bus.url.as_ref().is_some_and(|url| !url.reveal().starts_with("redis://")) {
        problems.push(Problem::new("bus.url", "does not begin with `redis://`"));
    }
    if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(&config.log.level) {
        let text = format!("is no filter ({error}): write a level such as `info`, or `info,skald::dispatch=debug`");
        problems.push(Problem::new("log.level", text));
    }
    if config.server.advertised_url.as_deref().is_some_and(|url| !is_origin(url)) {
        let text = "is not the address of a server: write scheme, host and port, such as http://skald-1:8080";
        problems.push(Problem::new("server.advertised_url", text));
    }
    if let Some(Err((key, text))) = config.server.callback_secret.as_ref().map(super::SecretSource::read) {
        problems.push(Problem::new(format!("server.callback_secret.{key}"), text));
    }
}

/// Nothing but scheme, host and port. What is forwarded is sealed together with its path, so there can be no prefix.
fn is_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
}
