//! Random definitions, random histories: whatever happens, the rules hold, and once the faults stop every saga ends.

use alloc::{collections::BTreeSet, format, string::String, vec, vec::Vec};

use proptest::prelude::*;
use serde_json::json;

use super::{
    world::{Fate, Mark, World},
    *,
};
use crate::definition::StepKind;

#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub needs: u8,
    pub condition: u8,
    pub no_effect: bool,
    pub status_call: bool,
    pub deadline: bool,
    pub compensated: bool,
}

#[derive(Clone, Debug)]
enum Happening {
    CallEnds { which: u8, fate: Fate },
    TimerFires,
    Crash,
    Reload,
    LateArrivals,
    Callback { which: u8, rejected: bool },
    Operator(u8),
}

pub(crate) fn shapes() -> impl Strategy<Value = (Vec<Shape>, Option<u8>)> {
    let shape = (any::<u8>(), 0_u8..8, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(needs, condition, no_effect, status_call, deadline, compensated)| Shape {
            needs,
            condition,
            no_effect: no_effect && status_call,
            status_call,
            deadline,
            compensated,
        },
    );
    (proptest::collection::vec(shape, 1..=6), proptest::option::of(0_u8..6))
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Fine),
        2 => Just(Fate::ReplyLost),
        1 => Just(Fate::RequestLost),
        2 => Just(Fate::Late),
        1 => Just(Fate::Duplicated),
        2 => Just(Fate::Refuse),
        1 => Just(Fate::Busy),
        1 => Just(Fate::Unconfigured),
        1 => Just(Fate::Unreachable),
        1 => Just(Fate::Accepted),
        1 => Just(Fate::InFlight),
        1 => Just(Fate::Deferred),
        1 => Just(Fate::GarbledBody),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        10 => (any::<u8>(), fate()).prop_map(|(which, fate)| Happening::CallEnds { which, fate }),
        3 => Just(Happening::TimerFires),
        1 => Just(Happening::Crash),
        1 => Just(Happening::Reload),
        1 => Just(Happening::LateArrivals),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(which, rejected)| Happening::Callback { which, rejected }),
        1 => any::<u8>().prop_map(Happening::Operator),
    ]
}

/// A valid document of that shape: all before the pivot are upstream of it, all after it downstream.
pub(crate) fn document(shapes: &[Shape], pivot: Option<u8>) -> Value {
    let pivot = pivot.map(|pivot| usize::from(pivot) % shapes.len());
    let steps = shapes.iter().enumerate().map(|(index, shape)| {
        let id = |index: usize| format!("s{index}");
        let needs: Vec<String> = match pivot {
            Some(pivot) if index == pivot => (0..index).map(id).collect(),
            Some(pivot) if index > pivot => {
                (pivot..index).filter(|need| *need == pivot || shape.needs >> need & 1 == 1).map(id).collect()
            }
            _ => (0..index).filter(|need| shape.needs >> need & 1 == 1).map(id).collect(),
        };
        let mut extra = json!({ "needs": needs });
        if shape.condition < 2 {
            extra["if"] = json!(["false", "input.n == 1"][usize::from(shape.condition)]);
        }
        let past = pivot.is_some_and(|pivot| index >= pivot);
        if shape.no_effect {
            extra["effect"] = json!("none");
        }
        if shape.no_effect || past && !shape.compensated {
            extra["compensate"] = Value::Null;
        }
        if shape.status_call {
            extra["status"] = json!({ "call": { "service": "s", "method": "GET", "path": "/status" } });
        }
        if shape.deadline {
            extra["deadline"] = json!("2s");
        }
        match pivot {
            Some(pivot) if index == pivot => extra["pivot"] = json!(true),
            Some(pivot) if index > pivot => extra["retriable"] = json!(true),
            _ => {}
        }
        super::step(&format!("s{index}"), extra)
    });
    let mut document = saga(steps.collect());
    document["deadline"] = json!("10s");
    document
}

struct History {
    saga: Driven,
    world: World,
    /// Steps whose effects an operator took upon himself.
    by_operator: BTreeSet<String>,
}

