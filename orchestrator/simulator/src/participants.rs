//! Participants as they should be: one effect per key, stored answers, tombstones. Their ledger is what the invariants
//! are judged by; it believes nothing that the engine says.
//!
//! | key of the action | action | compensation |
//! | --- | --- | --- |
//! | unseen | effect, or refused for good | tombstone: no effect, ever |
//! | working (202) | still at it | cancelled: a tombstone |
//! | done | the stored answer | undone |
//! | refused | the stored answer | tombstone |
//! | tombstone, undone | 409 cancelled | done already |

mod duties;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use skald_core::{
    classify::{Answer, Body},
    decide::{Invoke, Purpose, ReportedOutcome, Target},
    ids::{Operation, SagaId},
    time::Millis,
};

pub use self::duties::Carried;
use crate::{catalog::SERVICES, faults::Fault, mutants::Mutant, trace::word};

/// What stands in a participant's books about a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Effect,
    Undo,
    /// A compensation without anything to undo.
    Tombstone,
}

/// One line of the books.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub saga: SagaId,
    pub step: usize,
    pub mark: Mark,
}

/// The action's key, as the participant knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub saga: SagaId,
    pub step: usize,
    /// Zero, unless keys are broken on purpose.
    attempt: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Progress {
    #[default]
    Unseen,
    Working,
    Done,
    Refused,
    Tombstone,
    Undone,
}

#[derive(Debug, Default)]
struct Record {
    progress: Progress,
    /// An accepted compensation that is still being carried out.
    undoing: bool,
    /// How often a step without an effect was asked again.
    looks: u64,
    /// Of a choreographed saga: what was reported of each operation, and the stream's version that took it.
    told: [Option<(ReportedOutcome, Option<u64>)>; 2],
    /// What was asked for under the key: it must not change between attempts.
    asked: [Option<String>; 2],
}

/// One resource per service: every effect takes one of it.
#[derive(Clone, Copy, Debug)]
pub struct Stock {
    pub initial: u64,
    pub available: u64,
    pub reserved: u64,
}

#[derive(Debug)]
pub struct Participants {
    records: BTreeMap<Key, Record>,
    /// Lines that nobody has looked at yet.
    pub news: Vec<Entry>,
    pub stocks: [Stock; SERVICES.len()],
    /// A key that was used for two different requests, and nobody has looked at yet.
    pub reused: Option<Key>,
    mutant: Option<Mutant>,
}

/// How a request is treated.
#[derive(Clone, Copy, Debug)]
pub struct Treatment {
    pub fault: Option<Fault>,
    pub has_effect: bool,
}

/// What a request came to.
#[derive(Debug)]
pub struct Served {
    pub answer: Answer,
    /// An operation that was accepted and will end later.
    pub accepted: Option<Key>,
    pub out_of_stock: bool,
}

impl Served {
    fn answer(status: u16, body: Value) -> Self {
        let answer = Answer { status, retry_after: None, location: None, body: Body::Json(body) };
        Self { answer, accepted: None, out_of_stock: false }
    }
}

impl Key {
    /// Whether a 202 says when to ask again, instead of promising a callback: a habit of the step, not of the request.
    #[must_use]
    pub fn is_polled(self) -> bool {
        (word(self.saga) >> self.step) & 1 == 1
    }
}

impl Participants {
    #[must_use]
    pub fn new(stock: u64, mutant: Option<Mutant>) -> Self {
        let stock = Stock { initial: stock, available: stock, reserved: 0 };
        let stocks = [stock; SERVICES.len()];
        Self { records: BTreeMap::new(), news: Vec::new(), stocks, reused: None, mutant }
    }

    pub fn key(&self, invoke: &Invoke) -> Key {
        let attempt = if self.mutant == Some(Mutant::IdempotencyKey) { invoke.attempt } else { 0 };
        Key { saga: invoke.saga, step: step_index(&invoke.step), attempt }
    }

    pub fn serve(&mut self, invoke: &Invoke, treatment: Treatment) -> Served {
        let key = self.key(invoke);
        let plain = |status: u16| Served::answer(status, json!({}));
        match treatment.fault {
            Some(Fault::Busy) => return plain(503),
            Some(Fault::InFlight) => return plain(409),
            Some(Fault::Misconfigured) => return plain(404),
            _ => {}
        }
        match (invoke.purpose, invoke.operation) {
            (Purpose::Status, _) => self.status(key),
            (Purpose::Poll, _) => self.poll(key, invoke.operation),
            (Purpose::Attempt, operation) if !self.is_the_same(key, operation, &invoke.target) => plain(400),
            (Purpose::Attempt, Operation::Action) => self.act(key, treatment),
            (Purpose::Attempt, Operation::Compensation) => self.undo(key, treatment),
        }
    }

    /// Whether the key comes for the first time or with the same request as before, as it must.
    fn is_the_same(&mut self, key: Key, operation: Operation, target: &Target) -> bool {
        let asked = &mut self.records.entry(key).or_default().asked[operation as usize];
        let body = target.body.as_deref().unwrap_or_default();
        let same = asked.get_or_insert_with(|| body.to_owned()) == body;
        if !same {
            self.reused = Some(key);
        }
        same
    }

    fn status(&mut self, key: Key) -> Served {
        let progress = self.records.entry(key).or_default().progress;
        match progress {
            Progress::Done => done(key),
            Progress::Refused => refused("no"),
            Progress::Unseen | Progress::Working | Progress::Tombstone | Progress::Undone => {
                Served::answer(404, json!({}))
            }
        }
    }

