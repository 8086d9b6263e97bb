//! The clients: they start checkouts of both modes through any replica until a start is acknowledged, some leave and come
//! back, and operators change their minds.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use crate::harness::{Client, checker::Start, order};

const CLIENTS: usize = 48;
/// A stopped replica takes connections and answers nothing.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(180);
/// Starts come in bursts, so that commits have several sagas to carry.
const BURST_EVERY: Duration = Duration::from_millis(700);
const COMMAND_EVERY: Duration = Duration::from_millis(600);
/// An operator acts on one of so many of the latest sagas.
const LATEST: usize = 40;
pub const CUSTOMERS: usize = 20;
/// Every so manieth checkout is choreographed.
const CHOREOGRAPHED_EVERY: usize = 3;

/// The clients and what they were told.
#[derive(Debug, Default)]
pub struct Load {
    told: Mutex<Told>,
    /// Starts that are over, acknowledged or not to be known.
    count: AtomicUsize,
}

/// What clients were told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub acknowledged: Vec<Start>,
    /// Sagas of which a command to compensate was answered with 200.
    pub compensated: Vec<String>,
    /// Sagas whose order cannot be filled, for want of money or stock.
    pub doomed: Vec<String>,
    /// Answers to starts by status; `none` when there was none.
    pub answers: BTreeMap<String, usize>,
    /// Answers that no client should get.
    pub violations: Vec<String>,
    /// Starts without a key that were not acknowledged: there may be a saga.
    pub unknown: usize,
    pub silence: Silence,
}

/// The longest time that clients waited and none got an acknowledgement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence {
    pub longest: Duration,
    waiting: usize,
    since: Option<Instant>,
}

impl Silence {
    fn begin(&mut self) {
        if self.waiting == 0 {
            self.since = Some(Instant::now());
        }
        self.waiting += 1;
    }

    fn broken(&mut self) {
        let now = Instant::now();
        let lasted = self.since.replace(now).map(|since| now - since);
        self.longest = self.longest.max(lasted.unwrap_or_default());
    }

    fn end(&mut self) {
        self.waiting -= 1;
    }
}

/// A checkout of the plan.
struct Checkout {
    input: Value,
    mode: &'static str,
    /// It cannot be filled.
    doomed: bool,
    key: Option<String>,
    random: StdRng,
    /// The client leaves before its first answer.
    leaves: bool,
    /// It asks once more when it has its answer.
    asks_again: bool,
}

impl Checkout {
    fn of(seed: u64, number: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut input = order(&format!("c-{}", number % CUSTOMERS));
        let product = ["p-1", "p-2", "p-3"].choose(&mut random).expect("there are some");
        input["items"][0]["product_id"] = json!(product);
        let mode = if number.is_multiple_of(CHOREOGRAPHED_EVERY) { "choreographed" } else { "orchestrated" };
        let mut doomed = true;
        match random.random_range(0..100) {
            0..12 => input["payment"]["token"] = json!("tok_declined"),
            // Of these there are none.
            12..18 => {
                input["items"] = json!([{"product_id": "p-1", "quantity": 1}, {"product_id": "p-5", "quantity": 1}])
            }
            _ => doomed = false,
        }
        let key = random.random_bool(0.9).then(|| format!("order-{seed}-{number}"));
        let leaves = key.is_some() && random.random_bool(0.1);
        let asks_again = key.is_some() && random.random_bool(0.1);
        Self { input, mode, doomed, key, random, leaves, asks_again }
    }
}

impl Load {
    pub fn told(&self) -> Told {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("nothing panics while it holds this lock")
    }

