//! What else a server goes through than a steady load: each scenario a question of its own, on each database.

mod arrivals;
mod dag;
mod ended;
mod findings;
mod idle;
mod overload;
mod payload;
mod recovery;
mod stress;
mod waiting;

use std::mem;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::{Value, json};

pub use self::findings::Findings;
use crate::{
    checkouts::{self, Subject},
    load::{self, Asked, Load},
    order::Ending,
    progress,
    report::{Range, Row},
    skald::{ASYNCHRONOUS, Database},
    world::{Ground, World},
};

/// How often each of two that are compared is measured.
const TURNS: u32 = 5;

#[derive(Clone, Debug, Subcommand)]
pub enum Scenario {
    /// More checkouts arrive than can be carried out
    Overload(overload::Options),
    /// More and more checkouts arrive, to beyond what can be carried out
    Stress(stress::Options),
    /// Nothing happens
    Idle(idle::Options),
    /// Many sagas wait for their participants
    Waiting(waiting::Options),
    /// Many sagas have ended
    Ended(ended::Options),
    /// Skald is killed while a participant is down and sagas have piled up
    Recovery(recovery::Options),
    /// Large inputs
    Payload(payload::Options),
    /// Sagas of many steps
    Dag(dag::Options),
}

/// Where a scenario takes place.
pub struct Scene<'a> {
    pub world: &'a mut World,
    pub database: Database,
}

impl Scene<'_> {
    /// Checkouts, and what they take.
    async fn measure(&mut self, load: Load) -> Result<Row> {
        let asked = self.world.skald(self.database).checkouts()?;
        self.measure_asked(&asked, load).await
    }

    /// Checkouts here and at a fresh server in turns, so that what happens to the machine meanwhile happens to both.
    async fn measure_beside_fresh(&mut self, what: &str, load: Load, findings: &mut Findings) -> Result<()> {
        let load = Load { warm_up: load.lasts / 3, ..load };
        let mut other = self.world.fresh(self.database).await?;
        let mut turns = [Vec::new(), Vec::new()];
        for round in 1..=TURNS {
            for legs in &mut turns {
                // First the fresh one, then the own again.
                mem::swap(self.world.skald(self.database), &mut other);
                let asked = self.world.skald(self.database).checkouts()?;
                let subject = Subject::Skald(self.database);
                legs.push(checkouts::measure(self.world, subject, &asked, round, load).await?);
            }
        }
        other.stop().await?;
        let [fresh, own] = &turns;
        findings.note_row("fresh", &Row::of(&fresh[0], fresh));
        findings.note_row(what, &Row::of(&own[0], own));
        let ratios = own.iter().zip(fresh).map(|(own, fresh)| own.seen.per_s() / fresh.seen.per_s());
        let ratio = Range::of(ratios).context("there are turns")?;
        findings.note("ratio_to_fresh", ratio.median);
        findings.note("ratio_to_fresh_min", ratio.min);
        findings.note("ratio_to_fresh_max", ratio.max);
        Ok(())
    }

    async fn measure_asked(&mut self, asked: &Asked, load: Load) -> Result<Row> {
        let subject = Subject::Skald(self.database);
        Ok(Row::of_one(&checkouts::measure(self.world, subject, asked, 1, load).await?))
    }

    /// Starts sagas of a definition, which stay unfinished.
    async fn pile_up(&mut self, definition: &Value, clients: usize, sagas: u64) -> Result<()> {
        let skald = self.world.skald(self.database);
        skald.register(definition).await?;
        let name = definition["name"].as_str().context("it has no name")?;
        let asked = skald.asked_for(&skald.starts(name, ASYNCHRONOUS, &json!({}), Ending::RUNNING)?)?;
        let bar = progress::bar("unfinished sagas", sagas);
        let of_bar = bar.clone();
        load::repeat(&asked, clients, sagas, move || of_bar.inc(1)).await?;
        bar.finish_and_clear();
        Ok(())
    }
}

impl Scenario {
    const fn name(&self) -> &'static str {
        match self {
            Self::Overload(_) => "overload",
            Self::Stress(_) => "stress",
            Self::Idle(_) => "idle",
            Self::Waiting(_) => "waiting",
            Self::Ended(_) => "ended",
            Self::Recovery(_) => "recovery",
            Self::Payload(_) => "payload",
            Self::Dag(_) => "dag",
        }
    }

    /// What it needs in Skald's configuration.
    fn config(&self) -> String {
        match self {
            Self::Recovery(options) => options.config(),
            Self::Overload(_)
            | Self::Stress(_)
            | Self::Idle(_)
            | Self::Waiting(_)
            | Self::Ended(_)
            | Self::Payload(_)
            | Self::Dag(_) => String::new(),
        }
    }

    async fn on(&self, mut scene: Scene<'_>, findings: &mut Findings) -> Result<()> {
        match self {
            Self::Overload(options) => overload::run(options, &mut scene, findings).await,
            Self::Stress(options) => stress::run(options, &mut scene, findings).await,
            Self::Idle(options) => idle::run(options, &mut scene, findings).await,
            Self::Waiting(options) => waiting::run(options, &mut scene, findings).await,
            Self::Ended(options) => ended::run(options, &mut scene, findings).await,
            Self::Recovery(options) => recovery::run(options, &mut scene, findings).await,
            Self::Payload(options) => payload::run(options, &mut scene, findings).await,
            Self::Dag(options) => dag::run(options, &mut scene, findings).await,
        }
    }

    /// All of them, as small as they can be.
    fn little() -> [Self; 8] {
        [
            Self::Overload(overload::Options::little()),
            Self::Stress(stress::Options::little()),
            Self::Idle(idle::Options::little()),
            Self::Waiting(waiting::Options::little()),
            Self::Ended(ended::Options::little()),
            Self::Recovery(recovery::Options::little()),
            Self::Payload(payload::Options::little()),
            Self::Dag(dag::Options::little()),
        ]
    }
}

/// Plays it on each database, alone in a fresh world, and reports.
///
/// # Errors
///
/// Something cannot be started, an answer is wrong, or a report cannot be written.
pub async fn run(scenario: &Scenario, ground: &Ground) -> Result<()> {
    let mut findings = Findings::default();
    for &database in &ground.databases {
        let mut world = World::start(&ground.with_only(database), &scenario.config()).await?;
        let scene = Scene { world: &mut world, database };
        findings.begin(scenario.name(), database);
        scenario.on(scene, &mut findings).await.with_context(|| format!("{} on {database:?}", scenario.name()))?;
    }
    print!("{}", findings.table());
    findings.write(ground.json.as_deref())
}

/// Plays them all in this world, to see whether they work.
///
/// # Errors
///
/// Those of [`run`].
pub async fn smoke(world: &mut World, databases: &[Database]) -> Result<()> {
    let mut findings = Findings::default();
    for scenario in Scenario::little() {
        for &database in databases {
            findings.begin(scenario.name(), database);
            let scene = Scene { world, database };
            scenario.on(scene, &mut findings).await.with_context(|| format!("{} on {database:?}", scenario.name()))?;
        }
    }
    print!("{}", findings.table());
    findings.are_whole()
}
