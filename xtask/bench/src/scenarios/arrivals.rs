//! Arrivals at an even rate that do not wait for those before, and what became of them.
//!
//! A time counts from when its checkout was meant to start, so that a generator or a server that is late hides nothing.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::Result;
use skald_figures::Times;
use tokio::task::JoinSet;

use crate::{
    http::Connection,
    load::{Asked, Request, SHED},
};

/// Whom they ask, and for what.
#[derive(Clone, Debug)]
pub struct Door {
    pool: Pool,
    request: Arc<Request>,
}

/// Connections that nobody uses at the moment.
#[derive(Clone, Debug)]
struct Pool {
    address: SocketAddr,
    free: Arc<Mutex<Vec<Connection>>>,
}

/// What became of one arrival.
#[derive(Debug)]
pub struct Arrival {
    status: u16,
    /// From when it was meant to.
    sent_after: Duration,
    pub answered_after: Duration,
}

/// What became of all of them.
#[derive(Debug)]
pub struct Arrived {
    pub count: usize,
    /// Of these.
    pub shed_count: usize,
    pub accepted: Times,
    pub shed: Times,
    /// How late the generator was.
    pub sent: Times,
}

impl Door {
    pub fn of(asked: Asked) -> Self {
        let Asked::Server(address, [request, _]) = asked else { unreachable!("Skald is a server") };
        Self { pool: Pool { address, free: Arc::default() }, request }
    }

    /// Asks so many times a second, whatever becomes of those before. Ends once the last is answered.
    ///
    /// # Errors
    ///
    /// The first wrong answer.
    pub async fn take(&self, per_s: f64, lasts: Duration) -> Result<Arrived> {
        let (mut accepted, mut shed, mut sent) = (Times::default(), Times::default(), Times::default());
        let (mut count, mut shed_count) = (0, 0);
        for arrival in arrive(&self.pool, &self.request, per_s, lasts).await? {
            count += 1;
            shed_count += usize::from(arrival.is_shed());
            sent.record(arrival.sent_after);
            let times = if arrival.is_shed() { &mut shed } else { &mut accepted };
            times.record(arrival.answered_after);
        }
        Ok(Arrived { count, shed_count, accepted, shed, sent })
    }

    /// One, now.
    ///
    /// # Errors
    ///
    /// The answer is wrong.
    pub async fn one(&self) -> Result<Arrival> {
        arrival(self.pool.clone(), Arc::clone(&self.request), Instant::now()).await
    }
}

impl Arrival {
    pub fn is_shed(&self) -> bool {
        self.status == SHED
    }
}

impl Arrived {
    pub fn shed_percent(&self) -> f64 {
        self.shed_count as f64 * 100.0 / self.count as f64
    }
}

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
