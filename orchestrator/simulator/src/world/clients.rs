//! Whoever asks a replica for something: clients that start sagas, participants that call back, operators.
//!
//! | a start | gets | and then |
//! | --- | --- | --- |
//! | with a key | a saga | is done; the saga must exist for ever |
//! | with a key | a refusal, or nothing in time | asks again under the same key |
//! | without a key | a plain refusal | asks again |
//! | without a key | "in doubt", or nothing in time | gives up: it may exist |

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;
use skald_core::{
    decide::{Input, OperatorAction, OperatorCommand, Resolution},
    definition::Definition,
    event::Mode,
    ids::SagaId,
    shard::writer::{Refusal, StartRequest},
    state::Status,
    time::Timestamp,
};

use super::{
    Happening, World,
    replica::{Answered, Ask, Message},
};
use crate::{
    faults::Fault,
    trace::{short, word},
};

/// How often an operator tries to get a parked saga going before it leaves it.
const OPERATIONS_MAX: u32 = 14;
/// After so many retries of a step that parks again, it is skipped.
const RETRIES_MAX: u32 = 3;

#[derive(Debug)]
struct Wish {
    definition: Arc<Definition>,
    mode: Mode,
    key: Option<String>,
    settled: bool,
}

/// What a request was for.
#[derive(Clone, Debug)]
pub enum Purpose {
    Start {
        wish: usize,
    },
    Callback(Ask),
    Operation,
    /// A participant's report, from its outbox.
    Report {
        reactor: usize,
        run: u64,
        entry: u64,
    },
}

#[derive(Debug)]
struct Asked {
    purpose: Purpose,
    /// Whether its end, good or bad, is still waited for.
    open: bool,
    /// Whether the answer gets lost.
    mute: bool,
}

#[derive(Debug, Default)]
pub struct Clients {
    wishes: Vec<Wish>,
    requests: BTreeMap<u64, Asked>,
    count: u64,
    /// How often an operator has seen to a saga.
    operations: BTreeMap<SagaId, u32>,
}

impl Clients {
    pub fn is_settled(&self) -> bool {
        self.wishes.iter().all(|wish| wish.settled)
    }
}

/// What somebody sets out to do.
#[derive(Debug)]
pub enum Errand {
    Start {
        wish: usize,
    },
    CallBack(Ask),
    /// An operator does something to some saga.
    OperateAtRandom,
    /// A request was not answered in time.
    GiveUp {
        request: u64,
    },
}

impl World {
    pub(super) fn plan_start(&mut self, at: Timestamp) {
        let definition = Arc::clone(&self.definitions[self.chance.index(self.definitions.len())]);
        let wish = self.clients.wishes.len();
        let key = (!self.chance.one_in(3)).then(|| format!("{}-{}", definition.name, wish));
        let mode = self.draw_mode(&definition);
        self.clients.wishes.push(Wish { definition, mode, key, settled: false });
        self.agenda.put(at, Happening::Errand(Errand::Start { wish }));
    }

    pub(super) fn run_errand(&mut self, errand: Errand) {
        match errand {
            Errand::Start { wish } => self.ask_to_start(wish),
            Errand::CallBack(ask) => self.ask_back(ask),
            Errand::OperateAtRandom => self.operate_at_random(),
            Errand::GiveUp { request } => self.give_up(request),
        }
    }

    fn ask_to_start(&mut self, wish: usize) {
        if self.clients.wishes[wish].settled {
            return;
        }
        self.ask(Purpose::Start { wish });
        let keyed = self.clients.wishes[wish].key.is_some();
        if keyed && !self.calm && self.chance.one_in(8) {
            self.faults.count(Fault::StartRepeated);
            self.ask(Purpose::Start { wish });
        }
    }

    fn start_request(&mut self, wish: usize) -> StartRequest {
        let entropy = self.chance.entropy();
        let Wish { definition, mode, key, .. } = &self.clients.wishes[wish];
        let correlation_id = key.as_ref().map_or_else(|| format!("wish:{wish}"), |key| format!("key:{key}"));
        StartRequest {
            definition: Arc::clone(definition),
            mode: *mode,
            input: json!({"n": 1}).into(),
            key: key.clone().map(|key| (key, [0; 32])),
            correlation_id,
            traceparent: None,
            subject: None,
            entropy,
        }
    }

