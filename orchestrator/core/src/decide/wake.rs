//! When a saga must be looked at again, if nothing else happens before.

use super::machine::{ACCEPTED_WAIT_MAX, deadline_applies};
use crate::{
    definition::{Definition, StepKind},
    event::Mode,
    state::{Flight, Phase, SagaState, StepState, StepStatus, Wait},
    time::Timestamp,
};

/// The time of the next tick, as long as the calls in flight do not end before.
///
/// None while only a call's end or an operator can move the saga on.
#[must_use]
pub fn wake_at(definition: &Definition, state: &SagaState) -> Option<Timestamp> {
    next_tick(definition, state, |step| step.flight)
}

/// The same after a fold, when nothing is in flight: due at once if a call must be repeated.
#[must_use]
pub fn wake_at_after_fold(definition: &Definition, state: &SagaState) -> Option<Timestamp> {
    next_tick(definition, state, |_| Flight::Landed)
}

fn next_tick(definition: &Definition, state: &SagaState, flight: impl Fn(&StepState) -> Flight) -> Option<Timestamp> {
    if state.status.is_ended() {
        return None;
    }
    if state.mode == Mode::Choreographed {
        return next_silence(definition, state);
    }
    let steps = state.steps.iter().enumerate().filter(|(_, step)| step.status.operation().is_some());
    let ticks = steps.filter_map(|(index, step)| {
        let due = match (flight(step), &step.work.wait) {
            (Flight::Airborne(_), _) | (_, Wait::Parked { .. }) => return None,
            (Flight::Deferred(until), _) => Some(until),
            (Flight::Landed, Wait::Call) => Some(state.updated_at),
            (Flight::Landed, Wait::Until(next_at)) => Some(*next_at),
            (Flight::Landed, Wait::Accepted { poll_at, .. }) => *poll_at,
        };
        earliest(due, step_time_limit(definition, state, index))
    });
    let deadline = state.deadline_at.filter(|_| {
        state.phase == Phase::Forward
            && deadline_applies(definition, state)
            && !pivot_airborne(definition, state, &flight)
    });
    earliest(ticks.min(), deadline)
}

/// Of a choreographed saga: its deadline, then when the first of those that owe a report has been silent for too long.
fn next_silence(definition: &Definition, state: &SagaState) -> Option<Timestamp> {
    let limits = (0..state.steps.len()).filter_map(|index| silence_limit(definition, state, index));
    earliest(limits.min(), state.deadline_at.filter(|_| can_time_out(definition, state)))
}

/// Whether the deadline of a choreographed saga still ends it.
pub(super) fn can_time_out(definition: &Definition, state: &SagaState) -> bool {
    state.phase == Phase::Forward && deadline_applies(definition, state)
}

/// Until when the owner of a choreographed saga's step must have told how the operation under way ended: the deadline's
/// length after the deadline, and after the operation was enabled or, for an action, ceased to be wanted.
pub(super) fn silence_limit(definition: &Definition, state: &SagaState, index: usize) -> Option<Timestamp> {
    let step = &state.steps[index];
    if step.status.operation().is_none() || step.is_parked() {
        return None;
    }
    Some(step.work.started_at.max(state.deadline_at?).plus(definition.deadline?))
}

fn pivot_airborne(definition: &Definition, state: &SagaState, flight: &impl Fn(&StepState) -> Flight) -> bool {
    definition
        .steps
        .iter()
        .zip(&state.steps)
        .any(|(step, state)| step.kind == StepKind::Pivot && matches!(flight(state), Flight::Airborne(_)))
}

/// Until when the operation under way may take attempts: its own deadline, the saga's, and a bound for callbacks.
pub(super) fn step_time_limit(definition: &Definition, state: &SagaState, index: usize) -> Option<Timestamp> {
    let step = &definition.steps[index];
    let of_step = &state.steps[index];
    let own = step.deadline.map(|deadline| of_step.work.started_at.plus(deadline));
    let limit = match of_step.status {
        StepStatus::Running if step.kind == StepKind::Retriable => own,
        StepStatus::Running => earliest(own, state.deadline_at),
        _ => None,
    };
    let accepted = match &of_step.work.wait {
        Wait::Accepted { since, .. } if limit.is_none() => Some(since.plus(ACCEPTED_WAIT_MAX)),
        Wait::Accepted { .. } | Wait::Call | Wait::Until(_) | Wait::Parked { .. } => None,
    };
    limit.or(accepted)
}

fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
