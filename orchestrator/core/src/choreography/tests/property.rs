//! Random definitions, participants that learn late, twice and out of order, and a writer that dies: every saga ends, the
//! invariants hold, and the end is the one that the orchestrated machine comes to.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    sync::Arc,
    vec::Vec,
};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::play::{Play, PostFate, Script};
use crate::{
    decide::{
        OperatorAction,
        tests::{
            Driven, definition,
            property::{Shape, document, shapes},
            world::{Fate, Mark, World},
        },
    },
    definition::{Definition, StepKind},
    event::Event,
    state::{Status, StepStatus},
};

#[derive(Clone, Debug)]
enum Happening {
    Read { who: u8, count: u8 },
    ToldAny { who: u8, version: u8 },
    Act { who: u8, which: u8 },
    Post { who: u8, which: u8, fate: PostFate },
    Restart(u8),
    TimerFires,
    WriterDies,
    Operator(u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    let fate = prop_oneof![4 => Just(PostFate::Fine), 1 => Just(PostFate::AnswerLost), 1 => Just(PostFate::Lost)];
    prop_oneof![
        8 => (any::<u8>(), 1_u8..4).prop_map(|(who, count)| Happening::Read { who, count }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(who, version)| Happening::ToldAny { who, version }),
        8 => (any::<u8>(), any::<u8>()).prop_map(|(who, which)| Happening::Act { who, which }),
        8 => (any::<u8>(), any::<u8>(), fate).prop_map(|(who, which, fate)| Happening::Post { who, which, fate }),
        1 => any::<u8>().prop_map(Happening::Restart),
        1 => Just(Happening::TimerFires),
        1 => Just(Happening::WriterDies),
        1 => any::<u8>().prop_map(Happening::Operator),
    ]
}

/// As [`document`], without what cannot be choreographed, over three services, and with expressions that fail.
fn choreographable(shapes: &[Shape], pivot: Option<u8>) -> Arc<Definition> {
    let pivot_at = pivot.map(|pivot| usize::from(pivot) % shapes.len());
    let shape = |(index, shape): (usize, &Shape)| Shape {
        status_call: false,
        deadline: false,
        compensated: shape.compensated || pivot_at == Some(index),
        ..shape.clone()
    };
    let shaped: Vec<Shape> = shapes.iter().enumerate().map(shape).collect();
    let mut document = document(&shaped, pivot);
    for (index, (step, shape)) in document["steps"].as_array_mut().unwrap().iter_mut().zip(&shaped).enumerate() {
        let service = json!(format!("s{}", index % 3));
        step["call"]["service"] = service.clone();
        if let Some(undo) = step.get_mut("compensate") {
            undo["call"]["service"] = service;
            if shape.condition == 7 {
                undo["call"]["body"] = json!({"why": "${saga.failure.code}"});
            }
        }
        if shape.condition == 2 {
            step["if"] = json!("input.missing == 1");
        }
    }
    let definition = definition(&document);
    assert_eq!(definition.not_choreographable(), []);
    definition
}

/// Handlers after the pivot are never refused for good.
fn script(definition: &Definition, drawn: &[u8]) -> BTreeMap<String, Script> {
    let scripted = definition.steps.iter().zip(drawn).map(|(step, drawn)| {
        let script = match drawn % 12 {
            _ if step.kind == StepKind::Retriable => Script::Fine,
            0 => Script::Refuse,
            1 => Script::Garble,
            _ => Script::Fine,
        };
        (step.id.clone(), script)
    });
    scripted.collect()
}

struct History {
    play: Play,
    /// Steps that an operator decided.
    by_operator: BTreeSet<String>,
    operated: bool,
}

impl History {
    fn happen(&mut self, happening: &Happening) {
        let reactors = self.play.reactors.len();
        let who = |who: &u8| usize::from(*who) % reactors;
        match happening {
            Happening::Read { who: reader, count } => {
                self.play.read(who(reader), usize::from(*count));
            }
            Happening::ToldAny { who: reader, version } => {
                let version = u64::from(*version) % self.play.saga.events.len() as u64 + 1;
                self.play.tell(who(reader), version);
            }
            Happening::Act { who: actor, which } => {
                self.play.act(who(actor), usize::from(*which));
            }
            Happening::Post { who: sender, which, fate } => {
                self.play.post(who(sender), usize::from(*which), *fate);
            }
            Happening::Restart(one) => self.play.restart(who(one)),
            Happening::TimerFires => {
                self.play.saga.tick_at_timer();
            }
            Happening::WriterDies => self.play.saga.crash(),
            Happening::Operator(choice) => self.operate(*choice),
        }
    }

