//! Calls to participants and their callbacks, over a network that loses, repeats, delays and overtakes.

use std::sync::Arc;

use serde_json::Value;
use skald_core::{
    classify::{Answer, Body, CallResult},
    decide::{Callback, CallbackOutcome, Input, Invoke},
    ids::Operation,
    time::Timestamp,
};

use super::{
    Happening, World,
    clients::Errand,
    replica::{Ask, Message},
};
use crate::{
    faults::Fault,
    participants::{Served, Treatment, step_index},
    store::Process,
    trace::{short, word, word_of},
};

/// One copy of a request on its way to a participant, or the work that it led to.
#[derive(Clone, Debug)]
pub struct Request {
    pub invoke: Arc<Invoke>,
    pub from: Process,
    pub treatment: Treatment,
    /// By the caller's clock.
    started_at: Timestamp,
    answer: AnswerFate,
    /// The caller dies when the request has had its effect.
    kills_caller: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerFate {
    Whole,
    Garbled,
    /// The caller has given up, or will.
    Lost,
}

/// When the copies of a request arrive, and what comes back.
struct Journey {
    arrivals: Vec<Timestamp>,
    answer: AnswerFate,
}

impl World {
    pub(super) fn call(&mut self, index: usize, invoke: Invoke) {
        let from = self.replicas[index].process;
        let trouble = self.director.call(&invoke, &mut self.chance, self.calm);
        for fault in [trouble.on_the_way, trouble.crash].into_iter().flatten() {
            self.faults.count(fault);
        }
        let code = trouble.on_the_way.or(trouble.crash).map_or(0, |fault| fault as u64 + 1);
        self.tell([30, word(invoke.saga) ^ word_of(&invoke.key), code], || {
            let faults: Vec<&str> =
                [trouble.on_the_way, trouble.crash].into_iter().flatten().map(Fault::name).collect();
            let (purpose, attempt, step) = (invoke.purpose, invoke.attempt, &invoke.step);
            let saga = short(invoke.saga);
            format!("{from} calls {saga} {step} {} ({purpose:?} {attempt}) {faults:?}", invoke.operation)
        });
        if trouble.is(Fault::CrashBeforeCall) || trouble.is(Fault::Poison) {
            return self.crash(index, "before its call");
        }
        let started_at = self.replicas[index].estimate(self.now);
        let (saga, step, call) = (invoke.saga, Arc::clone(&invoke.step), invoke.call);
        self.replicas[index].calls.insert(call, saga);
        let ended = |result| Message::CallEnded { saga, step, call, started_at, result };
        let unsent = match trouble.on_the_way {
            Some(Fault::NotSent) => Some(CallResult::NotSent { error: "connection refused".to_owned() }),
            Some(Fault::Deferred) => {
                let until = started_at.plus(self.chance.millis(30, 400));
                Some(CallResult::Deferred { until, why: "the circuit is open".to_owned() })
            }
            _ => None,
        };
        if let Some(result) = unsent {
            let at = self.after(0, 2);
            return self.agenda.put(at, Happening::Deliver { to: from, message: ended(result) });
        }
        self.watch.called(&invoke, from, &self.store, self.now);
        let timeout_at = self.now.plus(invoke.timeout);
        let journey = self.journey(trouble.on_the_way, timeout_at);
        if journey.answer == AnswerFate::Lost {
            let result = CallResult::MaybeSent { error: "timed out".to_owned() };
            self.agenda.put(timeout_at, Happening::Deliver { to: from, message: ended(result) });
        }
        let treatment = self.treatment(&invoke, trouble.on_the_way);
        let kills_caller = trouble.is(Fault::CrashAfterEffect);
        let (invoke, answer) = (Arc::new(invoke), journey.answer);
        for at in journey.arrivals {
            let request = Request { invoke: Arc::clone(&invoke), from, treatment, started_at, answer, kills_caller };
            self.on_the_way += 1;
            self.agenda.put(at, Happening::Call(Box::new(request)));
        }
        if trouble.is(Fault::CrashDuringCall) {
            self.crash(index, "with a call on its way");
        }
    }

    fn journey(&mut self, fault: Option<Fault>, timeout_at: Timestamp) -> Journey {
        let soon = self.after(1, 20);
        let (arrivals, answer) = match fault {
            Some(Fault::RequestLost) => (vec![], AnswerFate::Lost),
            Some(Fault::ReplyLost) => (vec![soon], AnswerFate::Lost),
            Some(Fault::Duplicated) => (vec![soon, self.after(1, 3000)], AnswerFate::Whole),
            Some(Fault::Delayed) => (vec![self.after(100, 1500)], AnswerFate::Whole),
            Some(Fault::Late) => {
                let over = self.after(50, 8000);
                let late = timeout_at.plus(self.now.until(over));
                (vec![late], AnswerFate::Lost)
            }
            Some(Fault::Garbled) => (vec![soon], AnswerFate::Garbled),
            _ => (vec![soon], AnswerFate::Whole),
        };
        // An answer after the time-out finds nobody; leave it time for its way back.
        let too_late = arrivals.iter().all(|at| at.plus(skald_core::time::Millis(20)) >= timeout_at);
        Journey { arrivals, answer: if too_late { AnswerFate::Lost } else { answer } }
    }

