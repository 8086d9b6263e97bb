//! The closed loop: each client starts its next checkout when it has the end of the one before, and holds each end
//! against how it must be.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use skald_figures::Times;
use tokio::task::JoinSet;

use crate::{
    http::{self, Connection},
    order::{Ending, Order},
    services::Services,
};

/// So many must have ended, however slow the machine is, or there is nothing to say.
const CHECKOUTS_MIN: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// Who is asked for checkouts.
#[derive(Clone, Debug)]
pub enum Asked {
    /// The services themselves; the generator is the application.
    Services(Services),
    /// A server that takes the order in one request.
    Server { address: SocketAddr, path: &'static str },
}

#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub clients: usize,
    pub declined_percent: u8,
    /// Not counted.
    pub warm_up: Duration,
    /// Longer if hardly anything ends.
    pub lasts: Duration,
}

/// What the clients saw while it counted.
#[derive(Debug)]
pub struct Seen {
    pub checkouts: u64,
    /// Of these.
    pub compensated: u64,
    pub times: Times,
    /// For which it counted.
    pub took: Duration,
}

/// A checkout that ended as it must.
struct Ended {
    took: Duration,
    compensated: bool,
}

#[derive(Debug, Default)]
struct Phase {
    counts: AtomicBool,
    counted: AtomicU64,
    over: AtomicBool,
}

/// Runs it. `begins` and `ends` are called where counting does, while the clients go on.
///
/// # Errors
///
/// The first wrong answer.
pub async fn run(asked: &Asked, load: Load, mut at_edge: impl AsyncFnMut() -> Result<()>) -> Result<Seen> {
    let phase = Arc::new(Phase::default());
    let mut clients = JoinSet::new();
    for number in 0..load.clients {
        clients.spawn(client(asked.clone(), number, load.declined_percent, Arc::clone(&phase)));
    }
    let measuring = async {
        tokio::time::sleep(load.warm_up).await;
        at_edge().await?;
        let begun = Instant::now();
        phase.counts.store(true, Ordering::Relaxed);
        tokio::time::sleep(load.lasts).await;
        while phase.counted.load(Ordering::Relaxed) < CHECKOUTS_MIN && begun.elapsed() < PATIENCE {
            tokio::time::sleep(load.warm_up).await;
        }
        phase.counts.store(false, Ordering::Relaxed);
        let took = begun.elapsed();
        at_edge().await?;
        anyhow::Ok(took)
    };
    // A client ends by itself only with an error.
    let took = tokio::select! {
        took = measuring => took?,
        Some(ended) = clients.join_next() => {
            ended??;
            unreachable!("a client ended before its time")
        }
    };
    phase.over.store(true, Ordering::Relaxed);
    let mut seen = Seen { checkouts: 0, compensated: 0, times: Times::default(), took };
    while let Some(ended) = clients.join_next().await {
        for Ended { took, compensated } in ended?? {
            seen.times.record(took);
            seen.checkouts += 1;
            seen.compensated += u64::from(compensated);
        }
    }
    ensure!(seen.checkouts >= CHECKOUTS_MIN, "hardly a checkout ended within {took:?}");
    Ok(seen)
}

async fn client(asked: Asked, number: usize, declined_percent: u8, phase: Arc<Phase>) -> Result<Vec<Ended>> {
    let orders = [Order::of(number, false), Order::of(number, true)];
    let mut till = Till::open(&asked, &orders).await?;
    let mut ended = Vec::new();
    // Clients do not decline in step.
    let mut turn = number * 37;
    while !phase.over.load(Ordering::Relaxed) {
        let declined = is_declined(turn, declined_percent);
        turn += 1;
        let begun = Instant::now();
        let ending = till.checkout(&orders, declined).await?;
        let took = begun.elapsed();
        let expected = orders[usize::from(declined)].ending();
        ensure!(ending == expected, "a checkout ended as {ending:?} and not as {expected:?}");
        if phase.counts.load(Ordering::Relaxed) {
            phase.counted.fetch_add(1, Ordering::Relaxed);
            ended.push(Ended { took, compensated: declined });
        }
    }
    Ok(ended)
}

/// Spread as evenly as can be.
const fn is_declined(turn: usize, percent: u8) -> bool {
    let percent = percent as usize;
    (turn + 1) * percent / 100 > turn * percent / 100
}

/// What a client has for its checkouts.
enum Till {
    Services(Services),
    Server { connection: Connection, requests: [Vec<u8>; 2] },
}

impl Till {
    async fn open(asked: &Asked, orders: &[Order; 2]) -> Result<Self> {
        match asked {
            Asked::Services(services) => Ok(Self::Services(services.clone())),
            Asked::Server { address, path } => {
                let request = |order| anyhow::Ok(http::post(*address, path, &serde_json::to_vec(order)?));
                let requests = [request(&orders[0])?, request(&orders[1])?];
                Ok(Self::Server { connection: Connection::open(*address).await?, requests })
            }
        }
    }

    async fn checkout(&mut self, orders: &[Order; 2], declined: bool) -> Result<Ending> {
        match self {
            Self::Services(services) => services.checkout(&orders[usize::from(declined)]).await,
            Self::Server { connection, requests } => {
                let answer = connection.exchange(&requests[usize::from(declined)]).await?;
                let text = || String::from_utf8_lossy(answer.body).into_owned();
                ensure!(answer.status == 201, "a checkout was answered {}: {}", answer.status, text());
                serde_json::from_slice(answer.body).with_context(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_declined_as_wanted() {
        for percent in [0, 1, 10, 33, 100] {
            let declined = (0..1000).filter(|turn| is_declined(*turn, percent)).count();
            assert_eq!(declined, usize::from(percent) * 10);
        }
    }
}
