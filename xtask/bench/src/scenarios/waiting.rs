//! Sagas that wait for their participants, for hours or days, must cost those that do not wait nothing.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{Findings, Scene};
use crate::load::Load;

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// That wait
    #[arg(long, default_value_t = 100_000)]
    sagas: u64,
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// For how long checkouts are measured then, and at a fresh server, five times each
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

impl Options {
    pub const fn little() -> Self {
        Self { sagas: 50, clients: 4, seconds: 0.1 }
    }
}

pub async fn run(options: &Options, scene: &mut Scene<'_>, findings: &mut Findings) -> Result<()> {
    let definition = json!({
        "apiVersion": "skald/v1",
        "name": "bench-waiting",
        "version": 1,
        "deadline": "24h",
        "steps": [{
            "id": "wait",
            "call": {"service": "catalog", "method": "POST", "path": "/accepted", "body": {}},
            "effect": "none",
        }],
    });
    scene.pile_up(&definition, options.clients, options.sagas).await?;
    let skald = scene.world.skald(scene.database);
    findings.note("waiting_sagas", skald.metric("active_sagas").await?);
    findings.note("sagas_in_memory", skald.metric("sagas_resident").await?);
    let load = Load::completing(options.clients, Duration::from_secs_f64(options.seconds));
    scene.measure_beside_fresh("beside_waiting", load, findings).await
}
