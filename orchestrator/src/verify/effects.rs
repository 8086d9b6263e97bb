//! Invariants 1, 3, 4 and 5 for ended sagas, from what the services' ledgers say: what took effect, what was undone, in
//! which order. The definition tells what should have.
//!
//! Of invariant 1 a ledger shows only that an undo gives back what the effect took. Whether a service's stock or money
//! adds up, only the service can tell.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use skald_core::{
    definition::{Definition, Step},
    ids::SagaId,
    state::{Status, StepStatus},
    time::Millis,
};

use super::{
    report::{Findings, Violation},
    sagas::EndedSaga,
};
use crate::storage::scratch::Effect;

/// Takes the ledgers' entries of one page of sagas, saga by saga.
#[derive(Debug)]
pub struct Reconciler<'a> {
    known: &'a BTreeMap<SagaId, Option<EndedSaga>>,
    /// Ids among which sagas were removed.
    removed: &'a [(SagaId, SagaId)],
    asked: &'a BTreeSet<String>,
    clock_skew: Millis,
    findings: &'a mut Findings,
    /// By saga, and by the step's place in the definition.
    traces: BTreeMap<SagaId, BTreeMap<usize, Trace>>,
    /// The last saga that was told of as unknown.
    stranger: Option<String>,
}

/// The effects of one step of one saga.
#[derive(Clone, Debug, Default)]
struct Trace {
    actions: u32,
    undos: u32,
    /// What the service undid by itself, such as a hold that expired.
    lapses: u32,
    last_action: Option<Mark>,
    first_undo: Option<Mark>,
    taken: Option<String>,
    given_back: Option<String>,
}

/// When something happened, by the service that did it.
#[derive(Clone, Debug)]
struct Mark {
    service: String,
    id: i64,
    at_us: i64,
}

impl<'a> Reconciler<'a> {
    pub const fn new(
        known: &'a BTreeMap<SagaId, Option<EndedSaga>>,
        removed: &'a [(SagaId, SagaId)],
        asked: &'a BTreeSet<String>,
        clock_skew: Millis,
        findings: &'a mut Findings,
    ) -> Self {
        Self { known, removed, asked, clock_skew, findings, traces: BTreeMap::new(), stranger: None }
    }

    pub fn next(&mut self, effect: Effect) {
        let known = effect.saga.parse().ok().and_then(|saga: SagaId| Some((saga, self.known.get(&saga)?)));
        let Some((saga, ended)) = known else {
            let is_removed = |saga| self.removed.iter().any(|(first, last)| (*first..=*last).contains(&saga));
            if effect.saga.parse().is_ok_and(is_removed) {
                return;
            }
            if self.stranger.as_ref() != Some(&effect.saga) {
                let found = format!("{} by {}, entry {}", effect.effect, effect.service, effect.id);
                let expected = "effects of sagas that the log knows";
                self.findings.add(Violation::new(3, expected, found).of_unknown(&effect.saga));
                self.stranger = Some(effect.saga);
            }
            return;
        };
        // What is still going on, or ended after the ledgers were read, is not judged.
        let Some(ended) = ended else { return };
        let Some((step, _)) = ended.definition.step(&effect.step) else {
            let found = format!("{} of the step {}, by {}", effect.effect, effect.step, effect.service);
            self.findings.add(Violation::new(3, "effects of the definition's steps", found).of(saga));
            return;
        };
        self.traces.entry(saga).or_default().entry(step).or_default().add(effect);
    }

    /// Judges the ended sagas of the page; answers how many.
    pub fn end(mut self) -> u64 {
        let none = BTreeMap::new();
        let traces = std::mem::take(&mut self.traces);
        let mut judged = 0;
        for (saga, ended) in self.known.iter().filter_map(|(saga, ended)| Some((*saga, ended.as_ref()?))) {
            judged += 1;
            let traces = traces.get(&saga).unwrap_or(&none);
            for (index, step) in ended.definition.steps.iter().enumerate() {
                let trace = traces.get(&index).cloned().unwrap_or_default();
                if self.was_asked(step) {
                    self.judge_step(saga, ended, index, &trace);
                }
            }
            self.judge_order(saga, &ended.definition, traces);
        }
        judged
    }

    fn was_asked(&self, step: &Step) -> bool {
        let undone_by = step.compensation.as_ref().map_or(&step.call.service, |undo| &undo.call.service);
        self.asked.contains(&step.call.service) && self.asked.contains(undone_by)
    }

