//! Arrivals that do not wait for those before: more than can be carried out. What is accepted must still end soon, the
//! rest be refused at once, and afterwards all be as before.
//!
//! A time counts from when its checkout was meant to start, so that a generator or a server that is late hides nothing.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::Args;
use skald_figures::Times;
use tokio::task::JoinSet;

use super::{Findings, Scene};
use crate::{
    http::Connection,
    load::{Asked, Load, Request, SHED},
};

const PROBE_EVERY: Duration = Duration::from_millis(50);
const RECOVERY_MAX: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// That show the capacity, in a closed loop
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Arrivals, as a multiple of the capacity
    #[arg(long, default_value_t = 2.0)]
    factor: f64,
    /// For how long they arrive; the capacity is measured as long
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
}

/// Connections that nobody uses at the moment.
#[derive(Clone, Debug)]
struct Pool {
    address: SocketAddr,
    free: Arc<Mutex<Vec<Connection>>>,
}

/// What became of one arrival.
struct Arrival {
    status: u16,
    /// From when it was meant to.
    sent_after: Duration,
    answered_after: Duration,
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

    let Asked::Server(address, [request, _]) = scene.world.skald(scene.database).checkouts()? else {
        unreachable!("Skald is a server")
    };
    let pool = Pool { address, free: Arc::default() };
    let arrivals = arrive(&pool, &request, capacity_per_s * options.factor, lasts).await?;
    let (mut accepted, mut shed, mut sent) = (Times::default(), Times::default(), Times::default());
    for arrival in &arrivals {
        sent.record(arrival.sent_after);
        let times = if arrival.status == SHED { &mut shed } else { &mut accepted };
        times.record(arrival.answered_after);
    }
    let shed_count = arrivals.iter().filter(|arrival| arrival.status == SHED).count();
    findings.note("arrived_per_s", arrivals.len() as f64 / options.seconds);
    findings.note("accepted_per_s", (arrivals.len() - shed_count) as f64 / options.seconds);
    findings.note("shed_percent", shed_count as f64 * 100.0 / arrivals.len() as f64);
    findings.note_spread("sent_late", sent.spread());
    findings.note_spread("shed", shed.spread());
    findings.note_spread("accepted", accepted.spread());
    if let Some(accepted) = accepted.spread() {
        findings.note("accepted_p99_to_capacity_p99", accepted.p99_ms / capacity.latency.p99_ms);
    }
    let recovered = recovered(&pool, &request, Duration::from_secs_f64(capacity.latency.p99_ms / 1000.0)).await?;
    findings.note("recovered_after_s", recovered.as_secs_f64());
    findings.note("resident_mib", scene.world.skald(scene.database).counters().await?.skald.resident_mib());
    Ok(())
}

/// At an even rate, whatever becomes of those before. Gives all once the last is answered.
async fn arrive(pool: &Pool, request: &Arc<Request>, per_s: f64, lasts: Duration) -> Result<Vec<Arrival>> {
    let begun = Instant::now();
    let mut arriving = JoinSet::new();
    let mut number = 0_u32;
    loop {
        let meant = begun + Duration::from_secs_f64(f64::from(number) / per_s);
        if meant > begun + lasts {
            break;
        }
        tokio::time::sleep_until(meant.into()).await;
        arriving.spawn(arrival(pool.clone(), Arc::clone(request), meant));
        number += 1;
    }
    let mut arrivals = Vec::with_capacity(number as usize);
    while let Some(arrival) = arriving.join_next().await {
        arrivals.push(arrival??);
    }
    Ok(arrivals)
}

async fn arrival(pool: Pool, request: Arc<Request>, meant: Instant) -> Result<Arrival> {
    let free = pool.free.lock().expect("nothing panics while it holds this lock").pop();
    let mut connection = match free {
        Some(connection) => connection,
        None => Connection::open(pool.address).await?,
    };
    let sent_after = meant.elapsed();
    let answer = connection.exchange(&request.bytes).await?;
    let status = answer.status;
    if status != SHED {
        request.check(status, answer.body)?;
    }
    let arrival = Arrival { status, sent_after, answered_after: meant.elapsed() };
    pool.free.lock().expect("nothing panics while it holds this lock").push(connection);
    Ok(arrival)
}

/// How long it takes until one checkout at a time ends as soon as all did at capacity.
async fn recovered(pool: &Pool, request: &Arc<Request>, soon: Duration) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let elapsed = begun.elapsed();
        let probe = arrival(pool.clone(), Arc::clone(request), Instant::now()).await?;
        if probe.status != SHED && probe.answered_after <= soon {
            return Ok(elapsed);
        }
        ensure!(elapsed < RECOVERY_MAX, "not as before within {RECOVERY_MAX:?}");
        tokio::time::sleep(PROBE_EVERY).await;
    }
}
