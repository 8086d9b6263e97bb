//! A large input must cost what its bytes cost.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::{Findings, Scene};
use crate::{
    load::Load,
    order::Order,
    skald::{AWAITED, CHECKOUT},
};

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Sizes of the input, each of which is measured; the first is what the others are compared with
    #[arg(long, value_delimiter = ',', default_value = "0,16,64,256")]
    kib: Vec<usize>,
    #[arg(long, default_value_t = 16)]
    clients: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

impl Options {
    pub fn little() -> Self {
        Self { kib: vec![0, 64], clients: 2, seconds: 0.3 }
    }
}

pub async fn run(options: &Options, scene: &mut Scene<'_>, findings: &mut Findings) -> Result<()> {
    let mut first = None;
    for &kib in &options.kib {
        let order = Order { note: Some("x".repeat(kib * 1024)), ..Order::new(false) };
        let skald = scene.world.skald(scene.database);
        let start = skald.starts(CHECKOUT, AWAITED, &order, order.ending())?;
        let asked = skald.asked_for(&start)?;
        let load = Load::completing(options.clients, Duration::from_secs_f64(options.seconds));
        let row = scene.measure_asked(&asked, load).await?;
        findings.note_row(&format!("{kib}_kib"), &row);
        let (first_kib, first_cpu_us) = *first.get_or_insert((kib, row.per_checkout.cpu_us()));
        if kib > first_kib {
            let more_us = row.per_checkout.cpu_us() - first_cpu_us;
            findings.note(format!("{kib}_kib_cpu_us_per_kib"), more_us / (kib - first_kib) as f64);
        }
    }
    Ok(())
}
