//! What expressions may read where.
//!
//! | in | may read |
//! | --- | --- |
//! | `if`, `call`, `status` | `saga`, `input`, outputs of steps upstream |
//! | `output` of a step | the same, and `response` |
//! | `compensate` | the same as `call`, and `saga.failure`; its own step's output only behind `has(..)` |
//! | `output` of the saga | `saga`, `input`, outputs of all steps |
//!
//! The output of a step with `if` may be missing. It can be read where `has(steps.<id>.output)` holds: in the expression
//! itself, or in the reading step's own `if`; and in steps that carry the very same `if`. A compensation cannot count on
//! its own step's output, because a step whose outcome is unknown has none.

use alloc::{collections::BTreeSet, format, string::String, vec::Vec};

use super::{
    Call,
    check::tell,
    order::Graph,
    parse::Problem,
    read::{Draft, DraftStep},
};
use crate::expr::{Expr, Presence, Template};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Condition,
    Call,
    StepOutput,
    Compensation,
    SagaOutput,
}

/// An expression, where it stands, and the step it belongs to.
pub(super) struct Use<'d> {
    pub(super) place: String,
    pub(super) expr: &'d Expr,
    pub(super) role: Role,
    /// By its written index.
    pub(super) step: Option<usize>,
}

/// Tells what must not be read where it is, and returns the steps (by written index) whose output something other than
/// their own compensation counts on.
pub(super) fn check(draft: &Draft, steps: &[DraftStep], graph: &Graph, problems: &mut Vec<Problem>) -> BTreeSet<usize> {
    let mut check = Check { draft, steps, graph, problems, counted_on: BTreeSet::new() };
    uses(draft, steps).iter().for_each(|found| check.check(found));
    check.counted_on
}

/// Every expression of the steps and of the saga's output.
pub(super) fn uses<'d>(draft: &'d Draft, steps: &'d [DraftStep]) -> Vec<Use<'d>> {
    let mut uses = Vec::new();
    for (at, draft) in steps.iter().enumerate() {
        let (place, step) = (&draft.place, &draft.step);
        if let Some(expr) = &step.condition {
            uses.push(Use { place: format!("{place}.if"), expr, role: Role::Condition, step: Some(at) });
        }
        of_call(&step.call, &format!("{place}.call"), Role::Call, at, &mut uses);
        if let Some(output) = &step.output {
            of_template(output, &format!("{place}.output"), Role::StepOutput, Some(at), &mut uses);
        }
        if let Some(undo) = &step.compensation {
            of_call(&undo.call, &format!("{place}.compensate.call"), Role::Compensation, at, &mut uses);
        }
        if let Some(status) = &step.status_call {
            of_call(&status.call, &format!("{place}.status.call"), Role::Call, at, &mut uses);
        }
    }
    if let Some(output) = &draft.output {
        of_template(output, "output", Role::SagaOutput, None, &mut uses);
    }
    uses
}

fn of_call<'d>(call: &'d Call, place: &str, role: Role, step: usize, uses: &mut Vec<Use<'d>>) {
    of_template(&call.path, &format!("{place}.path"), role, Some(step), uses);
    for (name, value) in &call.headers {
        let mut place = format!("{place}.headers");
        crate::json::push_key(&mut place, name);
        of_template(value, &place, role, Some(step), uses);
    }
    if let Some(body) = &call.body {
        of_template(body, &format!("{place}.body"), role, Some(step), uses);
    }
}

fn of_template<'d>(template: &'d Template, place: &str, role: Role, step: Option<usize>, uses: &mut Vec<Use<'d>>) {
    for (below, expr) in template.expressions() {
        let dot = if below.is_empty() || below.starts_with('[') { "" } else { "." };
        uses.push(Use { place: format!("{place}{dot}{below}"), expr, role, step });
    }
}

struct Check<'c> {
    draft: &'c Draft,
    steps: &'c [DraftStep],
    graph: &'c Graph,
    problems: &'c mut Vec<Problem>,
    counted_on: BTreeSet<usize>,
}

impl Check<'_> {
    fn check(&mut self, found: &Use<'_>) {
        let references = found.expr.references();
        let source = found.expr.source();
        let mut reasons = Vec::new();
        if references.response && found.role != Role::StepOutput {
            reasons.push(format!("`{source}`: `response` can only be read in a step's `output`"));
        }
        if references.failure && found.role != Role::Compensation {
            reasons.push(format!("`{source}`: `saga.failure` can only be read in a compensation"));
        }
        for property in references.inputs.iter().filter_map(|path| path.first()) {
            if self.draft.input.rules_out(property) {
                reasons.push(format!("`input.{property}`: the input's schema has no property `{property}`"));
            }
        }
        for (id, presence) in &references.steps {
            reasons.extend(self.problem_with(found, id, *presence));
        }
        for reason in reasons {
            tell(self.problems, found.place.clone(), reason);
        }
    }

    fn problem_with(&mut self, found: &Use<'_>, id: &str, presence: Presence) -> Option<String> {
        let Some(read) = self.graph.find(id) else {
            return Some(format!("`steps.{id}`: there is no step `{id}`"));
        };
        let condition = match found.step {
            Some(reader) if reader == read => return own_output(found.role, id, presence),
            Some(reader) if !self.graph.is_upstream(read, reader) => {
                let name = &self.steps[reader].step.id;
                return Some(format!(
                    "`steps.{id}.output`: `{name}` does not come after `{id}`; add it to its `needs`"
                ));
            }
            // What else a step reads, it reads only when its own condition is true.
            Some(reader) if found.role != Role::Condition => self.steps[reader].step.condition.as_ref(),
            Some(_) | None => None,
        };
        if presence == Presence::Guarded || condition.is_some_and(|condition| condition.assures().contains(id)) {
            return None;
        }
        self.counted_on.insert(read);
        let skipped_if = self.steps[read].step.condition.as_ref()?;
        if condition.is_some_and(|condition| condition.source() == skipped_if.source()) {
            return None;
        }
        Some(format!(
            "`steps.{id}.output` is missing when `{id}` is skipped by its `if`: write `has(steps.{id}.output) ? .. : ..`"
        ))
    }
}

fn own_output(role: Role, id: &str, presence: Presence) -> Option<String> {
    match (role, presence) {
        (Role::Compensation, Presence::Guarded) => None,
        (Role::Compensation, Presence::Assumed) => Some(format!(
            "`steps.{id}.output` is missing when the outcome of `{id}` is unknown, and then it must be undone too: key the \
             undoing by `saga.id`, or test `has(steps.{id}.output)` first"
        )),
        _ => Some(format!("`steps.{id}.output`: the step cannot read its own output here")),
    }
}
