//! Clients that ask for checkouts, each for its next one when it has the end of the one before, and hold each end against
//! how it must be.

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
    http::Connection,
    order::{Ending, Order},
    services::Services,
};

/// So many must have ended, however slow the machine is, or there is nothing to say.
const CHECKOUTS_MIN: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// What a start is answered that comes when too much is going on.
pub const SHED: u16 = 503;
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Who is asked for checkouts, and what for: first one that goes through, then one that is declined.
#[derive(Clone, Debug)]
pub enum Asked {
    /// The services themselves; the generator is the application.
    Services(Services, Arc<[Order; 2]>),
    /// A server that takes an order in one request.
    Server(SocketAddr, [Arc<Request>; 2]),
}

/// A request written beforehand, and what must be answered.
#[derive(Debug)]
pub struct Request {
    pub bytes: Vec<u8>,
    pub status: u16,
    pub ending: Ending,
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

impl Load {
    /// Where nothing is declined.
    pub fn completing(clients: usize, lasts: Duration) -> Self {
        Self { clients, declined_percent: 0, warm_up: lasts / 10, lasts }
    }
}

impl Seen {
    pub fn per_s(&self) -> f64 {
        self.checkouts as f64 / self.took.as_secs_f64()
    }
}

/// Keeps the clients busy for a time. `at_edge` is called where counting begins and where it ends, while they go on.
///
/// # Errors
///
/// The first wrong answer.
pub async fn run(asked: &Asked, load: Load, mut at_edge: impl AsyncFnMut() -> Result<()>) -> Result<Seen> {
    let phase = Arc::new(Phase::default());
    let mut clients = JoinSet::new();
    for number in 0..load.clients {
        // Clients do not decline in step.
        clients.spawn(client(asked.clone(), number * 37, load.declined_percent, Arc::clone(&phase)));
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

/// Makes the first of the requests so many times; `progress` is told of each. One that is shed is made again a little later.
///
/// # Errors
///
/// The first wrong answer.
pub async fn repeat(
    asked: &Asked,
    clients: usize,
    times: u64,
    progress: impl Fn() + Clone + Send + 'static,
) -> Result<()> {
    let begun = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let (asked, begun, progress) = (asked.clone(), Arc::clone(&begun), progress.clone());
        running.spawn(async move {
            let mut till = Till::open(&asked).await?;
            while begun.fetch_add(1, Ordering::Relaxed) < times {
                till.checkout_when_there_is_room().await?;
                progress();
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

async fn client(asked: Asked, first_turn: usize, declined_percent: u8, phase: Arc<Phase>) -> Result<Vec<Ended>> {
    let mut till = Till::open(&asked).await?;
    let mut ended = Vec::new();
    let mut turn = first_turn;
    while !phase.over.load(Ordering::Relaxed) {
        let declined = is_declined(turn, declined_percent);
        turn += 1;
        let begun = Instant::now();
        till.checkout(declined).await?;
        let took = begun.elapsed();
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
enum Till<'a> {
    Services(&'a Services, &'a [Order; 2]),
    Server(Connection, &'a [Arc<Request>; 2]),
}

impl<'a> Till<'a> {
    async fn open(asked: &'a Asked) -> Result<Self> {
        match asked {
            Asked::Services(services, orders) => Ok(Self::Services(services, orders)),
            Asked::Server(address, requests) => Ok(Self::Server(Connection::open(*address).await?, requests)),
        }
    }

    async fn checkout_when_there_is_room(&mut self) -> Result<()> {
        let Self::Server(connection, requests) = self else { return self.checkout(false).await };
        loop {
            let answer = connection.exchange(&requests[0].bytes).await?;
            if answer.status != SHED {
                return requests[0].check(answer.status, answer.body);
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn checkout(&mut self, declined: bool) -> Result<()> {
        let which = usize::from(declined);
        match self {
            Self::Services(services, orders) => {
                let (ending, expected) = (services.checkout(&orders[which]).await?, orders[which].ending());
                ensure!(ending == expected, "a checkout ended as {ending:?} and not as {expected:?}");
            }
            Self::Server(connection, requests) => {
                let answer = connection.exchange(&requests[which].bytes).await?;
                requests[which].check(answer.status, answer.body)?;
            }
        }
        Ok(())
    }
}

impl Request {
    /// # Errors
    ///
    /// When this is not what must be answered.
    pub fn check(&self, status: u16, body: &[u8]) -> Result<()> {
        let text = || String::from_utf8_lossy(body).into_owned();
        ensure!(status == self.status, "answered {status} and not {}: {}", self.status, text());
        let ending: Ending = serde_json::from_slice(body).with_context(text)?;
        ensure!(ending == self.ending, "ended as {ending:?} and not as {:?}: {}", self.ending, text());
        Ok(())
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

    #[test]
    fn another_end_than_the_right_one_is_an_error() {
        let request = Request { bytes: Vec::new(), status: 201, ending: Ending::completed(7) };
        let right = br#"{"id": "x", "status": "completed", "output": {"total": 7}}"#;
        request.check(201, right).unwrap();
        for (status, body) in [
            (202, &right[..]),
            (201, br#"{"status": "completed", "output": {"total": 8}}"#),
            (201, br#"{"status": "compensated", "output": null}"#),
            (201, b"no JSON"),
        ] {
            request.check(status, body).unwrap_err();
        }
    }
}
