//! Which step needs which.

use alloc::{collections::BTreeMap, format, string::String, vec::Vec};

use super::{parse::Problem, read::DraftStep};

/// Steps in one definition; a set of them fits the bits of a `u128`.
pub(super) const STEPS_MAX: usize = 100;

/// The needs between steps, by written index.
pub(super) struct Graph {
    pub(super) needs: Vec<Vec<usize>>,
    /// Per step, the steps that must have ended before it, as bits.
    upstream: Vec<u128>,
    /// The first step of each id.
    index: BTreeMap<String, usize>,
}

impl Graph {
    /// Resolves ids; what is unknown, duplicate or circular is told and left out.
    pub(super) fn new(steps: &[DraftStep], problems: &mut Vec<Problem>) -> Self {
        let mut index = BTreeMap::new();
        for (at, draft) in steps.iter().enumerate().filter(|(_, draft)| !draft.step.id.is_empty()) {
            if let Some(first) = index.get(&draft.step.id) {
                let reason =
                    format!("steps[{first}] has the same id `{}`: ids are unique within a saga", draft.step.id);
                problems.push(Problem::new(format!("{}.id", draft.place), reason));
            } else {
                index.insert(draft.step.id.clone(), at);
            }
        }
        let needs = (0..steps.len()).map(|at| resolve(steps, at, &index, problems)).collect();
        let mut graph = Self { needs, upstream: Vec::new(), index };
        graph.close();
        graph.tell_cycles(steps, problems);
        graph
    }

    pub(super) fn find(&self, id: &str) -> Option<usize> {
        self.index.get(id).copied()
    }

    /// Whether `earlier` must have ended before `later` begins.
    pub(super) fn is_upstream(&self, earlier: usize, later: usize) -> bool {
        self.upstream.get(later).is_some_and(|set| set >> earlier & 1 == 1)
    }

    pub(super) fn in_cycle(&self, step: usize) -> bool {
        self.is_upstream(step, step)
    }

    /// The steps' written indices so that needs come first, and otherwise as written.
    pub(super) fn topological(&self) -> Vec<usize> {
        let mut placed: u128 = 0;
        let mut order = Vec::with_capacity(self.needs.len());
        while let Some(next) = (0..self.needs.len())
            .find(|step| placed >> step & 1 == 0 && self.needs[*step].iter().all(|need| placed >> need & 1 == 1))
        {
            placed |= 1 << next;
            order.push(next);
        }
        order
    }

    fn close(&mut self) {
        let direct = |needs: &Vec<usize>| needs.iter().fold(0_u128, |set, need| set | 1 << need);
        self.upstream = self.needs.iter().map(direct).collect();
        loop {
            let mut grew = false;
            for step in 0..self.upstream.len() {
                let before = self.upstream[step];
                let reached = (0..self.upstream.len())
                    .filter(|other| before >> other & 1 == 1)
                    .fold(before, |set, other| set | self.upstream[other]);
                grew |= reached != before;
                self.upstream[step] = reached;
            }
            if !grew {
                return;
            }
        }
    }

    fn tell_cycles(&self, steps: &[DraftStep], problems: &mut Vec<Problem>) {
        let mut told: u128 = 0;
        for step in 0..steps.len() {
            if told >> step & 1 == 1 || !self.in_cycle(step) {
                continue;
            }
            let members: Vec<usize> = (0..steps.len())
                .filter(|other| self.is_upstream(*other, step) && self.is_upstream(step, *other))
                .collect();
            told = members.iter().fold(told, |set, member| set | 1 << member);
            let names: Vec<&str> = members.iter().map(|member| steps[*member].step.id.as_str()).collect();
            let reason = match names.as_slice() {
                [only] => format!("step `{only}` needs itself: take it out"),
                _ => format!("the steps {} need each other in a circle: take one of these needs out", names.join(", ")),
            };
            problems.push(Problem::new(format!("{}.needs", steps[step].place), reason));
        }
    }
}

fn resolve(steps: &[DraftStep], at: usize, index: &BTreeMap<String, usize>, problems: &mut Vec<Problem>) -> Vec<usize> {
    let Some(written) = &steps[at].needs else {
        return at.checked_sub(1).into_iter().collect();
    };
    let mut needs = Vec::with_capacity(written.len());
    for (position, id) in written.iter().enumerate() {
        let reason = match index.get(id) {
            Some(need) if needs.contains(need) => format!("`{id}` is named twice"),
            Some(need) => {
                needs.push(*need);
                continue;
            }
            None => format!("there is no step `{id}`"),
        };
        problems.push(Problem::new(format!("{}.needs[{position}]", steps[at].place), reason));
    }
    needs
}