    fn operate(&mut self, choice: u8) {
        let steps = &self.play.saga.state.steps;
        let step = String::from(&*steps[usize::from(choice / 8) % steps.len()].id);
        let action = match choice % 8 {
            0 | 1 => OperatorAction::Retry { step: None },
            2 => OperatorAction::Compensate,
            3 => OperatorAction::Skip { step: step.clone(), output: Some(json!({})) },
            4 => OperatorAction::Resolve { step: step.clone(), resolution: crate::decide::Resolution::Rejected },
            5 => OperatorAction::Resolve {
                step: step.clone(),
                resolution: crate::decide::Resolution::Succeeded { output: Some(json!({})) },
            },
            6 if choice > 200 => OperatorAction::Abandon,
            _ => return,
        };
        let decides = matches!(action, OperatorAction::Skip { .. } | OperatorAction::Resolve { .. });
        if self.play.saga.operate(action).is_ok() {
            self.operated = true;
            if decides {
                self.by_operator.insert(step);
            }
        }
    }

    /// No more faults. What is parked although everybody is there cannot be done, and an operator closes it.
    fn heal(&mut self) {
        for _ in 0..100 {
            self.play.settle();
            if self.play.saga.state.status.is_ended() {
                return;
            }
            let parked = self.play.saga.state.steps.iter().find(|step| step.is_parked());
            let Some(step) = parked.map(|step| String::from(&*step.id)) else {
                panic!("invariant 2: everybody has done what he owes and nothing ends: {:#?}", self.play.saga.state);
            };
            self.by_operator.insert(step.clone());
            let skip = OperatorAction::Skip { step, output: Some(json!({})) };
            self.play.saga.operate(skip).unwrap();
        }
        panic!("invariant 2: not ended long after the faults stopped: {:#?}", self.play.saga.state);
    }

    fn check(&mut self) {
        // Whatever was said before the end and is still on its way changes nothing, and nobody keeps an effect for himself.
        while self.play.settle() {}
        let Play { saga, ledger, .. } = &self.play;
        for step in &saga.definition.steps {
            let count = |mark| ledger.iter().filter(|(of, kind)| *of == step.id && *kind == mark).count();
            let (effects, undone) = (count(Mark::Effect), count(Mark::Undo));
            assert!(effects <= 1 && undone <= effects, "{}: {effects} effects, {undone} undone", step.id);
            let effect_first =
                ledger.iter().find(|(of, _)| *of == step.id).is_none_or(|(_, mark)| *mark == Mark::Effect);
            assert!(effect_first, "invariant 5: {}", step.id);
            if self.by_operator.contains(&step.id) {
                continue;
            }
            let status = saga.state.step(&step.id).unwrap().status;
            match saga.state.status {
                Status::Completed => {
                    let expected = usize::from(status == StepStatus::Succeeded);
                    assert_eq!((effects, undone), (expected, 0), "invariant 3: {}", step.id);
                }
                Status::Compensated if step.has_effect => {
                    assert_eq!(effects, undone, "invariant 4: {} in {:?}", step.id, saga.kinds());
                }
                _ => {}
            }
        }
        self.check_order();
        self.check_stream();
        assert!(self.play.saga.operate(OperatorAction::Compensate).is_err(), "invariant 6");
    }