    /// Sends a request to some replica that runs, and sees to it that it is not waited for forever.
    fn ask(&mut self, purpose: Purpose) {
        let ask = match &purpose {
            Purpose::Start { wish } => Ask::Start(Box::new(self.start_request(*wish))),
            Purpose::Callback(ask) => ask.clone(),
            Purpose::Operation | Purpose::Report { .. } => unreachable!("they bring their own request"),
        };
        let at = self.after(1, 10);
        self.ask_at(at, purpose, ask, false);
    }

    /// Has a request arrive at some replica at this time; with `mute`, its answer gets lost.
    pub(super) fn ask_at(&mut self, at: Timestamp, purpose: Purpose, ask: Ask, mute: bool) {
        self.clients.count += 1;
        let request = self.clients.count;
        let running: Vec<usize> = (0..self.replicas.len()).filter(|index| self.replicas[*index].is_up()).collect();
        let index = if running.is_empty() { 0 } else { self.chance.pick(&running) };
        let to = self.replicas[index].process;
        self.clients.requests.insert(request, Asked { purpose, open: true, mute });
        let patience = self.after(1500, 2500);
        let message = Message::Asked { request, ask, forwarded: false };
        self.agenda.put(at, Happening::Deliver { to, message });
        self.agenda.put(patience, Happening::Errand(Errand::GiveUp { request }));
    }

    /// A replica answers; the answer may not arrive.
    pub(super) fn reply(&mut self, request: u64, answer: Answered) {
        let mute = self.clients.requests.get(&request).is_some_and(|asked| asked.mute);
        if mute || !self.calm && self.chance.one_in(20) {
            return self.faults.count(Fault::ClientReplyLost);
        }
        let at = self.after(1, 10);
        self.agenda.put(at, Happening::Answer { request, answer: Box::new(answer) });
    }

    pub(super) fn answer(&mut self, request: u64, answer: Answered) {
        let Some(asked) = self.clients.requests.get_mut(&request) else { return };
        let open = core::mem::replace(&mut asked.open, false);
        let purpose = asked.purpose.clone();
        self.tell([40, request, u64::from(answer.is_ok())], || match &answer {
            Ok(row) => format!("request {request} is answered: {} is {}", short(row.id), row.status),
            Err(refusal) => format!("request {request} is answered: {refusal}"),
        });
        match purpose {
            Purpose::Start { wish } => self.start_answered(wish, answer, open),
            Purpose::Callback(ask) if open => self.callback_answered(ask, &answer),
            Purpose::Report { reactor, run, entry } => self.report_answered(reactor, run, entry, answer),
            Purpose::Callback(_) | Purpose::Operation => {}
        }
    }

    fn start_answered(&mut self, wish: usize, answer: Answered, open: bool) {
        let Wish { definition, key, .. } = &self.clients.wishes[wish];
        let key = key.clone();
        let known = match (&answer, &key) {
            (Ok(row), _) => Some(row.id),
            // The API looks up the saga that has the key.
            (Err(Refusal::KeyExists), Some(key)) => self.store.keyed(&Arc::from(definition.name.as_str()), key),
            (Err(_), _) => None,
        };
        if let Some(saga) = known {
            self.watch.acknowledged(saga, key.as_deref());
            self.clients.wishes[wish].settled = true;
        } else if key.is_none() && answer == Err(Refusal::InDoubt) {
            self.clients.wishes[wish].settled = true;
        } else if open {
            let at = self.after(100, 700);
            self.agenda.put(at, Happening::Errand(Errand::Start { wish }));
        }
    }

