//! Definitions to run: random ones, made once and picked by number, and the shapes of the exhaustive enumeration.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use skald_core::definition::Definition;

use crate::{chance::Chance, participants::step_index};

/// Parsing costs more than running a saga, so seeds share definitions.
const SIZE: usize = 300;
pub const STEPS_MAX: u64 = 5;
pub const SERVICES: [&str; 3] = ["catalog", "sales", "orders"];

/// Random definitions; each is made when it is first picked, from its number alone.
#[derive(Debug)]
pub struct Catalog {
    made: Vec<OnceLock<Arc<Definition>>>,
    /// Those that can be choreographed, too.
    choreographable: Vec<OnceLock<Arc<Definition>>>,
}

impl Default for Catalog {
    fn default() -> Self {
        let empty = || (0..SIZE).map(|_| OnceLock::new()).collect();
        Self { made: empty(), choreographable: empty() }
    }
}

impl Catalog {
    #[must_use]
    pub fn pick(&self, chance: &mut Chance) -> Arc<Definition> {
        let number = chance.index(self.made.len());
        Arc::clone(self.made[number].get_or_init(|| random(number)))
    }

    /// A definition that can run in both modes.
    #[must_use]
    pub fn pick_choreographable(&self, chance: &mut Chance) -> Arc<Definition> {
        let number = chance.index(self.choreographable.len());
        Arc::clone(self.choreographable[number].get_or_init(|| random_choreographable(number)))
    }
}

/// The definition with this number: the first valid one of its stream of chance.
fn random(number: usize) -> Arc<Definition> {
    let mut chance = Chance::new(number as u64);
    parsed(&format!("random-{number}"), "10s", random_steps(&mut chance).1)
}

/// The same without what needs a conductor, and in less of a hurry or more.
fn random_choreographable(number: usize) -> Arc<Definition> {
    let mut chance = Chance::new(number as u64);
    let deadline = chance.pick(&["2s", "5s", "10s"]);
    let (pivot, mut steps) = random_steps(&mut chance);
    for (index, step) in steps.iter_mut().enumerate() {
        let step = step.as_object_mut().expect("a step is an object");
        step.remove("status");
        step.remove("deadline");
        if pivot == Some(index) && !step.contains_key("effect") {
            step.insert("compensate".to_owned(), json!({ "call": call(index, "/undo") }));
        }
    }
    let definition = parsed(&format!("choreographable-{number}"), deadline, steps);
    assert_eq!(definition.not_choreographable(), []);
    definition
}

fn random_steps(chance: &mut Chance) -> (Option<usize>, Vec<Value>) {
    let steps = usize::try_from(chance.between(1, STEPS_MAX)).expect("a definition has few steps");
    let pivot = chance.one_in(2).then(|| chance.index(steps));
    let mut steps: Vec<Value> = (0..steps).map(|index| random_step(index, pivot, chance)).collect();
    for index in 0..steps.len() {
        read_outputs(&mut steps, index, chance);
    }
    (pivot, steps)
}

/// Lets some requests depend on what was answered before.
fn read_outputs(steps: &mut [Value], index: usize, chance: &mut Chance) {
    let needs = steps[index]["needs"].as_array().cloned().unwrap_or_default();
    for need in needs.iter().filter_map(Value::as_str) {
        let may_be_skipped = steps[step_index(need)].get("if").is_some();
        let number = match may_be_skipped {
            true => format!("${{has(steps.{need}.output) ? steps.{need}.output.number : null}}"),
            false => format!("${{steps.{need}.output.number}}"),
        };
        for (one_in, of) in [(3, "/call/body"), (6, "/compensate/call/body")] {
            if chance.one_in(one_in)
                && let Some(body) = steps[index].pointer_mut(of)
            {
                body[need] = json!(number);
            }
        }
    }
}

fn random_step(index: usize, pivot: Option<usize>, chance: &mut Chance) -> Value {
    let chained = chance.one_in(3);
    let needs: Vec<usize> = match pivot {
        Some(pivot) if index == pivot => (0..index).collect(),
        Some(pivot) if index > pivot => (pivot..index).filter(|need| *need == pivot || chance.one_in(2)).collect(),
        _ => (0..index).filter(|need| chained && need + 1 == index || chance.one_in(3)).collect(),
    };
    let past = pivot.is_some_and(|pivot| index >= pivot);
    let effect = !chance.one_in(8);
    let undoable = effect && !(past && chance.one_in(2));
    let mut step = step(index, &needs, undoable);
    match chance.below(10) {
        0 => step["if"] = json!("false"),
        1 => step["if"] = json!("input.n == 1"),
        _ => {}
    }
    if !effect {
        step["effect"] = json!("none");
    }
    if chance.one_in(3) {
        step["status"] = json!({ "call": { "service": SERVICES[index % 3], "method": "GET", "path": "/status" } });
    }
    if chance.one_in(4) {
        step["deadline"] = json!("2s");
    }
    if chance.one_in(3) {
        step["output"] = json!({ "number": "${response.body.number}" });
    }
    if pivot == Some(index) {
        step["pivot"] = json!(true);
    }
    if pivot.is_some_and(|pivot| index > pivot) {
        step["retriable"] = json!(true);
    }
    step
}

fn step(index: usize, needs: &[usize], undoable: bool) -> Value {
    let needs: Vec<String> = needs.iter().map(|need| format!("s{need}")).collect();
    let mut step = json!({ "id": format!("s{index}"), "needs": needs, "poll": "200ms", "call": call(index, "/do") });
    if undoable {
        step["compensate"] = json!({ "call": call(index, "/undo") });
    }
    step
}

