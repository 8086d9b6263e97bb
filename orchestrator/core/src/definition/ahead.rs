//! Which steps can be announced ahead: called as soon as what they need has succeeded, while that success is still on its
//! way into the log.
//!
//! Whoever takes over after a crash finds the step announced, and what it needs not yet succeeded. It calls those again,
//! gets the same answers, and makes the same call. Or it gets another answer and undoes the step, as one whose outcome is
//! unknown. So a step can be announced ahead
//!
//! | unless | because |
//! | --- | --- |
//! | it is the pivot | it could not be undone |
//! | it needs the pivot | as long as the pivot has not succeeded |
//! | it has an effect and no compensation | it could not be undone |
//! | it has an `if` | it might not have to be done at all |
//! | its call reads the output of a step with `effect: none` | such a step owes no stored answer: the same call might not come twice |
//! | its compensation or status call reads another step's output | it might have to be undone without |
//!
//! In the last two cases it can be once that step has succeeded durably.

use alloc::{collections::BTreeSet, vec::Vec};

use super::{Call, Step, StepKind};

/// Fills in `ahead_after` of steps that know their needs and kinds.
pub(super) fn relate(steps: &mut [Step]) {
    for index in 0..steps.len() {
        steps[index].ahead_after = ahead_after(steps, &steps[index]);
    }
}

fn ahead_after(steps: &[Step], step: &Step) -> Option<Vec<usize>> {
    let undoable = step.compensation.is_some() || !step.has_effect;
    if step.kind == StepKind::Pivot || step.condition.is_some() || !undoable {
        return None;
    }
    let mut after: BTreeSet<usize> = BTreeSet::new();
    after.extend(step.needs.iter().filter(|need| steps[**need].kind == StepKind::Pivot));
    after.extend(outputs_read(steps, &step.call).filter(|read| !steps[*read].has_effect));
    let undo = step.compensation.iter().map(|undo| &undo.call);
    for call in undo.chain(step.status_call.iter().map(|status| &status.call)) {
        after.extend(outputs_read(steps, call).filter(|read| steps[*read].id != step.id));
    }
    Some(after.into_iter().collect())
}

fn outputs_read<'s>(steps: &'s [Step], call: &Call) -> impl Iterator<Item = usize> + 's {
    let templates = [&call.path].into_iter().chain(call.headers.values()).chain(&call.body);
    let read: BTreeSet<_> = templates.flat_map(|template| template.references().steps.into_keys()).collect();
    steps.iter().enumerate().filter(move |(_, step)| read.contains(&step.id)).map(|(index, _)| index)
}
