//! The main scenario: checkouts made directly, through a front and through Skald, in turns.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Args, value_parser};
use serde::{Serialize, Serializer};

use crate::{
    load::{self, Load, Seen},
    report::{Leg, Report, Settings, table},
    skald::Database,
    world::{self, Taken, World},
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
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Before each time, for how long it runs without being measured
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// On which databases Skald is measured
    #[arg(long, value_delimiter = ',', default_value = "postgres,sqlite")]
    databases: Vec<Database>,
    /// Only Skald, without direct and front, and so without ratios
    #[arg(long)]
    only_skald: bool,
    /// Another program of Skald than the one that was built
    #[arg(long, value_name = "FILE")]
    skald: Option<PathBuf>,
    /// Added to Skald's configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
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
pub async fn run(options: Options) -> Result<()> {
    let program = world::program(options.skald.as_deref())?;
    let config = match &options.config {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
        None => String::new(),
    };
    let mut world = World::start(&options.databases, &program, &config).await?;
    let plain = if options.only_skald { &[][..] } else { &[Subject::Direct, Subject::Front] };
    let subjects: Vec<Subject> =
        plain.iter().copied().chain(options.databases.iter().copied().map(Subject::Skald)).collect();
    let mut legs = Vec::new();
    for round in 1..=options.rounds {
        for &declined_percent in &options.declined {
            for &clients in &options.clients {
                for &subject in &subjects {
                    let load = Load {
                        clients: clients as usize,
                        declined_percent,
                        warm_up: Duration::from_secs_f64(options.warm_up),
                        lasts: Duration::from_secs_f64(options.seconds),
                    };
                    let leg = measure(&mut world, subject, round, load).await;
                    let leg = leg.with_context(|| format!("{}, {clients} clients", subject.name()))?;
                    eprintln!("{}", leg.line());
                    legs.push(leg);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
    let settings = Settings { rounds: options.rounds, seconds: options.seconds, warm_up_seconds: options.warm_up };
    let report = Report::new(settings, legs);
    print!("{}", table::table(&report));
    if let Some(file) = &options.json {
        std::fs::write(file, report.json()).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

async fn measure(world: &mut World, subject: Subject, round: u32, load: Load) -> Result<Leg> {
    let asked = world.asked(subject)?;
    let mut taken: Vec<Taken> = Vec::new();
    let seen: Seen = load::run(&asked, load, async || {
        taken.push(world.taken(subject).await?);
        Ok(())
    })
    .await?;
    let [before, after] = taken[..] else { anyhow::bail!("a load has a begin and an end") };
    Ok(Leg::new(subject, round, load, seen, before, after))
}
