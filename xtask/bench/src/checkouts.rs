//! The main scenario: checkouts made directly, through a front and through Skald, in turns.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Args, value_parser};
use serde::{Serialize, Serializer};

use crate::{
    disk,
    flame::{self, Recording},
    harness::guard,
    load::{self, Asked, Load, Seen},
    report::{self, Leg, Report, Settings},
    scenarios,
    skald::Database,
    world::{Ground, Taken, World},
};

/// Between legs: what the one before left behind is not the next one's.
const PAUSE: Duration = Duration::from_millis(300);

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Numbers of clients, each of which is measured
    #[arg(long, value_delimiter = ',', default_value = "1,16,50,64,256", value_parser = value_parser!(u32).range(1..))]
    clients: Vec<u32>,
    /// Per cent of the checkouts that are declined, each of which is measured
    #[arg(long, value_delimiter = ',', default_value = "0,10", value_parser = value_parser!(u8).range(..=100))]
    declined: Vec<u8>,
    /// How often each is measured, in turns
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// For how long each is measured each time
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Before each time, for how long it runs without being measured
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Only Skald, without direct and front, and so without ratios
    #[arg(long)]
    only_skald: bool,
    /// Write a page with charts
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Then load Skald once more, on the first database with the most clients, and draw where its CPU time goes (SVG);
    /// needs `perf`
    #[arg(long, value_name = "FILE")]
    flamegraph: Option<PathBuf>,
    /// See quickly whether it works at all: little of each; the figures say nothing
    #[arg(long)]
    smoke: bool,
}

impl Options {
    /// Little of each kind, but all kinds.
    fn little(self) -> Self {
        Self { clients: vec![1, 8], declined: vec![0, 50], rounds: 1, seconds: 0.6, warm_up: 0.2, ..self }
    }

    fn loads(&self) -> impl Iterator<Item = Load> {
        let kinds =
            self.declined.iter().flat_map(|declined| self.clients.iter().map(move |clients| (*declined, *clients)));
        kinds.map(|(declined_percent, clients)| Load {
            clients: clients as usize,
            declined_percent,
            warm_up: Duration::from_secs_f64(self.warm_up),
            lasts: Duration::from_secs_f64(self.seconds),
        })
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Direct,
    Front,
    Skald(Database),
}

impl Subject {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Front => "front",
            Self::Skald(Database::Postgres) => "skald (PostgreSQL)",
            Self::Skald(Database::Sqlite) => "skald (SQLite)",
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Measures, and writes the reports that are wanted.
///
/// # Errors
///
/// Something cannot be started, an answer is wrong, or a report cannot be written.
pub async fn run(options: Options, ground: &Ground) -> Result<()> {
    let smoke = options.smoke;
    let options = if smoke { options.little() } else { options };
    let mut world = World::start(ground, "").await?;
    let plain = if options.only_skald { &[][..] } else { &[Subject::Direct, Subject::Front] };
    let subjects: Vec<Subject> =
        plain.iter().copied().chain(ground.databases.iter().copied().map(Subject::Skald)).collect();
    let disk_sync = disk::sync_time(guard::folder())?;
    let mut legs = Vec::new();
    for round in 1..=options.rounds {
        world.check_point().await?;
        for load in options.loads() {
            for &subject in &subjects {
                let asked = world.asked(subject)?;
                let leg = measure(&mut world, subject, &asked, round, load).await;
                let leg = leg.with_context(|| format!("{}, {} clients", subject.name(), load.clients))?;
                eprintln!("{}", leg.line());
                legs.push(leg);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    let settings = Settings { rounds: options.rounds, seconds: options.seconds, warm_up_seconds: options.warm_up };
    let report = Report::new(settings, disk_sync, &legs);
    print!("{}", report::table(&report));
    let (mut json, mut html) = (ground.json.clone(), options.html.clone());
    if smoke {
        report.is_whole(&subjects)?;
        json.get_or_insert_with(|| guard::folder().join("bench.json"));
        html.get_or_insert_with(|| guard::folder().join("bench.html"));
    }
    write(json.as_deref(), || report.json())?;
    write(html.as_deref(), || report::html(&report))?;
    if let (Some(file), Some(&database)) = (&options.flamegraph, ground.databases.first()) {
        let load = options.loads().max_by_key(|load| load.clients).context("there is no number of clients")?;
        let drawn = flame_graph(&mut world, database, load).await?;
        write(Some(file), || drawn)?;
    }
    if smoke {
        scenarios::smoke(&mut world, &ground.databases).await?;
    }
    world.stop().await
}

async fn flame_graph(world: &mut World, database: Database, load: Load) -> Result<String> {
    let skald = world.skald(database);
    let (asked, pid) = (skald.checkouts()?, skald.pid());
    let mut recording = None;
    load::run(&asked, load, async || {
        if recording.is_none() {
            recording = Some(Recording::start(pid, load.lasts, guard::folder())?);
        }
        Ok(())
    })
    .await?;
    let whole = recording.context("a load has a begin")?.finish()?;
    Ok(flame::svg(&whole, &format!("{}, {} clients", Subject::Skald(database).name(), load.clients)))
}

fn write(file: Option<&Path>, text: impl FnOnce() -> String) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    fs::write(file, text()).with_context(|| format!("cannot write {}", file.display()))
}

/// One leg.
///
/// # Errors
///
/// The first wrong answer.
pub async fn measure(world: &mut World, subject: Subject, asked: &Asked, round: u32, load: Load) -> Result<Leg> {
    let mut taken: Vec<Taken> = Vec::new();
    let seen: Seen = load::run(asked, load, async || {
        taken.push(world.taken(subject).await?);
        Ok(())
    })
    .await?;
    let [before, after] = taken[..] else { anyhow::bail!("a load has a begin and an end") };
    Ok(Leg::new(subject, round, load, seen, before, after))
}