    fn poll(&mut self, key: Key, operation: Operation) -> Served {
        let record = self.records.entry(key).or_default();
        match (operation, record.progress) {
            (Operation::Action, Progress::Done) => done(key),
            (Operation::Action, Progress::Refused) => refused("no"),
            (Operation::Action, Progress::Tombstone | Progress::Undone) => cancelled(),
            (Operation::Action, Progress::Working) => still_at_it(true),
            (Operation::Action, Progress::Unseen) => Served::answer(404, json!({})),
            (Operation::Compensation, _) if record.undoing => still_at_it(true),
            (Operation::Compensation, _) => done(key),
        }
    }

    fn act(&mut self, key: Key, treatment: Treatment) -> Served {
        match self.progress(key) {
            Progress::Unseen => match treatment.fault {
                Some(Fault::Refused) => {
                    self.set(key, Progress::Refused);
                    refused("no")
                }
                Some(Fault::Accepted) => {
                    self.set(key, Progress::Working);
                    Served { accepted: Some(key), ..still_at_it(key.is_polled()) }
                }
                _ => self.take_effect(key, treatment.has_effect),
            },
            Progress::Working => still_at_it(key.is_polled()),
            Progress::Done if treatment.has_effect => done(key),
            // Who changes nothing need not keep his answers.
            Progress::Done => self.looked_again(key),
            Progress::Refused => refused("no"),
            Progress::Tombstone | Progress::Undone => cancelled(),
        }
    }

    fn looked_again(&mut self, key: Key) -> Served {
        let looks = &mut self.records.entry(key).or_default().looks;
        *looks += 1;
        Served::answer(200, json!({ "number": *looks * 100 }))
    }

    fn take_effect(&mut self, key: Key, has_effect: bool) -> Served {
        let stock = &mut self.stocks[key.step % SERVICES.len()];
        if has_effect && stock.available == 0 {
            self.set(key, Progress::Refused);
            return Served { out_of_stock: true, ..refused("out_of_stock") };
        }
        self.set(key, Progress::Done);
        if has_effect {
            let stock = &mut self.stocks[key.step % SERVICES.len()];
            stock.available -= 1;
            stock.reserved += 1;
            self.write(key, Mark::Effect);
        }
        done(key)
    }

    fn undo(&mut self, key: Key, treatment: Treatment) -> Served {
        let progress = self.progress(key);
        if self.records.get(&key).is_some_and(|record| record.undoing) {
            return still_at_it(key.is_polled());
        }
        match treatment.fault {
            Some(Fault::Refused) if progress != Progress::Undone => return refused("cannot_undo"),
            Some(Fault::Accepted) if progress == Progress::Done => {
                self.records.entry(key).or_default().undoing = true;
                return Served { accepted: Some(key), ..still_at_it(key.is_polled()) };
            }
            _ => {}
        }
        self.take_back(key);
        done(key)
    }

    fn take_back(&mut self, key: Key) {
        match self.progress(key) {
            Progress::Done => {
                let stock = &mut self.stocks[key.step % SERVICES.len()];
                stock.available += 1;
                stock.reserved -= 1;
                self.set(key, Progress::Undone);
                self.write(key, Mark::Undo);
            }
            Progress::Unseen | Progress::Working | Progress::Refused => {
                if self.mutant != Some(Mutant::Tombstone) {
                    self.set(key, Progress::Tombstone);
                }
                self.write(key, Mark::Tombstone);
            }
            Progress::Tombstone | Progress::Undone => {}
        }
        self.records.entry(key).or_default().undoing = false;
    }

    /// What was accepted comes to its end; None if there is nothing left to tell.
    pub fn finish(&mut self, key: Key, operation: Operation, treatment: Treatment) -> Option<Served> {
        let record = self.records.entry(key).or_default();
        match operation {
            Operation::Action if record.progress == Progress::Working => {
                if treatment.fault == Some(Fault::Refused) {
                    self.set(key, Progress::Refused);
                    Some(refused("no"))
                } else {
                    Some(self.take_effect(key, treatment.has_effect))
                }
            }
            Operation::Compensation if record.undoing => {
                self.take_back(key);
                Some(done(key))
            }
            Operation::Action | Operation::Compensation => None,
        }
    }

    fn progress(&self, key: Key) -> Progress {
        self.records.get(&key).map_or(Progress::Unseen, |record| record.progress)
    }

    fn set(&mut self, key: Key, progress: Progress) {
        self.records.entry(key).or_default().progress = progress;
    }

    fn write(&mut self, key: Key, mark: Mark) {
        self.news.push(Entry { saga: key.saga, step: key.step, mark });
    }
}

fn done(key: Key) -> Served {
    Served::answer(200, json!({ "number": key.step }))
}

fn refused(code: &str) -> Served {
    Served::answer(422, json!({ "code": code, "detail": "no" }))
}

fn cancelled() -> Served {
    Served::answer(409, json!({ "outcome": "cancelled" }))
}

fn still_at_it(polls: bool) -> Served {
    let answer = Answer { status: 202, retry_after: polls.then_some(Millis(150)), location: None, body: Body::Empty };
    Served { answer, accepted: None, out_of_stock: false }
}

/// Steps are named `s0`, `s1`, .. in the order of their definition.
#[must_use]
pub fn step_index(step: &str) -> usize {
    step[1..].parse().expect("the catalog names its steps s0, s1, ..")
}
