//! Arrivals that do not wait for those before: more than can be carried out. What is accepted must still end soon, the
//! rest be refused at once, and afterwards all be as before.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use super::{Findings, Scene, arrivals::Door};
use crate::load::Load;

const PROBE_EVERY: Duration = Duration::from_millis(50);
const RECOVERY_MAX: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// That show the capacity, in a closed loop: so many that no more would get more carried out
    #[arg(long, default_value_t = 256)]
    clients: usize,
    /// Arrivals, as a multiple of the capacity
    #[arg(long, default_value_t = 2.0)]
    factor: f64,
    /// For how long they arrive; the capacity is measured as long
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
}

impl Options {
    pub const fn little() -> Self {
        Self { clients: 4, factor: 2.0, seconds: 0.5 }
    }
}

pub async fn run(options: &Options, scene: &mut Scene<'_>, findings: &mut Findings) -> Result<()> {
    let lasts = Duration::from_secs_f64(options.seconds);
    let capacity = scene.measure(Load::completing(options.clients, lasts)).await?;
    let capacity_per_s = capacity.checkouts_per_s.median;
    findings.note("capacity_per_s", capacity_per_s);
    findings.note("capacity_p99_ms", capacity.latency.p99_ms);

    let door = Door::of(scene.world.skald(scene.database).checkouts()?);
    let arrived = door.take(capacity_per_s * options.factor, lasts).await?;
    findings.note("arrived_per_s", arrived.count as f64 / options.seconds);
    findings.note("accepted_per_s", (arrived.count - arrived.shed_count) as f64 / options.seconds);
    findings.note("shed_percent", arrived.shed_percent());
    findings.note_spread("sent_late", arrived.sent.spread());
    findings.note_spread("shed", arrived.shed.spread());
    findings.note_spread("accepted", arrived.accepted.spread());
    if let Some(accepted) = arrived.accepted.spread() {
        findings.note("accepted_p99_to_capacity_p99", accepted.p99_ms / capacity.latency.p99_ms);
    }
    let recovered = recovered(&door, Duration::from_secs_f64(capacity.latency.p99_ms / 1000.0)).await?;
    findings.note("recovered_after_s", recovered.as_secs_f64());
    findings.note("resident_mib", scene.world.skald(scene.database).counters().await?.skald.resident_mib());
    Ok(())
}

/// How long it takes until one checkout at a time ends as soon as all did at capacity.
async fn recovered(door: &Door, soon: Duration) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let elapsed = begun.elapsed();
        let probe = door.one().await?;
        if !probe.is_shed() && probe.answered_after <= soon {
            return Ok(elapsed);
        }
        ensure!(elapsed < RECOVERY_MAX, "not as before within {RECOVERY_MAX:?}");
        tokio::time::sleep(PROBE_EVERY).await;
    }
}
