//! Honest participants around one choreographed saga: each with a local database that survives it, a view of the stream
//! that may be old, and a ledger that nobody can talk them out of.

use alloc::{borrow::ToOwned, collections::BTreeMap, string::String, sync::Arc, vec::Vec};

use serde_json::json;

use crate::{
    choreography::{Duty, Followed, Follower, report_of},
    classify::Body,
    decide::{
        IllegalInput, Report, ReportedOutcome,
        tests::{Driven, report, reported, world::Mark},
    },
    definition::Definition,
    event::Mode,
    ids::Operation,
};
/// What a step's handler answers, whenever it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    Fine,
    Refuse,
    /// It takes effect and answers with what nobody can read.
    Garble,
}

/// What a participant's database holds of one step.
#[derive(Clone, Debug, Default)]
struct Record {
    /// Whether the action took effect, once it has ended.
    action: Option<bool>,
    /// The compensation was carried out, or its tombstone planted.
    undone: bool,
    undo_reported: bool,
}

#[derive(Debug)]
pub struct Reactor {
    service: String,
    follower: Follower,
    records: BTreeMap<String, Record>,
    pub outbox: Vec<Report>,
}

#[derive(Clone, Copy, Debug)]
pub enum PostFate {
    Fine,
    AnswerLost,
    Lost,
}

pub struct Play {
    pub saga: Driven,
    pub reactors: Vec<Reactor>,
    pub ledger: Vec<(String, Mark)>,
    script: BTreeMap<String, Script>,
}

impl Play {
    pub fn start(definition: Arc<Definition>, script: BTreeMap<String, Script>) -> Self {
        let saga = Driven::start_in(Mode::Choreographed, Arc::clone(&definition));
        let mut services: Vec<&str> = definition.steps.iter().map(|step| step.call.service.as_str()).collect();
        services.sort_unstable();
        services.dedup();
        let reactor = |service: &str| Reactor {
            service: service.to_owned(),
            follower: Follower::new(saga.state.id, Arc::clone(&definition)),
            records: BTreeMap::new(),
            outbox: Vec::new(),
        };
        Self { reactors: services.into_iter().map(reactor).collect(), saga, ledger: Vec::new(), script }
    }

    /// A reactor is told of one event, perhaps of one that it knows, or of one that comes too early.
    pub fn tell(&mut self, who: usize, version: u64) {
        let reactor = &mut self.reactors[who];
        let known = reactor.follower.version();
        let recorded = &self.saga.events[version as usize - 1];
        let event = &recorded.event;
        let followed = reactor.follower.follow(version, event.kind(), &event.data(), recorded.occurred_at).unwrap();
        let expected = match version {
            old if old <= known => Followed::Old,
            next if next == known + 1 => Followed::Applied,
            _ => Followed::Gap { expected: known + 1 },
        };
        assert_eq!(followed, expected);
    }

    /// A reactor reads on, `count` events at most.
    pub fn read(&mut self, who: usize, count: usize) -> bool {
        let from = self.reactors[who].follower.version();
        let to = (from + count as u64).min(self.saga.events.len() as u64);
        for version in from + 1..=to {
            self.tell(who, version);
        }
        from < to
    }

    /// A reactor's process dies: what it knew of the stream goes, its database stays.
    pub fn restart(&mut self, who: usize) {
        let reactor = &mut self.reactors[who];
        reactor.follower = Follower::new(self.saga.state.id, Arc::clone(&self.saga.definition));
    }

    /// A reactor carries out one of its duties, if it has not yet.
    pub fn act(&mut self, who: usize, which: usize) -> bool {
        let reactor = &mut self.reactors[who];
        let duties = reactor.follower.duties(&reactor.service);
        if duties.is_empty() {
            return false;
        }
        let duty = &duties[which % duties.len()];
        let record = reactor.records.entry(duty.step().to_owned()).or_default();
        let outcome = match duty {
            Duty::Undo { .. } if record.undo_reported => return false,
            Duty::Undo { step, .. } => {
                record.undo_reported = true;
                if !core::mem::replace(&mut record.undone, true) && record.action == Some(true) {
                    self.ledger.push((String::from(&**step), Mark::Undo));
                }
                ReportedOutcome::Compensated
            }
            _ if record.action.is_some() || record.undone => return false,
            Duty::Act { step, .. } => {
                let (status, body) = match self.script[&**step] {
                    Script::Fine => (200, Body::Json(json!({}))),
                    Script::Refuse => (422, Body::Json(json!({"code": "out_of_stock", "detail": "none left"}))),
                    Script::Garble => (200, Body::Unusable(String::from("not JSON"))),
                };
                record.action = Some(status == 200);
                if status == 200 {
                    self.ledger.push((String::from(&**step), Mark::Effect));
                }
                let (definition, state) = (reactor.follower.definition(), reactor.follower.state().unwrap());
                report_of(definition, state, step, Operation::Action, status, body).unwrap()
            }
            Duty::Skip { .. } => {
                record.action = Some(false);
                ReportedOutcome::Skipped
            }
            Duty::Reject { code, reason, .. } => {
                record.action = Some(false);
                ReportedOutcome::Rejected { code: code.clone(), reason: reason.clone() }
            }
            Duty::Cancel { .. } => {
                record.undone = true;
                ReportedOutcome::Cancelled
            }
        };
        let (step, operation) = (duty.step(), duty.operation());
        reactor.outbox.push(report(&self.saga, step, operation, outcome));
        true
    }

    /// One report of a reactor's outbox is posted. What is refused and said that there was an effect is undone here.
    pub fn post(&mut self, who: usize, which: usize, fate: PostFate) -> bool {
        let reactor = &mut self.reactors[who];
        if reactor.outbox.is_empty() {
            return false;
        }
        let which = which % reactor.outbox.len();
        let report = reactor.outbox[which].clone();
        let posted = match fate {
            PostFate::Lost => return false,
            PostFate::Fine | PostFate::AnswerLost => self.saga.input(reported([report.clone()])),
        };
        if matches!(fate, PostFate::AnswerLost) {
            return posted.is_ok();
        }
        reactor.outbox.remove(which);
        match posted {
            Ok(()) => {}
            Err(IllegalInput::NotUnderWay { .. } | IllegalInput::Ended(_)) => {
                let record = reactor.records.get_mut(&report.step).unwrap();
                let said_effect =
                    matches!(report.outcome, ReportedOutcome::Succeeded { .. } | ReportedOutcome::OutputInvalid { .. });
                if said_effect && !core::mem::replace(&mut record.undone, true) {
                    self.ledger.push((report.step.clone(), Mark::Undo));
                }
            }
            Err(other) => panic!("an honest report is refused: {other}: {report:?} in {:#?}", self.saga.state),
        }
        true
    }

    /// Everybody reads, acts and posts, until there is nothing more to do without time or an operator.
    pub fn settle(&mut self) -> bool {
        let mut any = false;
        loop {
            let mut busy = false;
            for who in 0..self.reactors.len() {
                busy |= self.read(who, usize::MAX >> 1);
                let duties = self.saga.definition.steps.len();
                for which in 0..duties {
                    busy |= self.act(who, which);
                }
                busy |= self.post(who, 0, PostFate::Fine);
            }
            if !busy {
                return any;
            }
            any = true;
        }
    }
}