    fn give_up(&mut self, request: u64) {
        let Some(asked) = self.clients.requests.get_mut(&request) else { return };
        if !core::mem::replace(&mut asked.open, false) {
            return;
        }
        match asked.purpose.clone() {
            Purpose::Start { wish } if self.clients.wishes[wish].key.is_none() => {
                self.clients.wishes[wish].settled = true;
            }
            Purpose::Start { wish } => self.ask_to_start(wish),
            Purpose::Callback(ask) => self.call_back_again(ask),
            Purpose::Report { reactor, run, entry } => self.post_again(reactor, run, entry),
            Purpose::Operation => {}
        }
    }

    fn ask_back(&mut self, ask: Ask) {
        if !self.calm && self.chance.one_in(5) {
            self.faults.count(Fault::CallbackLost);
            let at = self.after(500, 1500);
            return self.agenda.put(at, Happening::Errand(Errand::CallBack(ask)));
        }
        self.ask(Purpose::Callback(ask));
    }

    fn callback_answered(&mut self, ask: Ask, answer: &Answered) {
        match answer {
            Ok(_) => self.on_the_way -= 1,
            Err(Refusal::Illegal(_)) => {
                self.faults.count(Fault::CallbackTooLate);
                self.on_the_way -= 1;
            }
            Err(_) => self.call_back_again(ask),
        }
    }

    fn call_back_again(&mut self, ask: Ask) {
        let at = self.after(300, 900);
        self.agenda.put(at, Happening::Errand(Errand::CallBack(ask)));
    }

    fn operate_at_random(&mut self) {
        if self.watch.sagas.is_empty() {
            return;
        }
        let which = self.chance.index(self.watch.sagas.len());
        let (saga, observed) = self.watch.sagas.iter().nth(which).expect("there are more than that");
        let saga = *saga;
        let steps: Vec<String> = observed.definition.steps.iter().map(|step| step.id.clone()).collect();
        let revision = observed.state.version;
        let step = steps[self.chance.index(steps.len())].clone();
        let output = Some(json!({ "number": 1 }));
        let action = match self.chance.below(8) {
            0 | 1 => OperatorAction::Compensate,
            2 => OperatorAction::Retry { step: None },
            3 => OperatorAction::Retry { step: Some(step) },
            4 => OperatorAction::Skip { step, output },
            5 => OperatorAction::Resolve { step, resolution: Resolution::Succeeded { output } },
            6 => OperatorAction::Resolve { step, resolution: Resolution::Rejected },
            _ => OperatorAction::Abandon,
        };
        self.faults.count(Fault::OperatorCommand);
        let expected = self.chance.one_in(3).then_some(revision);
        self.operate(saga, action, expected);
    }

    fn operate(&mut self, saga: SagaId, action: OperatorAction, expected_revision: Option<u64>) {
        self.tell([41, word(saga), 0], || format!("operator: {action:?} of {}", short(saga)));
        let input = Input::Operator(OperatorCommand {
            actor: "ada".to_owned(),
            reason: "because".to_owned(),
            correlation_id: None,
            request_id: None,
            expected_revision,
            action,
        });
        let at = self.after(1, 10);
        self.ask_at(at, Purpose::Operation, Ask::Input { saga, input: Box::new(input) }, false);
    }

    pub(super) fn is_left_parked(&self, saga: SagaId) -> bool {
        !self.attended || self.clients.operations.get(&saga).is_some_and(|count| *count >= OPERATIONS_MAX)
    }

    /// An operator sees to what is parked: retries it, and after some times leaves out what parks again.
    pub(super) fn attend(&mut self) {
        let parked = self.watch.sagas.iter().filter(|(_, observed)| observed.state.status == Status::Parked);
        let parked: Vec<(SagaId, Option<String>)> = parked
            .map(|(saga, observed)| {
                let step = observed.state.steps.iter().find(|step| step.is_parked());
                (*saga, step.map(|step| step.id.to_string()))
            })
            .collect();
        for (saga, step) in parked {
            if self.is_left_parked(saga) {
                continue;
            }
            let count = self.clients.operations.entry(saga).or_default();
            *count += 1;
            let action = match step {
                Some(step) if *count > RETRIES_MAX => {
                    OperatorAction::Skip { step, output: Some(json!({ "number": 1 })) }
                }
                _ => OperatorAction::Retry { step: None },
            };
            self.operate(saga, action, None);
        }
    }
}