    /// Invariant 4: no step is undone before what depends on it, but for what an operator closed while its owner was at it.
    fn check_order(&self) {
        let Play { saga, ledger, .. } = &self.play;
        let when = |step: &str| ledger.iter().position(|(of, mark)| of == step && *mark == Mark::Undo);
        let own = |step: &&crate::definition::Step| !self.by_operator.contains(&step.id);
        for step in saga.definition.steps.iter().filter(own) {
            for earlier in step.needs.iter().map(|need| &saga.definition.steps[*need]).filter(own) {
                if let (Some(undone), Some(need_undone)) = (when(&step.id), when(&earlier.id)) {
                    let abandoned = saga.state.status == Status::Abandoned;
                    assert!(undone < need_undone || abandoned, "invariant 4: {} before {}", earlier.id, step.id);
                }
            }
        }
    }

    /// Every event that came from outside has a name of its own, and nobody announced anything.
    fn check_stream(&self) {
        let kinds = self.play.saga.kinds();
        assert!(
            !kinds.iter().any(|kind| matches!(*kind, "StepStarted" | "StepUnknown" | "AttemptFailed")),
            "{kinds:?}"
        );
        assert!(self.play.saga.calls.is_empty(), "nobody is called");
        assert!(kinds.iter().filter(|kind| **kind == "SagaFailed").count() <= 1, "{kinds:?}");
    }
}

/// The same business outcomes, orchestrated and without faults.
fn orchestrated(definition: Arc<Definition>, script: &BTreeMap<String, Script>) -> Driven {
    let mut saga = Driven::start_of(definition);
    let mut world = World::default();
    while !saga.state.status.is_ended() {
        if saga.calls.is_empty() {
            let parked = saga.state.steps.iter().find(|step| step.is_parked()).expect("something is parked");
            let step = String::from(&*parked.id);
            saga.operate(OperatorAction::Skip { step, output: Some(json!({})) }).unwrap();
            continue;
        }
        let call = saga.calls.remove(0);
        let fate = match (call.operation, script[&*call.step]) {
            (crate::ids::Operation::Compensation, _) | (_, Script::Fine) => Fate::Fine,
            (_, Script::Refuse) => Fate::Refuse,
            (_, Script::Garble) => Fate::GarbledBody,
        };
        let result = world.deliver(&call, fate, saga.now);
        saga.finish(&call, result);
    }
    saga
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn honest_participants_bring_every_saga_to_the_end_that_an_orchestrator_would(
        (shapes, pivot) in shapes(),
        drawn in proptest::collection::vec(any::<u8>(), 6),
        happenings in proptest::collection::vec(happening(), 0..80),
    ) {
        let definition = choreographable(&shapes, pivot);
        let script = script(&definition, &drawn);
        let play = Play::start(Arc::clone(&definition), script.clone());
        let mut history = History { play, by_operator: BTreeSet::new(), operated: false };
        for happening in &happenings {
            history.happen(happening);
        }
        history.heal();
        history.check();
        let saga = &history.play.saga;
        let late = saga.events.iter().any(|recorded| matches!(recorded.event, Event::SagaTimedOut(_)));
        if !history.operated && !late && !saga.kinds().contains(&"StepParked") {
            let other = orchestrated(definition, &script);
            prop_assert_eq!(saga.state.status, other.state.status, "invariant 13");
            let in_a_row = saga.definition.steps.windows(2).enumerate().all(|(at, pair)| pair[1].needs.contains(&at));
            if in_a_row || saga.state.status == Status::Completed {
                prop_assert_eq!(steps(saga), steps(&other), "invariant 13");
                prop_assert_eq!(saga.state.row(&saga.definition).state, other.state.row(&other.definition).state);
                prop_assert_eq!(&saga.state.failure, &other.state.failure);
            }
        }
    }
}

fn steps(saga: &Driven) -> Vec<(StepStatus, Option<Value>)> {
    saga.state.steps.iter().map(|step| (step.status, step.output.as_deref().cloned())).collect()
}
