//! More and more arrivals, step by step to beyond what can be carried out: where starts begin to be refused, and how long
//! those that are accepted take by then.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::{Findings, Scene, arrivals::Door};
use crate::load::Load;

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// That show the capacity, in a closed loop
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Arrivals at each step, in per cent of the capacity
    #[arg(long, value_delimiter = ',', default_value = "25,50,75,100,150,200,300")]
    steps: Vec<u32>,
    /// For how long each step lasts; the capacity is measured as long
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

impl Options {
    pub fn little() -> Self {
        Self { clients: 4, steps: vec![50, 200], seconds: 0.5 }
    }
}

pub async fn run(options: &Options, scene: &mut Scene<'_>, findings: &mut Findings) -> Result<()> {
    let lasts = Duration::from_secs_f64(options.seconds);
    let capacity = scene.measure(Load::completing(options.clients, lasts)).await?;
    let capacity_per_s = capacity.checkouts_per_s.median;
    findings.note("capacity_per_s", capacity_per_s);
    findings.note("capacity_p99_ms", capacity.latency.p99_ms);
    let door = Door::of(scene.world.skald(scene.database).checkouts()?);
    for &step in &options.steps {
        let arrived = door.take(capacity_per_s * f64::from(step) / 100.0, lasts).await?;
        let at = format!("at_{step}_percent");
        findings.note(format!("{at}_arrived_per_s"), arrived.count as f64 / options.seconds);
        findings.note(format!("{at}_shed_percent"), arrived.shed_percent());
        findings.note_spread(&format!("{at}_accepted"), arrived.accepted.spread());
    }
    findings.note("resident_mib", scene.world.skald(scene.database).counters().await?.skald.resident_mib());
    Ok(())
}
