//! The working copy that one decision is made on: every event announced is folded in at once, so that the next rule sees it.

use alloc::{
    borrow::ToOwned,
    boxed::Box,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use super::{
    Announced, Callback, CallbackOutcome, Command, Decision, IllegalInput, Invoke, wake::step_time_limit, wake_at,
};
use crate::{
    classify::{CallReport, Verdict, classify, http_status},
    definition::{Definition, StepKind},
    event::{
        AttemptFailed, CallNote, Event, Mode, SagaFailed, SagaTakenOver, StepAccepted, StepParked, StepRejected,
        StepStarted, StepUnknown,
    },
    ids::Operation,
    retry::{MISCONFIGURED_ATTEMPTS_MAX, RetryPolicy},
    shard::batch::Origin,
    state::{Flight, Phase, SagaState, StepStatus, Wait},
    time::{Millis, Timestamp},
};

/// How long an accepted operation (202) is waited for when no deadline bounds it: 24 h.
pub(super) const ACCEPTED_WAIT_MAX: Millis = Millis(24 * 3600 * 1000);

/// How often a status call is tried before the outcome counts as unknown.
pub(super) const STATUS_ATTEMPTS_MAX: u32 = 3;

/// How many answers "in flight" (409) in a row are believed of one operation, so that none is asked for ever where no
/// deadline bounds it.
pub(super) const IN_FLIGHT_ANSWERS_MAX: u32 = 100;

pub(super) struct Machine<'a> {
    pub definition: &'a Definition,
    pub state: SagaState,
    pub now: Timestamp,
    actor: Option<Arc<str>>,
    events: Vec<Announced>,
    calls: Vec<Invoke>,
}

/// An attempt that ended without an outcome.
pub(super) struct Setback {
    pub note: CallNote,
    pub code: &'static str,
    pub error: String,
    pub reached: bool,
    pub counted: bool,
    pub misconfigured: bool,
    pub retry_after: Option<Millis>,
}

impl<'a> Machine<'a> {
    pub fn new(definition: &'a Definition, state: SagaState, now: Timestamp) -> Self {
        // Time in a stream never runs backward, whatever the clock does.
        let now = now.max(state.updated_at);
        Self { definition, state, now, actor: None, events: Vec::new(), calls: Vec::new() }
    }

    /// The first event is what the state was made from.
    pub fn announce_first(&mut self, event: Event) {
        self.events.push(Announced { event, actor: None, origin: Origin::default() });
    }

    pub fn emit(&mut self, event: impl Into<Event>) {
        self.emit_from(Origin::default(), event);
    }

    /// [`Machine::emit`] of an event that came from outside.
    pub fn emit_from(&mut self, origin: Origin, event: impl Into<Event>) {
        let event = event.into();
        let evolved = self.state.evolve(self.definition, &event, self.now);
        evolved.expect("decide announces events of its own definition only");
        self.events.push(Announced { event, actor: self.actor.clone(), origin });
    }

    /// From here on, events are the doing of `actor`.
    pub fn act_as(&mut self, actor: &str) {
        self.actor = Some(Arc::from(actor));
    }

    pub fn finish(mut self) -> Decision {
        // A call whose step ended within the same decision is not made.
        let state = &self.state;
        self.calls
            .retain(|invoke| state.step(&invoke.step).is_some_and(|step| step.flight == Flight::Airborne(invoke.call)));
        let mut commands: Vec<Command> =
            self.calls.into_iter().map(|invoke| Command::Invoke(Box::new(invoke))).collect();
        commands.extend(wake_at(self.definition, &self.state).map(|at| Command::SetTimer { at }));
        Decision { events: self.events, commands, next: self.state }
    }

    pub fn airborne(&mut self, index: usize, invoke: Invoke) {
        self.state.steps[index].flight = Flight::Airborne(invoke.call);
        self.calls.push(invoke);
    }

    pub fn id(&self, index: usize) -> Arc<str> {
        Arc::clone(&self.state.steps[index].id)
    }

    pub fn index(&self, step: &str) -> Result<usize, IllegalInput> {
        match self.definition.step(step) {
            Some((index, _)) => Ok(index),
            None => Err(IllegalInput::NoSuchStep(step.to_owned())),
        }
    }

