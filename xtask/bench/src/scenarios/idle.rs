//! What Skald takes when nobody wants anything: fresh, and after a load.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::{Findings, Scene};
use crate::load::{self, Load};

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// For how long nothing happens
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Before that, for how long it settles
    #[arg(long, default_value_t = 5.0)]
    settle: f64,
}

impl Options {
    pub const fn little() -> Self {
        Self { seconds: 0.5, settle: 0.1 }
    }
}

pub async fn run(options: &Options, scene: &mut Scene<'_>, findings: &mut Findings) -> Result<()> {
    watch(options, scene, findings, "fresh").await?;
    let checkouts = scene.world.skald(scene.database).checkouts()?;
    let lasts = Duration::from_secs_f64(options.seconds / 2.0);
    load::run(&checkouts, Load::completing(64, lasts), async || Ok(())).await?;
    watch(options, scene, findings, "after_load").await
}

async fn watch(options: &Options, scene: &mut Scene<'_>, findings: &mut Findings, when: &str) -> Result<()> {
    tokio::time::sleep(Duration::from_secs_f64(options.settle)).await;
    let skald = scene.world.skald(scene.database);
    let (before, database_before) = skald.usage()?;
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    let (after, database_after) = skald.usage()?;
    let taken = after - before;
    let percent = |cpu: Duration| cpu.as_secs_f64() / options.seconds * 100.0;
    findings.note(format!("{when}_cpu_percent"), percent(taken.cpu));
    if let (Some(before), Some(after)) = (database_before, database_after) {
        findings.note(format!("{when}_database_cpu_percent"), percent((after - before).cpu));
    }
    findings.note(format!("{when}_context_switches_per_s"), taken.context_switches as f64 / options.seconds);
    findings.note(format!("{when}_resident_mib"), taken.resident_mib());
    Ok(())
}