impl History {
    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::CallEnds { which, fate } => self.end_call(*which, *fate),
            Happening::TimerFires => {
                self.saga.tick_at_timer();
            }
            Happening::Crash => self.saga.crash(),
            // A saga with calls in flight is never evicted.
            Happening::Reload if self.saga.calls.is_empty() => self.saga.reload(),
            Happening::Reload => {}
            Happening::LateArrivals => self.world.deliver_late(),
            Happening::Callback { which, rejected } => self.call_back(*which, *rejected),
            Happening::Operator(choice) => self.operate(*choice),
        }
    }

    fn end_call(&mut self, which: u8, fate: Fate) {
        if self.saga.calls.is_empty() {
            return;
        }
        let call = self.saga.calls.remove(usize::from(which) % self.saga.calls.len());
        let result = self.world.deliver(&call, fate, self.saga.now);
        self.saga.now = self.saga.now.plus(Millis(5));
        self.saga.finish(&call, result);
    }

    /// A participant that has carried out (or refused) what it was asked for says so.
    fn call_back(&mut self, which: u8, rejected: bool) {
        if self.saga.calls.is_empty() {
            return;
        }
        let call = self.saga.calls[usize::from(which) % self.saga.calls.len()].clone();
        if call.purpose == Purpose::Status {
            return;
        }
        let fate = if rejected { Fate::Refuse } else { Fate::Fine };
        let outcome = match self.world.deliver(&call, fate, self.saga.now) {
            CallResult::Answered(answer) if answer.status == 200 => CallbackOutcome::Succeeded { output: json!({}) },
            _ => CallbackOutcome::Rejected { code: String::from("no"), reason: String::from("no") },
        };
        let callback = Callback { step: String::from(&*call.step), operation: call.operation, outcome };
        let _ = self.saga.input(Input::Callback(callback));
    }

    fn operate(&mut self, choice: u8) {
        let steps = &self.saga.state.steps;
        let target = &steps[usize::from(choice / 8) % steps.len()];
        let id = String::from(&*target.id);
        let acting = target.status.operation() == Some(Operation::Action);
        let standing = self.world.effects_standing(&id) > 0;
        let action = match choice % 8 {
            0 | 1 => OperatorAction::Retry { step: None },
            2 => OperatorAction::Compensate,
            3 if choice > 200 => OperatorAction::Abandon,
            4 => OperatorAction::Skip { step: id.clone(), output: None },
            5 if acting && standing => OperatorAction::Resolve {
                step: id.clone(),
                resolution: operator::Resolution::Succeeded { output: None },
            },
            _ => return,
        };
        let skips = matches!(action, OperatorAction::Skip { .. });
        if self.saga.operate(action).is_ok() && skips {
            self.by_operator.insert(id);
        }
    }

    /// No more faults: everything is served, and an operator retries what is parked.
    fn heal(&mut self) {
        for round in 0..400 {
            if self.saga.state.status.is_ended() {
                return;
            }
            if !self.saga.calls.is_empty() {
                self.end_call(0, Fate::Fine);
            } else if !self.saga.tick_at_timer() {
                // An operation that cannot be done (no compensation) is closed; anything else works now.
                let retry = OperatorAction::Retry { step: None };
                if round < 300 && self.saga.operate(retry).is_ok() && !self.saga.calls.is_empty() {
                    continue;
                }
                let parked = self.saga.state.steps.iter().find(|step| step.is_parked()).unwrap();
                let step = String::from(&*parked.id);
                self.by_operator.insert(step.clone());
                self.saga.operate(OperatorAction::Skip { step, output: None }).unwrap();
            }
        }
        panic!("invariant 2: not ended long after the faults stopped: {:#?}", self.saga.state);
    }

    fn check(&mut self) {
        self.world.deliver_late();
        for step in &self.saga.definition.steps {
            let (effects, undone) = (self.world.count(&step.id, Mark::Effect), self.world.count(&step.id, Mark::Undo));
            assert!(effects <= 1 && undone <= effects, "{}: {effects} effects, {undone} undone", step.id);
            let state = self.saga.state.step(&step.id).unwrap();
            if self.by_operator.contains(&step.id) {
                continue;
            }
            match self.saga.state.status {
                Status::Completed => {
                    let expected = usize::from(state.status == StepStatus::Succeeded);
                    assert_eq!((effects, undone), (expected, 0), "invariant 3: {}", step.id);
                }
                Status::Compensated if step.has_effect => {
                    assert_eq!(effects, undone, "invariant 4: {} in {:?}", step.id, self.saga.kinds());
                }
                _ => {}
            }
        }
        self.check_order();
        assert!(self.saga.input(Input::Tick).is_ok(), "ended sagas take ticks");
        assert!(self.saga.operate(OperatorAction::Compensate).is_err(), "invariant 6");
    }

    /// Invariant 4: no step is undone before what depends on it. A compensation that an operator closed while a lost
    /// request for it was on its way is his.
    fn check_order(&self) {
        let when = |step: &str| self.world.ledger.iter().position(|(of, mark)| of == step && *mark == Mark::Undo);
        for step in self.saga.definition.steps.iter().filter(|step| !self.by_operator.contains(&step.id)) {
            for need in &step.needs {
                let earlier = &self.saga.definition.steps[*need];
                if let (Some(undone), Some(need_undone)) = (when(&step.id), when(&earlier.id)) {
                    assert!(undone < need_undone, "invariant 4: {} was undone before {}", earlier.id, step.id);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_invariants_and_ends(
        (shapes, pivot) in shapes(),
        happenings in proptest::collection::vec(happening(), 0..60),
    ) {
        let document = document(&shapes, pivot);
        let saga = Driven::start(&document);
        let mut history = History { saga, world: World::default(), by_operator: BTreeSet::new() };
        for happening in &happenings {
            history.happen(happening);
        }
        history.heal();
        history.check();
    }
}

#[test]
fn the_generator_reaches_every_kind_of_step() {
    let shape =
        Shape { needs: 0xff, condition: 7, no_effect: false, status_call: true, deadline: true, compensated: true };
    let definition = definition(&document(&vec![shape; 3], Some(1)));
    let kinds: Vec<StepKind> = definition.steps.iter().map(|step| step.kind).collect();
    assert_eq!(kinds, [StepKind::Compensable, StepKind::Pivot, StepKind::Retriable]);
}