    fn judge_step(&mut self, saga: SagaId, ended: &EndedSaga, index: usize, trace: &Trace) {
        let step = &ended.definition.steps[index];
        let (done, undone) = (trace.actions, trace.undos + trace.lapses);
        let found = format!("`{}` took effect {} and was undone {}", step.id, times(done), times(undone));
        let mut wrong = |invariant: u8, expected: &str| {
            self.findings.add(Violation::new(invariant, expected, &found).of(saga));
        };
        if !step.has_effect && (done > 0 || undone > 0) {
            return wrong(3, "no effect, as the definition says");
        }
        if done > 1 {
            wrong(3, "one effect at most");
        }
        if trace.undos > 1 {
            wrong(4, "one undo at most");
        }
        if undone > done {
            wrong(4, "no undo of what had no effect");
        }
        if trace.acted_after_its_undo(self.clock_skew) {
            wrong(5, "no effect after the compensation");
        }
        if !trace.gives_back_what_it_took() {
            wrong(1, "an undo that gives back what the effect took");
        }
        if ended.decided_by_operator.contains(&step.id) {
            return;
        }
        let skipped = ended.steps[index] == StepStatus::Skipped;
        match ended.status {
            Status::Completed if skipped && done > 0 => wrong(3, "no effect of a step that was skipped"),
            Status::Completed if !skipped && step.has_effect && (done != 1 || trace.undos > 0) => {
                wrong(3, "one effect and no undo, since the saga completed");
            }
            Status::Compensated if done != undone => {
                wrong(4, "as many undos as effects, since the saga was compensated");
            }
            _ => {}
        }
    }

    /// A step is undone after the steps that needed it. What lapsed by itself has no order.
    fn judge_order(&mut self, saga: SagaId, definition: &Definition, traces: &BTreeMap<usize, Trace>) {
        for (index, trace) in traces {
            let Some(undo) = &trace.first_undo else { continue };
            for dependent in all_dependents(definition, *index) {
                let Some(later) = traces.get(&dependent).and_then(|trace| trace.first_undo.as_ref()) else { continue };
                if undo.comes_before(later, self.clock_skew) {
                    let (step, dependent) = (&definition.steps[*index].id, &definition.steps[dependent].id);
                    let expected = format!("`{dependent}` undone before `{step}`, which it needed");
                    let found = format!("`{step}` undone first, by {} us", later.at_us - undo.at_us);
                    self.findings.add(Violation::new(4, expected, found).of(saga));
                }
            }
        }
    }
}

impl Trace {
    fn add(&mut self, effect: Effect) {
        let mark = Mark { service: effect.service, id: effect.id, at_us: effect.at_us };
        if effect.operation == "action" {
            self.actions += 1;
            self.last_action = Some(mark);
            self.taken.get_or_insert(effect.detail);
            return;
        }
        if effect.operation == "compensation" {
            self.undos += 1;
            self.first_undo.get_or_insert(mark);
        } else {
            self.lapses += 1;
        }
        self.given_back.get_or_insert(effect.detail);
    }

    fn acted_after_its_undo(&self, clock_skew: Millis) -> bool {
        let marks = self.first_undo.as_ref().zip(self.last_action.as_ref());
        marks.is_some_and(|(undo, action)| undo.comes_before(action, clock_skew))
    }

    /// Whether the members that both details have are equal. A detail that was not kept says nothing.
    fn gives_back_what_it_took(&self) -> bool {
        let object = |detail: &Option<String>| match serde_json::from_str(detail.as_deref().unwrap_or_default()) {
            Ok(Value::Object(members)) => members,
            _ => serde_json::Map::new(),
        };
        let given_back = object(&self.given_back);
        object(&self.taken).iter().all(|(name, taken)| given_back.get(name).is_none_or(|given| given == taken))
    }
}

impl Mark {
    /// Exact within one ledger; between two by the services' clocks, which may differ.
    fn comes_before(&self, other: &Self, clock_skew: Millis) -> bool {
        if self.service == other.service {
            return self.id < other.id;
        }
        let skew_us = i64::try_from(clock_skew.0.saturating_mul(1000)).unwrap_or(i64::MAX);
        self.at_us.saturating_add(skew_us) < other.at_us
    }
}

/// The steps that need this one, directly or through others.
fn all_dependents(definition: &Definition, index: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open = vec![index];
    while let Some(step) = open.pop() {
        for dependent in &definition.steps[step].dependents {
            if found.insert(*dependent) {
                open.push(*dependent);
            }
        }
    }
    found
}

fn times(count: u32) -> String {
    match count {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}

#[cfg(test)]
mod tests;