fn call(index: usize, path: &str) -> Value {
    json!({ "service": SERVICES[index % 3], "method": "POST", "path": path, "body": { "of": "${saga.id}" } })
}

fn parsed(name: &str, deadline: &str, steps: Vec<Value>) -> Arc<Definition> {
    let document = json!({
        "apiVersion": "skald/v1", "name": name, "version": 1, "deadline": deadline,
        "defaults": {
            "timeout": "1s",
            "retry": { "max_attempts": 3, "initial": "100ms", "factor": 2, "max": "1s" },
            "compensation": { "retry": { "max_attempts": 4, "initial": "100ms", "factor": 2, "max": "1s" } },
        },
        "steps": steps,
    });
    let text = document.to_string();
    match Definition::parse(&text, None) {
        Ok(definition) => Arc::new(definition),
        Err(problems) => panic!("a generated definition is not valid: {problems:?} in {text}"),
    }
}

/// How the steps of an enumerated definition depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each needs the one before.
    Chain,
    /// All need the first.
    Fork,
    /// The last needs all.
    Join,
    /// All but the last need the first, the last needs all of them.
    Diamond,
}

impl Shape {
    pub const ALL: [Self; 4] = [Self::Chain, Self::Fork, Self::Join, Self::Diamond];

    /// Below this many steps it is one of the others.
    #[must_use]
    pub const fn steps_min(self) -> usize {
        match self {
            Self::Chain => 1,
            Self::Fork | Self::Join => 3,
            Self::Diamond => 4,
        }
    }

    fn needs(self, index: usize, steps: usize) -> Vec<usize> {
        let last = index + 1 == steps;
        match self {
            _ if index == 0 => Vec::new(),
            Self::Chain => vec![index - 1],
            Self::Fork => vec![0],
            Self::Join if last => (0..index).collect(),
            Self::Join => Vec::new(),
            Self::Diamond if last => (1..index).collect(),
            Self::Diamond => vec![0],
        }
    }

    /// Every other step must be upstream or downstream of a pivot.
    fn may_turn_at(self, index: usize, steps: usize) -> bool {
        let (first, last) = (index == 0, index + 1 == steps);
        match self {
            Self::Chain => true,
            Self::Fork => first,
            Self::Join => last,
            Self::Diamond => first || last,
        }
    }
}

/// A definition of the enumeration and what it is called.
#[derive(Debug)]
pub struct Enumerated {
    pub name: String,
    pub definition: Arc<Definition>,
}

/// Every shape with `steps` steps, without a pivot and with one at every place it may be; what comes after a pivot
/// cannot be undone.
#[must_use]
pub fn enumerated(steps: usize) -> Vec<Enumerated> {
    let shapes = Shape::ALL.into_iter().filter(|shape| steps >= shape.steps_min());
    let places = shapes.flat_map(|shape| {
        let pivots = (0..steps).filter(move |index| shape.may_turn_at(*index, steps)).map(Some);
        core::iter::once(None).chain(pivots).map(move |pivot| (shape, pivot))
    });
    places.map(|(shape, pivot)| enumerate(shape, steps, pivot)).collect()
}

fn enumerate(shape: Shape, steps: usize, pivot: Option<usize>) -> Enumerated {
    let step = |index: usize| {
        let past = pivot.is_some_and(|pivot| index > pivot);
        let mut step = step(index, &shape.needs(index, steps), !past);
        if pivot == Some(index) {
            step["pivot"] = json!(true);
        }
        if past {
            step["retriable"] = json!(true);
        }
        step
    };
    let shape_name = format!("{shape:?}").to_lowercase();
    let name = match pivot {
        Some(pivot) => format!("{shape_name}-{steps}-pivot-{pivot}"),
        None => format!("{shape_name}-{steps}"),
    };
    Enumerated { definition: parsed(&name, "10s", (0..steps).map(step).collect()), name }
}

#[cfg(test)]
mod tests {
    use skald_core::definition::{Call, StepKind};

    use super::*;

    #[test]
    fn the_random_definitions_hold_every_kind_of_step() {
        let all: Vec<_> = (0..60).map(random).collect();
        let steps = || all.iter().flat_map(|definition| &definition.steps);
        for kind in [StepKind::Compensable, StepKind::Pivot, StepKind::Retriable] {
            assert!(steps().any(|step| step.kind == kind), "{kind:?}");
        }
        assert!(steps().any(|step| !step.has_effect) && steps().any(|step| step.status_call.is_some()));
        assert!(steps().any(|step| step.condition.is_some()) && steps().any(|step| step.needs.len() > 1));
        let reads = |call: &Call| call.body.as_ref().is_some_and(|body| !body.references().steps.is_empty());
        assert!(steps().any(|step| reads(&step.call)));
        assert!(steps().any(|step| step.compensation.as_ref().is_some_and(|undo| reads(&undo.call))));
    }

    #[test]
    fn what_is_enumerated_can_run_in_both_modes() {
        for one in (1..=4).flat_map(enumerated) {
            assert_eq!(one.definition.not_choreographable(), [], "{}", one.name);
        }
    }

    #[test]
    fn the_enumeration_holds_each_shape_once() {
        let names: Vec<String> = (1..=4).flat_map(enumerated).map(|one| one.name).collect();
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
        assert!(names.contains(&"diamond-4-pivot-3".to_owned()), "{names:?}");
    }
}
