//! Sagas that have ended must not slow down those that have not, and must be found as fast as when they were few.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use serde_json::Value;
use skald_figures::{Spread, Times};

use super::{Findings, Scene};
use crate::{
    http::{self, Connection},
    load::{self, Load},
    progress,
    skald::Skald,
};

/// Places in time from which sagas are taken.
const PAGES: i32 = 40;
/// By name, and the parameters that ask for it.
const LISTS: [(&str, &str); 5] = [
    ("newest", ""),
    ("completed", "&status=completed"),
    ("compensated", "&status=compensated"),
    ("unfinished", "&status=running,compensating,parked"),
    ("by_definition", "&definition=bench-checkout"),
];

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// That have ended. They are really run, which takes its time
    #[arg(long, default_value_t = 1_000_000)]
    sagas: u64,
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// For how long checkouts are measured then, and at a fresh server, five times each
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Sagas that are read; each list a tenth as often
    #[arg(long, default_value_t = 4_000)]
    reads: usize,
}

impl Options {
    pub const fn little() -> Self {
        Self { sagas: 50, clients: 4, seconds: 0.1, reads: 40 }
    }
}

pub async fn run(options: &Options, scene: &mut Scene<'_>, findings: &mut Findings) -> Result<()> {
    let skald = scene.world.skald(scene.database);
    load::repeat(&skald.checkouts()?, 1, 1, || ()).await?;
    let first = newest(skald, "").await?.created_at;
    let bar = progress::bar("ended sagas", options.sagas);
    let of_bar = bar.clone();
    load::repeat(&skald.checkouts()?, options.clients, options.sagas, move || of_bar.inc(1)).await?;
    bar.finish_and_clear();
    let last = newest(skald, "").await?.created_at;
    findings.note("ended_sagas", options.sagas as f64);
    let load =
        Load { declined_percent: 10, ..Load::completing(options.clients, Duration::from_secs_f64(options.seconds)) };
    scene.measure_beside_fresh("beside_ended", load, findings).await?;

    let skald = scene.world.skald(scene.database);
    let mut paths = Vec::new();
    for page in 1..=PAGES {
        let moment = (first + (last - first) * page / PAGES).to_rfc3339_opts(SecondsFormat::Micros, true);
        paths.push(format!("/sagas/{}", newest(skald, &format!("&created_before={moment}")).await?.id));
    }
    let connection = &mut Connection::open(skald.address()?).await?;
    findings.note_spread("get_saga", time(connection, skald, &paths, options.reads).await?);
    for (name, parameters) in LISTS {
        let path = format!("/sagas?limit=50{parameters}");
        findings.note_spread(&format!("list_{name}"), time(connection, skald, &[path], options.reads / 10).await?);
    }
    let middle = (first + (last - first) / 2).to_rfc3339_opts(SecondsFormat::Micros, true);
    let path = format!("/sagas?limit=50&created_before={middle}");
    findings.note_spread("list_before_the_middle", time(connection, skald, &[path], options.reads / 10).await?);
    Ok(())
}

struct Listed {
    id: String,
    created_at: DateTime<Utc>,
}

/// The newest saga that the parameters leave.
async fn newest(skald: &Skald, parameters: &str) -> Result<Listed> {
    let page: Value = skald.get(&format!("/sagas?limit=1{parameters}")).await?;
    let text = |name: &str| page["items"][0][name].as_str().context("a list without a saga");
    Ok(Listed { id: text("id")?.to_owned(), created_at: text("created_at")?.parse()? })
}

/// One after another, on one connection.
async fn time(connection: &mut Connection, skald: &Skald, paths: &[String], reads: usize) -> Result<Option<Spread>> {
    let address = skald.address()?;
    let requests: Vec<Vec<u8>> = paths.iter().map(|path| http::get(address, path)).collect();
    let mut times = Times::default();
    for request in requests.iter().cycle().take(reads) {
        let begun = Instant::now();
        let status = connection.exchange(request).await?.status;
        times.record(begun.elapsed());
        ensure!(status == 200, "{} was answered {status}", String::from_utf8_lossy(request));
    }
    Ok(times.spread())
}
