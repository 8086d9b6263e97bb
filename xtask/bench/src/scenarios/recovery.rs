//! A participant is down, its sagas pile up, and then Skald dies. Both come back: how soon is the first saga carried on,
//! and how soon all of them?

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::json;
use skald_figures::exposition;

use super::{Findings, Scene};

const LOOK_EVERY: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// That are unfinished
    #[arg(long, default_value_t = 100_000)]
    sagas: u64,
    #[arg(long, default_value_t = 64)]
    clients: usize,
}

impl Options {
    pub const fn little() -> Self {
        Self { sagas: 50, clients: 4 }
    }

    /// They are all in memory.
    pub fn config(&self) -> String {
        format!("[engine]\nmax_running = {}\n", self.sagas + 1_000)
    }
}

pub async fn run(options: &Options, scene: &mut Scene<'_>, findings: &mut Findings) -> Result<()> {
    scene.world.participants.hold().await?;
    let definition = json!({
        "apiVersion": "skald/v1",
        "name": "bench-held",
        "version": 1,
        "deadline": "24h",
        // It is tried for as long as this takes.
        "defaults": {"retry": {"max_attempts": 1000, "initial": "1s", "factor": 2, "max": "5s"}},
        "steps": [{
            "id": "held",
            "call": {"service": "catalog", "method": "POST", "path": "/held", "body": {}},
            "effect": "none",
        }],
    });
    scene.pile_up(&definition, options.clients, options.sagas).await?;
    let skald = scene.world.skald(scene.database);
    findings.note("unfinished_sagas", options.sagas as f64);
    findings.note("before_resident_mib", skald.counters().await?.skald.resident_mib());

    scene.world.skald(scene.database).kill();
    scene.world.participants.let_through().await?;
    let begun = Instant::now();
    scene.world.skald(scene.database).start_again().await;
    findings.note("listening_s", begun.elapsed().as_secs_f64());
    let metrics = format!("{}/metrics", scene.world.skald(scene.database).url());
    let has_taken_over = async || {
        let metrics = reqwest::get(&metrics).await?.text().await?;
        Ok(exposition::sum(&metrics, "shards_owned", |_| true) > 0.0)
    };
    let participants = &scene.world.participants;
    let called = async |count: u64| since(begun, async || Ok(participants.let_through_count().await? >= count)).await;
    // Neither waits for the other.
    let (taken_over, first_call) = tokio::try_join!(since(begun, has_taken_over), called(1))?;
    findings.note("taken_over_s", taken_over);
    findings.note("first_call_s", first_call);
    findings.note("half_called_s", called(options.sagas.div_ceil(2)).await?);
    findings.note("all_called_s", called(options.sagas).await?);
    let after = scene.world.skald(scene.database).counters().await?.skald;
    findings.note("after_cpu_s", after.cpu.as_secs_f64());
    findings.note("after_resident_mib", after.resident_mib());
    Ok(())
}

/// How many seconds it takes from then until it is so.
async fn since(begun: Instant, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<f64> {
    while !is_so().await? {
        ensure!(begun.elapsed() < PATIENCE, "the sagas were not carried on within {PATIENCE:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(begun.elapsed().as_secs_f64())
}