    fn treatment(&self, invoke: &Invoke, fault: Option<Fault>) -> Treatment {
        let observed = self.watch.sagas.get(&invoke.saga);
        let has_effect =
            observed.is_some_and(|observed| observed.definition.steps[step_index(&invoke.step)].has_effect);
        Treatment { fault, has_effect }
    }

    pub(super) fn reach_participant(&mut self, request: Request) {
        self.on_the_way -= 1;
        let invoke = &request.invoke;
        let served = self.participants.serve(invoke, request.treatment);
        let status = served.answer.status;
        self.tell([31, word(invoke.saga), u64::from(status)], || {
            format!("{} of {} {} arrives: {status}", invoke.operation, short(invoke.saga), invoke.step)
        });
        self.read_books();
        if served.out_of_stock {
            self.faults.count(Fault::OutOfStock);
        }
        if served.accepted.is_some() {
            let at = self.after(10, 1500);
            self.on_the_way += 1;
            self.agenda.put(at, Happening::Work(Box::new(request.clone())));
        }
        if request.kills_caller {
            return self.crash_process(request.from, "after the effect of its call");
        }
        self.send_answer(&request, served);
    }

    fn send_answer(&mut self, request: &Request, served: Served) {
        let answer = match request.answer {
            AnswerFate::Lost => return,
            AnswerFate::Garbled if served.answer.status == 200 => {
                Answer { body: Body::Unusable("not JSON".to_owned()), ..served.answer }
            }
            AnswerFate::Garbled | AnswerFate::Whole => served.answer,
        };
        let Invoke { saga, step, call, .. } = &*request.invoke;
        let message = Message::CallEnded {
            saga: *saga,
            step: Arc::clone(step),
            call: *call,
            started_at: request.started_at,
            result: CallResult::Answered(answer),
        };
        let at = self.after(1, 20);
        self.agenda.put(at, Happening::Deliver { to: request.from, message });
    }

    /// The witness sees what the participants wrote, and whether a key came with two requests.
    pub(super) fn read_books(&mut self) {
        for entry in core::mem::take(&mut self.participants.news) {
            self.tell([32, word(entry.saga), entry.step as u64], || {
                format!("    in the books of {}: s{} {:?}", short(entry.saga), entry.step, entry.mark)
            });
            self.watch.booked(entry);
        }
        if let Some(key) = self.participants.reused.take() {
            self.watch.came_otherwise(key);
        }
    }

    /// What was accepted has ended; whoever asked for it is called back unless it said that it polls.
    pub(super) fn finish_work(&mut self, request: Request) {
        self.on_the_way -= 1;
        let Request { invoke, treatment, .. } = request;
        let key = self.participants.key(&invoke);
        let refuse = !self.calm && self.chance.one_in(4) && invoke.operation == Operation::Action;
        let treatment = Treatment { fault: refuse.then_some(Fault::Refused), ..treatment };
        let Some(served) = self.participants.finish(key, invoke.operation, treatment) else { return };
        let status = served.answer.status;
        self.tell([33, word(invoke.saga), u64::from(status)], || {
            format!("{} of {} {} ends: {status}", invoke.operation, short(invoke.saga), invoke.step)
        });
        self.read_books();
        if key.is_polled() && self.chance.one_in(2) {
            return;
        }
        let callback =
            Callback { step: invoke.step.to_string(), operation: invoke.operation, outcome: outcome_of(served.answer) };
        let ask = Ask::Input { saga: invoke.saga, input: Box::new(Input::Callback(callback)) };
        self.call_back(ask);
    }

    /// A participant calls back until it is heard.
    fn call_back(&mut self, ask: Ask) {
        let late = !self.calm && self.chance.one_in(4);
        if late {
            self.faults.count(Fault::CallbackLate);
        }
        let at = if late { self.after(1000, 9000) } else { self.after(1, 20) };
        if !self.calm && self.chance.one_in(4) {
            self.faults.count(Fault::CallbackRepeated);
            let again = self.after(1, 3000);
            self.on_the_way += 1;
            self.agenda.put(again, Happening::Errand(Errand::CallBack(ask.clone())));
        }
        self.on_the_way += 1;
        self.agenda.put(at, Happening::Errand(Errand::CallBack(ask)));
    }
}

fn outcome_of(answer: Answer) -> CallbackOutcome {
    match (answer.status, answer.body) {
        (200, Body::Json(output)) => CallbackOutcome::Succeeded { output },
        (200, Body::Empty | Body::Unusable(_)) => CallbackOutcome::Succeeded { output: Value::Null },
        _ => CallbackOutcome::Rejected { code: "no".to_owned(), reason: "no".to_owned() },
    }
}