    pub fn time_limit(&self, index: usize) -> Option<Timestamp> {
        step_time_limit(self.definition, &self.state, index)
    }

    pub fn policy(&self, index: usize) -> &'a RetryPolicy {
        let step = &self.definition.steps[index];
        match (self.state.steps[index].status, &step.compensation) {
            (StepStatus::Compensating, Some(compensation)) => &compensation.retry,
            _ => &step.retry,
        }
    }

    /// Does what is due: deadlines first, then calls whose time has come.
    pub fn tick(&mut self) {
        match self.state.mode {
            _ if self.state.status.is_ended() => {}
            Mode::Orchestrated => {
                self.check_saga_deadline();
                for index in 0..self.state.steps.len() {
                    self.tick_step(index);
                }
            }
            Mode::Choreographed => self.tick_choreographed(),
        }
    }

    /// Counts one more death, or parks what seems to cause them.
    pub fn taken_over(&mut self, takeovers_max: u32) {
        let due = wake_at(self.definition, &self.state).is_some_and(|at| at <= self.now);
        if !due {
            return;
        }
        let takeovers = self.state.takeovers + 1;
        let under_way: Vec<usize> = (0..self.state.steps.len())
            .filter(|index| {
                let step = &self.state.steps[*index];
                step.status.operation().is_some() && !step.is_parked()
            })
            .collect();
        if takeovers < takeovers_max || under_way.is_empty() {
            return self.emit(SagaTakenOver { takeovers });
        }
        for index in under_way {
            let reason = format!("{takeovers} processes in a row died while it was in progress");
            self.park(index, CallNote::default(), "process_died", reason);
        }
    }

    fn tick_step(&mut self, index: usize) {
        let step = &self.state.steps[index];
        let due = match (step.status.operation(), step.flight, &step.work.wait) {
            (None, _, _) | (_, Flight::Airborne(_), _) | (_, _, Wait::Parked { .. }) => return,
            (_, Flight::Deferred(until), _) => until <= self.now,
            (_, Flight::Landed, Wait::Call) => true,
            (_, Flight::Landed, Wait::Until(next_at)) => *next_at <= self.now,
            (_, Flight::Landed, Wait::Accepted { poll_at, .. }) => poll_at.is_some_and(|at| at <= self.now),
        };
        if self.time_limit(index).is_some_and(|limit| limit <= self.now) {
            let saga_is_late = self.state.deadline_at.is_some_and(|deadline| deadline <= self.now);
            let code = if saga_is_late { "deadline_exceeded" } else { "step_timeout" };
            self.exhausted(index, CallNote::default(), code, "its time ran out".to_owned());
        } else if due {
            self.call_again(index);
        }
    }

    /// Calls what the log already announced. It rendered then; only an operator's retry of what was parked because it
    /// did not render fails here.
    fn call_again(&mut self, index: usize) {
        match self.target(index) {
            Ok(target) => self.invoke(index, target),
            Err(unready) => self.park(index, CallNote::default(), unready.code(), unready.to_string()),
        }
    }

    pub fn call_finished(&mut self, step: &str, call: u64, report: CallReport) {
        let Ok(index) = self.index(step) else { return };
        let state = &mut self.state.steps[index];
        if state.flight != Flight::Airborne(call) || self.state.status.is_ended() {
            return;
        }
        state.flight = Flight::Landed;
        let Some(operation) = state.status.operation() else { return };
        let status = http_status(&report.result);
        let polled = matches!(state.work.wait, Wait::Accepted { .. });
        let verdict = classify(report.result, operation, &self.definition.steps[index].classify);
        let note = CallNote::new(report.started_at, report.duration, status, None);
        match (verdict, operation) {
            (Verdict::Deferred { until, why }, _) => self.deferred(index, until, why),
            (verdict, _) if polled => self.polled(index, note, verdict),
            (verdict, Operation::Action) => self.action_finished(index, note, verdict),
            (verdict, Operation::Compensation) => self.compensation_finished(index, note, verdict),
        }
    }

    fn deferred(&mut self, index: usize, until: Timestamp, why: String) {
        let limit = self.time_limit(index);
        if self.state.phase == Phase::Backward && self.state.steps[index].status != StepStatus::Compensating {
            self.stop_waiting(index, CallNote::default());
        } else if self.state.steps[index].status == StepStatus::Checking {
            self.status_unknown(index, CallNote::default(), why);
        } else if limit.is_some_and(|limit| limit <= self.now) {
            self.exhausted(index, CallNote::default(), "unreachable", why);
        } else {
            let until = limit.map_or(until, |limit| until.min(limit));
            self.state.steps[index].flight = Flight::Deferred(until.max(self.now.plus(Millis(1))));
        }
    }

    /// The answer to a poll: an end, or "not yet", for as long as there is time.
    fn polled(&mut self, index: usize, note: CallNote, verdict: Verdict) {
        let asked_by = match verdict {
            Verdict::Done(_) | Verdict::Refused(_) => {
                return match self.state.steps[index].status {
                    StepStatus::Compensating => self.compensation_finished(index, note, verdict),
                    _ => self.action_finished(index, note, verdict),
                };
            }
            Verdict::Accepted { retry_after, .. }
            | Verdict::InFlight { retry_after }
            | Verdict::Retry { retry_after, .. } => retry_after,
            Verdict::Misconfigured { .. } | Verdict::Deferred { .. } => None,
        };
        if self.state.phase == Phase::Backward && self.state.steps[index].status != StepStatus::Compensating {
            return self.stop_waiting(index, note);
        }
        let next = self.now.plus(self.poll_interval(index).max(asked_by.unwrap_or_default()));
        match self.time_limit(index) {
            Some(limit) if limit <= self.now => {
                self.exhausted(index, note, "step_timeout", "accepted, but not ended in time".to_owned());
            }
            limit => self.state.steps[index].flight = Flight::Deferred(limit.map_or(next, |limit| next.min(limit))),
        }
    }

    fn poll_interval(&self, index: usize) -> Millis {
        let step = &self.definition.steps[index];
        match (self.state.steps[index].status, &step.compensation) {
            (StepStatus::Compensating, Some(compensation)) => compensation.poll,
            _ => step.poll,
        }
    }

    /// The participant will tell later (202).
    pub fn accepted(&mut self, index: usize, note: CallNote, location: Option<String>, retry_after: Option<Millis>) {
        let operation = self.state.steps[index].status.operation().expect("only an operation under way is accepted");
        let polls = location.is_some() || retry_after.is_some();
        let poll_at = polls.then(|| self.now.plus(retry_after.unwrap_or_else(|| self.poll_interval(index))));
        let attempt = self.state.steps[index].work.attempts + 1;
        self.emit(StepAccepted { step: self.id(index), operation, attempt, call: note, location, poll_at });
    }

    /// Another attempt, if attempts and time are left.
    pub fn set_back(&mut self, index: usize, setback: Setback) {
        let work = &self.state.steps[index].work;
        let policy = self.policy(index);
        let operation = self.state.steps[index].status.operation().expect("only an operation under way is set back");
        let key = crate::ids::call_key(self.state.id, &self.definition.steps[index].id, operation);
        let checking = self.state.steps[index].status == StepStatus::Checking;
        let counted = setback.counted || checking;
        let asked = if counted { work.tries } else { work.in_flight_answers } + 1;
        let next_at = self.now.plus(policy.wait_after(asked, &key, setback.retry_after).max(Millis(1)));
        let attempts_max = if checking { policy.max_attempts.min(STATUS_ATTEMPTS_MAX) } else { policy.max_attempts };
        let spent = (counted && work.tries + 1 >= attempts_max)
            || (!counted && work.in_flight_answers + 1 >= IN_FLIGHT_ANSWERS_MAX)
            || (setback.misconfigured && work.misconfigured + 1 >= MISCONFIGURED_ATTEMPTS_MAX);
        let late = self.time_limit(index).is_some_and(|limit| next_at >= limit);
        let note = CallNote { error: Some(setback.error.clone()), ..setback.note };
        if spent || late {
            self.state.steps[index].work.reached |= setback.reached;
            let why = if spent { "attempts ran out" } else { "time ran out" };
            return self.exhausted(index, note, setback.code, format!("{why}: {}", setback.error));
        }
        let attempt = self.attempt_of(index, &note);
        self.emit(AttemptFailed {
            step: self.id(index),
            operation,
            attempt,
            call: note,
            counted,
            misconfigured: setback.misconfigured,
            reached: setback.reached,
            next_at,
        });
    }

    /// No further attempt will be made by itself.
    pub fn exhausted(&mut self, index: usize, note: CallNote, code: &str, reason: String) {
        match self.state.steps[index].status {
            StepStatus::Compensating => self.park(index, note, code, reason),
            StepStatus::Checking => self.status_unknown(index, note, reason),
            _ => self.action_exhausted(index, note, code, reason),
        }
    }

    pub fn park(&mut self, index: usize, note: CallNote, code: &str, reason: String) {
        let step = &self.state.steps[index];
        let reached = step.work.reached;
        let operation = step.status.operation().unwrap_or(match self.state.phase {
            Phase::Forward => Operation::Action,
            Phase::Backward => Operation::Compensation,
        });
        let attempt = self.attempt_of(index, &note);
        self.emit(StepParked {
            step: self.id(index),
            operation,
            attempt,
            call: note,
            code: code.to_owned(),
            reason,
            reached,
        });
    }

    /// Ends forward progress. Calls in flight finish; what waits has an outcome at once. Choreographed, whoever is at a
    /// step says what became of it.
    pub fn fail(&mut self, step: Option<usize>, code: &str, reason: &str) {
        if self.state.failure.is_some() {
            return;
        }
        let step = step.map(|index| self.id(index).to_string());
        let doubted = self.maybe_called_ahead();
        self.emit(SagaFailed { step, code: code.to_owned(), reason: reason.to_owned() });
        if self.state.mode == Mode::Choreographed {
            return;
        }
        doubted.into_iter().for_each(|index| self.doubt(index));
        for index in 0..self.state.steps.len() {
            let step = &self.state.steps[index];
            let waits = step.status.operation().is_some() && !matches!(step.flight, Flight::Airborne(_));
            if waits {
                self.stop_waiting(index, CallNote::default());
            }
        }
    }

    /// Pending steps that a process that is gone may have called, as they were announced ahead.
    pub fn maybe_called_ahead(&self) -> Vec<usize> {
        #[cfg(feature = "mutants")]
        if crate::mutants::FORGET_WHAT_WENT_AHEAD.is_on() {
            return Vec::new();
        }
        let steps = self.state.steps.iter().enumerate();
        steps.filter(|(_, step)| step.is_ahead && step.work.reached).map(|(index, _)| index).collect()
    }

    /// The outcome of such a step that will not be begun.
    pub fn doubt(&mut self, index: usize) {
        let reason = "it was announced ahead to a process that died".to_owned();
        let (step, call) = (self.id(index), CallNote::default());
        self.emit(StepUnknown { step, attempt: 0, call, code: "interrupted".to_owned(), reason });
    }

    /// The outcome of an action that will not be attempted again because the saga failed.
    pub fn stop_waiting(&mut self, index: usize, note: CallNote) {
        let step = self.id(index);
        let attempt = self.attempt_of(index, &note);
        let state = &self.state.steps[index];
        let reason = "the saga failed before its outcome was known".to_owned();
        if state.work.reached || state.status == StepStatus::Checking {
            self.emit(StepUnknown { step, attempt, call: note, code: "interrupted".to_owned(), reason });
        } else {
            let reason = "the saga failed before anything was sent".to_owned();
            self.emit(StepRejected { step, attempt, call: note, code: "cancelled".to_owned(), reason });
        }
    }

    /// The number of the attempt that `note` tells of; of the last one where it tells of none.
    pub fn attempt_of(&self, index: usize, note: &CallNote) -> u32 {
        let work = &self.state.steps[index].work;
        let ends_an_attempt = note.called_at.is_some()
            && !matches!(work.wait, Wait::Accepted { .. })
            && self.state.steps[index].status != StepStatus::Checking;
        work.attempts + u32::from(ends_an_attempt)
    }

    fn check_saga_deadline(&mut self) {
        let passed = self.state.deadline_at.is_some_and(|deadline| deadline <= self.now);
        if !passed || self.state.phase == Phase::Backward || !deadline_applies(self.definition, &self.state) {
            return;
        }
        let begun = self
            .definition
            .steps
            .iter()
            .zip(&self.state.steps)
            .any(|(step, state)| step.kind == StepKind::Pivot && state.status != StepStatus::Pending);
        // A pivot under way has its own rule: its call finishes, or its time limit ends it.
        if !begun {
            self.fail(None, "deadline_exceeded", "the saga's deadline passed");
        }
    }

    /// Starts what is ready, in the direction the saga goes, and ends the saga when nothing is left.
    pub fn advance(&mut self) {
        if self.state.mode == Mode::Choreographed {
            return self.advance_choreographed();
        }
        if !self.state.status.is_ended() && self.state.phase == Phase::Forward {
            self.advance_forward();
        }
        if !self.state.status.is_ended() && self.state.phase == Phase::Backward {
            self.advance_backward();
        }
    }

    /// Announces an operation and makes its first call.
    pub fn begin(&mut self, index: usize, operation: Operation, target: super::Target) {
        let ahead = match operation {
            Operation::Action => self.ahead_of(index),
            Operation::Compensation => Vec::new(),
        };
        self.emit(StepStarted { step: self.id(index), operation, ahead });
        self.invoke(index, target);
    }

    /// The steps to announce with the action of step `index`: those that follow when what is under way succeeds, and
    /// those that follow these, as far as their definition allows.
    fn ahead_of(&self, index: usize) -> Vec<Arc<str>> {
        let mut ahead = Vec::new();
        // Of each step: whether it passes when all goes well. Needs come before those that need them.
        let mut expected: Vec<bool> = Vec::with_capacity(self.state.steps.len());
        for (at, (step, state)) in self.definition.steps.iter().zip(&self.state.steps).enumerate() {
            let under_way = at == index || state.is_ahead || state.status == StepStatus::Running && !state.is_parked();
            let announced = !under_way
                && state.status == StepStatus::Pending
                && step.needs.iter().all(|need| expected[*need])
                // Else it is ready, and about to begin.
                && !step.needs.iter().all(|need| self.state.steps[*need].is_passed())
                && step.ahead_after.as_ref().is_some_and(|after| after.iter().all(|at| self.state.steps[*at].is_passed()));
            if announced {
                ahead.push(Arc::clone(&state.id));
            }
            expected.push(under_way || announced || state.is_passed());
        }
        ahead
    }

    pub fn callback(&mut self, callback: Callback) -> Result<(), IllegalInput> {
        if self.state.mode == Mode::Choreographed {
            let reason = "the saga is choreographed: its participants report to its stream";
            return Err(IllegalInput::NotNow(reason.to_owned()));
        }
        let index = self.index(&callback.step)?;
        let step = &self.state.steps[index];
        if step.status.operation() != Some(callback.operation) || self.state.status.is_ended() {
            let already = match callback.operation {
                Operation::Action => step.outcome == Some(callback.outcome.as_outcome()),
                Operation::Compensation => step.status == StepStatus::Compensated,
            };
            return if already {
                Ok(())
            } else {
                Err(IllegalInput::NotUnderWay {
                    step: callback.step,
                    operation: callback.operation,
                    status: step.status,
                })
            };
        }
        let note = CallNote::default();
        let verdict = match callback.outcome {
            CallbackOutcome::Succeeded { output } => Verdict::Done(Ok(output)),
            CallbackOutcome::Rejected { code, reason } => Verdict::Refused(crate::classify::Refusal { code, reason }),
        };
        match callback.operation {
            Operation::Action => self.action_finished(index, note, verdict),
            Operation::Compensation => self.compensation_finished(index, note, verdict),
        }
        Ok(())
    }
}

/// Whether the saga's deadline still ends it: not once the pivot is behind it or in doubt.
pub(super) fn deadline_applies(definition: &Definition, state: &SagaState) -> bool {
    let pivot = definition.steps.iter().zip(&state.steps).find(|(step, _)| step.kind == StepKind::Pivot);
    pivot.is_none_or(|(_, pivot)| match pivot.status {
        StepStatus::Pending => true,
        StepStatus::Running => !pivot.is_parked(),
        _ => false,
    })
}