    /// Starts that are over, acknowledged or not to be known.
    pub fn over(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Starts so many checkouts, as they are let in by `admission`.
    pub async fn run(&self, seed: u64, replicas: &[Client], sagas: usize, admission: &Semaphore) {
        let next = AtomicUsize::new(0);
        let client = async || {
            while next.load(Ordering::Relaxed) < sagas {
                admission.acquire().await.expect("it is never closed").forget();
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number < sagas {
                    self.lock().silence.begin();
                    self.check_out(Checkout::of(seed, number), replicas).await;
                    self.lock().silence.end();
                }
            }
        };
        join_all((0..CLIENTS).map(|_| client())).await;
    }

    async fn check_out(&self, mut checkout: Checkout, replicas: &[Client]) {
        let begun = Instant::now();
        let mut replica = checkout.random.random_range(0..replicas.len());
        let mut leaves = checkout.leaves;
        let mut first: Option<String> = None;
        loop {
            let patience = if std::mem::take(&mut leaves) {
                checkout.random.random_range(1..40)
            } else {
                ANSWER_MAX.as_millis() as u64
            };
            let answered = timeout(Duration::from_millis(patience), ask(&replicas[replica], &checkout)).await;
            let mut refused = false;
            let saga = match answered {
                Ok(Some((status, text, saga))) => {
                    refused = status == 408 || status == 503 && !text.contains("\"in_doubt\"");
                    self.judge(status, &text, saga)
                }
                Ok(None) | Err(_) => {
                    self.answered("none");
                    None
                }
            };
            match (saga, &checkout.key) {
                (Some(saga), key) => {
                    if checkout.doomed {
                        self.lock().doomed.push(saga.clone());
                    }
                    self.acknowledge(Start { key: key.clone(), saga: saga.clone() }, first.is_none());
                    if first.replace(saga).is_some() || !checkout.asks_again {
                        return;
                    }
                }
                // Nothing was started, says the answer; in all other cases nobody knows.
                (None, None) if refused && begun.elapsed() < ACKNOWLEDGED_WITHIN => {
                    pause(&mut checkout.random).await;
                }
                (None, None) => {
                    self.lock().unknown += 1;
                    self.count.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                (None, Some(key)) if begun.elapsed() > ACKNOWLEDGED_WITHIN => {
                    self.violate(format!("the start {key} was not acknowledged within {ACKNOWLEDGED_WITHIN:?}"));
                    self.count.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                (None, Some(_)) => pause(&mut checkout.random).await,
            }
            replica = (replica + 1) % replicas.len();
        }
    }

    /// The saga, if the answer acknowledges one.
    fn judge(&self, status: u16, text: &str, saga: Option<String>) -> Option<String> {
        self.answered(&status.to_string());
        match status {
            200..300 => {
                return saga.or_else(|| {
                    self.violate(format!("a start was answered {status} without a saga: {text}"));
                    None
                });
            }
            // 408: the replica was stopped before it had read the request.
            408 | 503 | 504 => {}
            _ => self.violate(format!("a start was answered {status}: {text}")),
        }
        None
    }

    fn acknowledge(&self, start: Start, is_first: bool) {
        if is_first {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        let mut told = self.lock();
        told.acknowledged.push(start);
        told.silence.broken();
    }

    fn answered(&self, status: &str) {
        *self.lock().answers.entry(status.to_owned()).or_default() += 1;
    }

    fn violate(&self, text: String) {
        self.lock().violations.push(text);
    }

    /// Operators have some of the latest sagas undone, until `done`.
    pub async fn operate(&self, seed: u64, replicas: &[Client], mut done: watch::Receiver<bool>) {
        let mut random = StdRng::seed_from_u64(seed ^ 0x0FEA_A705);
        while timeout(COMMAND_EVERY, done.wait_for(|done| *done)).await.is_err() {
            let latest = {
                let starts = &self.lock().acknowledged;
                let latest = &starts[starts.len().saturating_sub(LATEST)..];
                latest.choose(&mut random).map(|start| start.saga.clone())
            };
            let Some(saga) = latest else { continue };
            let replica = replicas.choose(&mut random).expect("there are some");
            if command(replica, &saga, "compensate").await == Some(200) {
                self.lock().compensated.push(saga);
            }
        }
    }
}

/// Lets starts in so that they go on for as long as the faults: `pace` a second, in bursts, but never past `limit`.
pub async fn admit(admission: &Semaphore, sagas: usize, pace: f64, limit: impl Fn() -> usize) {
    let (begun, mut admitted) = (Instant::now(), 0);
    while admitted < sagas {
        let due = (begun.elapsed().as_secs_f64() * pace) as usize + CLIENTS;
        let more = due.min(limit()).min(sagas).saturating_sub(admitted);
        admission.add_permits(more);
        admitted += more;
        sleep(BURST_EVERY).await;
    }
    // Those who wait for a turn that no longer comes.
    admission.add_permits(CLIENTS);
}

/// Before a client asks again.
async fn pause(random: &mut StdRng) {
    sleep(Duration::from_millis(random.random_range(20..150))).await;
}

async fn ask(replica: &Client, checkout: &Checkout) -> Option<(u16, String, Option<String>)> {
    let path = format!("/sagas/checkout?mode={}", checkout.mode);
    let mut request = replica.request(Method::POST, &path).json(&checkout.input);
    if let Some(key) = &checkout.key {
        request = request.header("Idempotency-Key", key);
    }
    let answer = replica.send(request.header("Prefer", "respond-async")).await.ok()?;
    Some((answer.status, answer.text, answer.body["id"].as_str().map(str::to_owned)))
}

/// An operator's command; gives the status of the answer, if there was one in time.
pub async fn command(replica: &Client, saga: &str, command: &str) -> Option<u16> {
    let body = json!({"reason": "chaos", "actor": "operator"});
    let request = replica.request(Method::POST, &format!("/admin/sagas/{saga}/{command}")).json(&body);
    Some(timeout(ANSWER_MAX, replica.send(request)).await.ok()?.ok()?.status)
}
