//! Participants as they should be: one effect per key, stored answers, tombstones. With a ledger that nobody can talk
//! them out of, and a network that loses, delays and duplicates.

use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec::Vec,
};

use serde_json::json;

use super::*;
use crate::ids::Operation;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Effect,
    Undo,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Key {
    #[default]
    Unseen,
    Done,
    Refused,
    Tombstone,
    Undone,
}

/// What the network and the participant do to one request.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    Fine,
    ReplyLost,
    RequestLost,
    /// It arrives after everybody gave up on it.
    Late,
    Duplicated,
    Refuse,
    Busy,
    Unconfigured,
    Unreachable,
    Accepted,
    InFlight,
    Deferred,
    GarbledBody,
}

#[derive(Debug, Default)]
pub struct World {
    keys: BTreeMap<String, Key>,
    pub ledger: Vec<(String, Mark)>,
    late: Vec<Invoke>,
}

impl World {
    pub fn deliver(&mut self, call: &Invoke, fate: Fate, now: Timestamp) -> CallResult {
        let reading = call.purpose == Purpose::Status;
        match fate {
            Fate::Fine => self.serve(call),
            Fate::Duplicated => {
                self.serve(call);
                self.serve(call)
            }
            Fate::ReplyLost => {
                self.serve(call);
                timed_out()
            }
            Fate::RequestLost => timed_out(),
            Fate::Late => {
                self.late.push(call.clone());
                timed_out()
            }
            Fate::Refuse if reading => answered(404, json!({})),
            Fate::Refuse => self.refuse(call),
            Fate::Busy => answered(503, json!({})),
            Fate::Unconfigured => answered(404, json!({})),
            Fate::Unreachable => refused_connection(),
            Fate::Accepted => CallResult::Answered(Answer {
                status: 202,
                retry_after: Some(Millis(50)),
                location: None,
                body: Body::Empty,
            }),
            Fate::InFlight => answered(409, json!({})),
            Fate::Deferred => {
                CallResult::Deferred { until: now.plus(Millis(30)), why: String::from("the circuit is open") }
            }
            Fate::GarbledBody => match self.serve(call) {
                CallResult::Answered(answer) if answer.status == 200 => {
                    CallResult::Answered(Answer { body: Body::Unusable(String::from("not JSON")), ..answer })
                }
                other => other,
            },
        }
    }

    /// Requests that everybody gave up on arrive after all.
    pub fn deliver_late(&mut self) {
        for call in core::mem::take(&mut self.late) {
            self.serve(&call);
        }
    }

    pub fn effects_standing(&self, step: &str) -> usize {
        self.count(step, Mark::Effect) - self.count(step, Mark::Undo)
    }

    pub fn count(&self, step: &str, mark: Mark) -> usize {
        self.ledger.iter().filter(|(of, kind)| of == step && *kind == mark).count()
    }

    fn serve(&mut self, call: &Invoke) -> CallResult {
        let step = call.step.to_string();
        let key = self.keys.entry(step.clone()).or_default();
        if call.purpose == Purpose::Status {
            return match key {
                Key::Done => answered(200, json!({})),
                Key::Refused => answered(422, json!({})),
                Key::Unseen | Key::Tombstone | Key::Undone => answered(404, json!({})),
            };
        }
        match (call.operation, *key) {
            (Operation::Action, Key::Unseen) => {
                *key = Key::Done;
                self.ledger.push((step, Mark::Effect));
                answered(200, json!({}))
            }
            (Operation::Action, Key::Done) => answered(200, json!({})),
            (Operation::Action, Key::Refused) => answered(422, json!({})),
            (Operation::Action, Key::Tombstone | Key::Undone) => answered(409, json!({"outcome": "cancelled"})),
            (Operation::Compensation, Key::Done) => {
                *key = Key::Undone;
                self.ledger.push((step, Mark::Undo));
                answered(200, json!({}))
            }
            (Operation::Compensation, Key::Unseen | Key::Refused) => {
                *key = Key::Tombstone;
                answered(200, json!({}))
            }
            (Operation::Compensation, Key::Tombstone | Key::Undone) => answered(200, json!({})),
        }
    }

    fn refuse(&mut self, call: &Invoke) -> CallResult {
        let key = self.keys.entry(call.step.to_string()).or_default();
        match (call.operation, *key) {
            (Operation::Action, Key::Unseen) => {
                *key = Key::Refused;
                answered(422, json!({"code": "out_of_stock", "detail": "none left"}))
            }
            (Operation::Action, _) => self.serve(call),
            (Operation::Compensation, _) => answered(422, json!({"code": format!("no_{}", call.step)})),
        }
    }
}
